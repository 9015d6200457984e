package explain

import (
	"reflect"
	"strings"
	"testing"
	"unicode"
)

func TestClean(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"plain text":              {in: "NetworkPolicy shop/allow-web é 漢", want: "NetworkPolicy shop/allow-web é 漢"},
		"an escape sequence":      {in: "a\x1b[31mb", want: "a�[31mb"},
		"a C1 escape":             {in: "a\u009b31mb", want: "a�31mb"},
		"lines":                   {in: "a\r\nb\u2028c", want: "a��b�c"},
		"direction of writing":    {in: "a\u202eb\u2066c", want: "a�b�c"},
		"characters of no width":  {in: "a\u200bb\ufeffc\u00add", want: "a�b�c�d"},
		"bytes that are no text":  {in: "a\xffb", want: "a�b"},
		"spaces of another width": {in: "a\u00a0b\u3000c", want: "a�b�c"},
		"a long text":             {in: strings.Repeat("é", maxText+1), want: strings.Repeat("é", maxText-1) + "…"},
		"as long as it may be":    {in: strings.Repeat("é", maxText), want: strings.Repeat("é", maxText)},
	} {
		if got := Clean(tc.in); got != tc.want {
			t.Errorf("%s: Clean(%q) = %q, want %q", name, tc.in, got, tc.want)
		}
	}
}

// fill puts the text into every string that the value leads to.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, text)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), text)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(text), reflect.ValueOf(text))
	default:
	}
}

func TestEveryFieldOfAnExplanationIsCleaned(t *testing.T) {
	var x PodExplanation
	fill(reflect.ValueOf(&x).Elem(), "\x1b[2J\u202e")
	cleanAll(reflect.ValueOf(&x))
	var text strings.Builder
	if err := x.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, r := range text.String() {
		if !unicode.IsPrint(r) && r != '\n' {
			t.Fatalf("%U was printed", r)
		}
	}
	var look func(v reflect.Value, path string)
	look = func(v reflect.Value, path string) {
		switch v.Kind() {
		case reflect.String:
			if strings.ContainsRune(v.String(), '\x1b') {
				t.Errorf("%s is not cleaned", path)
			}
		case reflect.Pointer:
			look(v.Elem(), path)
		case reflect.Struct:
			for i := range v.NumField() {
				look(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
		case reflect.Slice:
			for i := range v.Len() {
				look(v.Index(i), path)
			}
		case reflect.Map:
			for _, key := range v.MapKeys() {
				look(key, path)
				look(v.MapIndex(key), path)
			}
		default:
		}
	}
	look(reflect.ValueOf(x), "PodExplanation")
}

func TestLabelsAreBounded(t *testing.T) {
	f := factsOf(podNamed("web"))
	for i := range maxLabels + 5 {
		f.Pod.Labels[strings.Repeat("x", i+1)] = ""
	}
	if n := len(Explain(f).Pod.Labels); n != maxLabels {
		t.Errorf("%d labels", n)
	}
}
