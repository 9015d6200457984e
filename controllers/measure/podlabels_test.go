package measure

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	first  = types.UID("aaaa")
	second = types.UID("bbbb")
)

func webPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web-1", UID: "u1", ResourceVersion: "7",
		Labels:          map[string]string{"app": "web", "pod-template-hash": "abc"},
		Annotations:     map[string]string{"note": "kept"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-abc", UID: "rs1", Controller: new(true)}},
	}}
}

// act is what one Incident does to the pod.
type act struct {
	by      types.UID
	detach  bool
	release bool
}

func (a act) on(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	out := pod.DeepCopy()
	var err error
	if a.release {
		out.Labels, out.Annotations, err = Released(pod, a.by)
	} else {
		out.Labels, out.Annotations, err = Quarantined(pod, a.by, a.detach)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestQuarantined(t *testing.T) {
	held := map[string]string{QuarantineLabel(first): "held"}
	attached := map[string]string{"app": "web", "pod-template-hash": "abc", QuarantineLabel(first): "held"}
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bare"}}
	cases := map[string]struct {
		pod      *corev1.Pod
		detach   bool
		want     map[string]string
		original *Original
	}{
		"detached":               {pod: webPod(), detach: true, want: held, original: &Original{Labels: webPod().Labels, Owner: &webPod().OwnerReferences[0]}},
		"kept attached":          {pod: webPod(), want: attached},
		"without anything":       {pod: bare, detach: true, want: held, original: &Original{Labels: map[string]string{}}},
		"without anything, kept": {pod: bare, want: held},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := tc.pod.DeepCopy()
			got := act{by: first, detach: tc.detach}.on(t, tc.pod)
			if diff := cmp.Diff(tc.want, got.Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			original, err := OriginalOf(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.original, original); diff != "" {
				t.Errorf("original (-want +got):\n%s", diff)
			}
			if got.Annotations["note"] != tc.pod.Annotations["note"] {
				t.Errorf("annotations = %v, want the pod's own to stay", got.Annotations)
			}
			if !keptFromEviction(got) {
				t.Errorf("annotations = %v, want those that keep the pod from being evicted", got.Annotations)
			}
			if diff := cmp.Diff(before, tc.pod); diff != "" {
				t.Errorf("the pod that was read was changed (-want +got):\n%s", diff)
			}
		})
	}
}

// keptFromEviction says whether the pod has the annotations by which the Cluster Autoscaler, Karpenter and the Descheduler leave it alone.
func keptFromEviction(pod *corev1.Pod) bool {
	return pod.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false" && pod.Annotations["karpenter.sh/do-not-disrupt"] == "true" &&
		pod.Annotations["descheduler.alpha.kubernetes.io/prefer-no-eviction"] == "true"
}

// annotated is the pod with annotations of its own under the keys that quarantine uses.
func annotated(annotations map[string]string) *corev1.Pod {
	pod := webPod()
	maps.Copy(pod.Annotations, annotations)
	return pod
}

// Whoever releases last gives the pod back exactly what it had, and nobody before does.
func TestRoundTrips(t *testing.T) {
	pods := map[string]func() *corev1.Pod{
		"a pod": webPod,
		"a pod that may be evicted": func() *corev1.Pod {
			return annotated(map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "karpenter.sh/do-not-disrupt": "30m"})
		},
		"a pod that was kept already": func() *corev1.Pod { return annotated(EvictionAnnotations()) },
	}
	for name, pod := range pods {
		t.Run(name, func(t *testing.T) { roundTrips(t, pod) })
	}
}

func roundTrips(t *testing.T, fresh func() *corev1.Pod) {
	hold := func(by types.UID, detach bool) act { return act{by: by, detach: detach} }
	free := func(by types.UID) act { return act{by: by, release: true} }
	cases := map[string][]act{"one Incident, detached": {hold(first, true), free(first)}, "one Incident, attached": {hold(first, false), free(first)}}
	for _, a := range []bool{true, false} {
		for _, b := range []bool{true, false} {
			for order, acts := range map[string][]act{
				"last in, first out":      {hold(first, a), hold(second, b), free(second), free(first)},
				"first in, first out":     {hold(first, a), hold(second, b), free(first), free(second)},
				"repeated by each":        {hold(first, a), hold(first, a), hold(second, b), hold(second, b), free(first), free(first), free(second)},
				"out and back in":         {hold(first, a), hold(second, b), free(first), hold(first, a), free(second), free(first)},
				"held again when all out": {hold(first, a), free(first), hold(second, b), free(second)},
			} {
				cases[order+": detach "+map[bool]string{true: "yes", false: "no"}[a]+map[bool]string{true: ", yes", false: ", no"}[b]] = acts
			}
		}
	}
	for name, acts := range cases {
		t.Run(name, func(t *testing.T) {
			pod, expected := fresh(), holding{by: map[types.UID]bool{}}
			for _, a := range acts {
				pod = a.on(t, pod)
				expected.after(a)
				expected.check(t, pod)
			}
			if diff := cmp.Diff(fresh(), pod); diff != "" {
				t.Errorf("after the last release (-want +got):\n%s", diff)
			}
		})
	}
}

// holding is who should hold the pod, and whether its own labels should be off.
type holding struct {
	by       map[types.UID]bool
	detached bool
}

func (h *holding) after(a act) {
	h.by[a.by] = !a.release
	h.detached = (h.by[first] || h.by[second]) && (h.detached || a.detach)
}

func (h *holding) check(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	for _, uid := range []types.UID{first, second} {
		if got := Holds(pod, uid); got != h.by[uid] {
			t.Errorf("Holds(%s) = %v, want %v", uid, got, h.by[uid])
		}
	}
	if _, has := pod.Labels["app"]; has == h.detached {
		t.Errorf("labels %v, want the pod's own to be off: %v", pod.Labels, h.detached)
	}
	if held := h.by[first] || h.by[second]; held && !keptFromEviction(pod) {
		t.Errorf("annotations %v, want the pod to be kept from eviction until the last release", pod.Annotations)
	}
}

func TestReleasedDropsWhatWasAddedMeanwhile(t *testing.T) {
	pod := act{by: first, detach: true}.on(t, webPod())
	pod.Labels["app"] = "smuggled"
	pod.Labels["more"] = "smuggled"
	pod.Annotations["karpenter.sh/do-not-disrupt"] = "smuggled"
	if diff := cmp.Diff(webPod(), act{by: first, release: true}.on(t, pod)); diff != "" {
		t.Errorf("Released() (-want +got):\n%s", diff)
	}
}

func TestAnAnnotationThatCannotBeReadIsAnError(t *testing.T) {
	pod := act{by: first, detach: true}.on(t, webPod())
	pod.Annotations[v1alpha1.OriginalAnnotation] = `{"labels":`
	if _, err := OriginalOf(pod); err == nil {
		t.Error("OriginalOf() succeeded")
	}
	if labels, _, err := Released(pod, first); err == nil {
		t.Errorf("Released() = %v, want an error: the labels are not known", labels)
	}
	pod = act{by: first}.on(t, webPod())
	pod.Annotations[v1alpha1.OriginalAnnotationsAnnotation] = `["no", "map"]`
	if _, annotations, err := Released(pod, first); err == nil {
		t.Errorf("Released() = %v, want an error: the annotations are not known", annotations)
	}
}

// A record from outside can put back annotations of quarantine, and no others.
func TestOnlyAnnotationsOfQuarantineAreRestored(t *testing.T) {
	cases := map[string]struct{ record, disrupt string }{
		"more than quarantine replaces": {record: `{"karpenter.sh/do-not-disrupt":"1h","sidecar.example.org/inject":"true"}`, disrupt: "1h"},
		"nothing":                       {record: `null`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := act{by: first}.on(t, webPod())
			pod.Annotations[v1alpha1.OriginalAnnotationsAnnotation] = tc.record
			want := webPod()
			if tc.disrupt != "" {
				want.Annotations["karpenter.sh/do-not-disrupt"] = tc.disrupt
			}
			if diff := cmp.Diff(want, act{by: first, release: true}.on(t, pod)); diff != "" {
				t.Errorf("Released() (-want +got):\n%s", diff)
			}
		})
	}
}

// What was held before there were such annotations has no record of them, and keeps them as they are.
func TestWithoutARecordAnnotationsStay(t *testing.T) {
	pod := annotated(EvictionAnnotations())
	pod.Labels[QuarantineLabel(first)] = "held"
	if diff := cmp.Diff(annotated(EvictionAnnotations()), act{by: first, release: true}.on(t, pod)); diff != "" {
		t.Errorf("Released() (-want +got):\n%s", diff)
	}
}

// The annotation is believed only from a pod that is held: whoever writes pod templates could put it there beforehand.
func TestAnAnnotationOnAFreePodIsNotBelieved(t *testing.T) {
	for name, forged := range map[string]string{"readable": `{"labels":{"app":"forged"}}`, "unreadable": `{`} {
		for _, detach := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", detached", false: ", attached"}[detach], func(t *testing.T) {
				pod := webPod()
				pod.Annotations[v1alpha1.OriginalAnnotation] = forged
				pod.Annotations[v1alpha1.OriginalAnnotationsAnnotation] = `{"karpenter.sh/do-not-disrupt":"forged"}`
				back := act{by: first, release: true}.on(t, act{by: first, detach: detach}.on(t, pod))
				if diff := cmp.Diff(webPod(), back); diff != "" {
					t.Errorf("after the release (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// The record was taken off a pod that is held: the next Incident must not take the annotations of the first one for the pod's own.
func TestAnnotationsOfQuarantineAreNotRecordedAsOriginals(t *testing.T) {
	pod := act{by: first}.on(t, webPod())
	delete(pod.Annotations, v1alpha1.OriginalAnnotationsAnnotation)
	pod.Annotations["karpenter.sh/do-not-disrupt"] = "5m"
	pod = act{by: second}.on(t, pod)
	if diff := cmp.Diff(`{"karpenter.sh/do-not-disrupt":"5m"}`, pod.Annotations[v1alpha1.OriginalAnnotationsAnnotation]); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
}

// Somebody took the quarantine label off: what quarantine took is still only in the annotation.
func TestTheOriginalsSurviveAStrippedLabel(t *testing.T) {
	pod := act{by: first, detach: true}.on(t, webPod())
	pod.Labels = nil
	back := act{by: first, release: true}.on(t, act{by: first, detach: true}.on(t, pod))
	if diff := cmp.Diff(webPod(), back); diff != "" {
		t.Errorf("after the release (-want +got):\n%s", diff)
	}
}

func TestHolds(t *testing.T) {
	cases := map[string]struct {
		labels map[string]string
		want   bool
		others []string
	}{
		"no labels":     {},
		"ours":          {labels: map[string]string{QuarantineLabel(first): "held"}, want: true},
		"changed value": {labels: map[string]string{QuarantineLabel(first): "no"}},
		"theirs":        {labels: map[string]string{QuarantineLabel(second): "held"}, others: []string{"bbbb"}},
		"both":          {labels: map[string]string{QuarantineLabel(first): "held", QuarantineLabel(second): "held"}, want: true, others: []string{"bbbb"}},
		"other label":   {labels: map[string]string{"aaaa": "held"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: tc.labels}}
			if got := Holds(pod, first); got != tc.want {
				t.Errorf("Holds() = %v, want %v", got, tc.want)
			}
			if diff := cmp.Diff(tc.others, HeldByOthers(pod, first)); diff != "" {
				t.Errorf("HeldByOthers() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMetadataPatch(t *testing.T) {
	uidAndVersion := []any{
		map[string]any{"op": "test", "path": "/metadata/uid", "value": "u1"},
		map[string]any{"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
	}
	replace := func(labels, annotations map[string]any) []any {
		return append(uidAndVersion[:2:2],
			map[string]any{"op": "add", "path": "/metadata/labels", "value": labels},
			map[string]any{"op": "add", "path": "/metadata/annotations", "value": annotations})
	}
	cases := map[string]struct {
		labels, annotations map[string]string
		want                []any
	}{
		"full":  {labels: map[string]string{"a": "b"}, annotations: map[string]string{"c": ""}, want: replace(map[string]any{"a": "b"}, map[string]any{"c": ""})},
		"empty": {want: replace(map[string]any{}, map[string]any{})},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			raw, err := MetadataPatch(webPod(), maps.Clone(tc.labels), maps.Clone(tc.annotations))
			if err != nil {
				t.Fatal(err)
			}
			var got []any
			if err := json.Unmarshal(raw, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("MetadataPatch() (-want +got):\n%s", diff)
			}
		})
	}
}
