package evidence

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestEncode(t *testing.T) {
	cases := map[string]struct {
		in   any
		want string
	}{
		"keys are sorted":                {in: map[string]int{"b": 2, "a": 1}, want: `{"a":1,"b":2}`},
		"space is taken out":             {in: json.RawMessage("{ \"a\" : 1 }\n"), want: `{"a":1}`},
		"letters of any script stay":     {in: "naïve 影", want: `"naïve 影"`},
		"what a terminal obeys":          {in: "\x1b[2J\u009b31m\x7f", want: `"\u001b[2J\u009b31m\u007f"`},
		"what turns the direction":       {in: "a\u202eb", want: `"a\u202eb"`},
		"invisible beyond the first 64K": {in: "a\U000e0041", want: `"a\udb40\udc41"`},
		"markup":                         {in: "<b>", want: `"\u003cb\u003e"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Encode(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want {
				t.Errorf("Encode() = %s, want %s", got, tc.want)
			}
			var before, after any
			plain, _ := json.Marshal(tc.in)
			if err := json.Unmarshal(plain, &before); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(got, &after); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("it means something else (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("a\u202e\x1b", "canary")
	f.Fuzz(func(t *testing.T, text, value string) {
		in := map[string]any{"text": text, "env": []any{map[string]any{"name": text, "value": value}}}
		got, err := Encode(in)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var want, have any
		if err := json.Unmarshal(plain, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &have); err != nil {
			t.Fatalf("%q is not JSON: %v", got, err)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("it means something else (-want +got):\n%s", diff)
		}
		if strings.ContainsFunc(string(got), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q has characters that do not print", got)
		}
	})
}
