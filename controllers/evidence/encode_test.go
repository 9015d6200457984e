package evidence

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

func TestRedact(t *testing.T) {
	pod := recordedPod()
	pod.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "PASSWORD", Value: "canary-1"}, {Name: "EMPTY"},
		{Name: "REF", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "kept-key"}}},
	}
	pod.Annotations = map[string]string{
		corev1.LastAppliedConfigAnnotation: `{"spec":{"containers":[{"name":"kept-name","env":[{"name":"A","value":"canary-2"}]}]},"metadata":{"annotations":{"my/token":"canary-3","n":9007199254740993}}}`,
		"example.com/api-key":              "canary-4",
		"example.com/plain":                "kept-annotation",
	}
	odd := pod.DeepCopy()
	odd.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "canary-5, not JSON"}
	revision := json.RawMessage(`{"kind":"ControllerRevision","data":{"spec":{"template":{"spec":{"initContainers":[{"env":[{"name":"A","value":"canary-6"}]}]}}}}}`)
	document := map[string]any{"pod": pod, "odd": odd, "revision": revision, "events": []corev1.Event{{ObjectMeta: metav1.ObjectMeta{Name: "kept-event"}}}}

	plain, err := Encode(document)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(plain), "canary-"); n != 7 {
		t.Errorf("without Redact %d of 7 values are there", n)
	}
	redacted, err := Encode(document, Redact)
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.Index(string(redacted), "canary-"); i >= 0 {
		t.Errorf("with Redact there is still %.20s", redacted[i:])
	}
	for _, kept := range []string{"kept-key", "kept-name", "kept-annotation", "kept-event", "9007199254740993", `"PASSWORD"`} {
		if !strings.Contains(string(redacted), kept) {
			t.Errorf("%s was lost", kept)
		}
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
		if _, err := Encode(in, Redact); err != nil {
			t.Fatal(err)
		}
	})
}
