package recovery

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestAt(t *testing.T) {
	object := func() map[string]any {
		return map[string]any{"spec": map[string]any{"image": "a", "nodes": []any{map[string]any{"a/b": "c", "n~m": int64(1)}}}}
	}
	cases := map[string]struct {
		want string
		ok   bool
	}{
		"/spec/image":         {"a", true},
		"/spec/nodes/0/a~1b":  {"c", true},
		"/spec/nodes/0/n~0m":  {},
		"/spec/nodes/1/a~1b":  {},
		"/spec/nodes/-/a~1b":  {},
		"/spec/nodes":         {},
		"/spec/nothing":       {},
		"/spec/image/further": {},
	}
	for path, tc := range cases {
		t.Run(path, func(t *testing.T) {
			o := object()
			if got, ok := at(o, path, new("new")); got != tc.want || ok != tc.ok {
				t.Errorf("at() = %q, %v, want %q, %v", got, ok, tc.want, tc.ok)
			}
			after, changed := at(o, path, nil)
			if changed != tc.ok || tc.ok && after != "new" {
				t.Errorf("after it was set, at() = %q, %v", after, changed)
			}
			if !tc.ok && !cmp.Equal(o, object()) {
				t.Errorf("what has no string there was changed: %v", o)
			}
		})
	}
}

func TestAllAnew(t *testing.T) {
	ref := v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}
	cases := map[string]struct {
		revisions []v1alpha1.RevisionStatus
		want      bool
	}{
		"no revision":                {want: true},
		"one with other images":      {revisions: []v1alpha1.RevisionStatus{{Workload: ref, Images: []string{badImage}}}, want: true},
		"one with the images":        {revisions: []v1alpha1.RevisionStatus{{Workload: ref, Images: []string{"x", goodImage}}}},
		"one of something else":      {revisions: []v1alpha1.RevisionStatus{{Workload: v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "api"}, Images: []string{goodImage}}}, want: true},
		"one of two has the images":  {revisions: []v1alpha1.RevisionStatus{{Workload: ref, Images: []string{badImage}}, {Workload: ref, Images: []string{goodImage}}}},
		"of two none has the images": {revisions: []v1alpha1.RevisionStatus{{Workload: ref, Images: []string{badImage}}, {Workload: ref}}, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			inc := incident(nil)
			inc.Status.Revisions = tc.revisions
			if got := allAnew(inc, ref, good("main")); got != tc.want {
				t.Errorf("allAnew() = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestHaltedRollout(t *testing.T) {
	cases := map[string]struct {
		object map[string]any
		halted bool
	}{
		"going on":         {map[string]any{"status": map[string]any{"currentPodHash": "a"}}, false},
		"aborted":          {map[string]any{"status": map[string]any{"abort": true}}, true},
		"paused by people": {map[string]any{"spec": map[string]any{"paused": true}}, true},
		"at a canary step": {map[string]any{"status": map[string]any{"pauseConditions": []any{map[string]any{"reason": "CanaryPauseStep"}}}}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := haltedRollout(&unstructured.Unstructured{Object: tc.object}); (got != "") != tc.halted {
				t.Errorf("haltedRollout() = %q", got)
			}
		})
	}
}
