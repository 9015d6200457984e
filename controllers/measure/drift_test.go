package measure

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	safeToEvict  = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	doNotDisrupt = "karpenter.sh/do-not-disrupt"
)

// tampering is what somebody does to a pod that is held, and what is said about it.
type tampering struct {
	change   func(*corev1.Pod)
	detached []string // what is said of a detached pod
	attached []string // what is said of an attached one
	// recordLost says that nobody knows any more what annotations the pod had.
	recordLost bool
}

func said(phrases ...string) []string { return phrases }

func removed(key string) string { return "its annotation " + key + " was removed" }

func unreadable(key string) string {
	return "its annotation " + key + " was changed and cannot be read any more"
}

func tamperings() map[string]tampering {
	ordinary := said("it was given ordinary labels (app)")
	changed := said("its annotation " + safeToEvict + " was changed")
	both := func(phrases ...string) tampering { return tampering{detached: phrases, attached: phrases} }
	with := func(t tampering, change func(*corev1.Pod)) tampering { t.change = change; return t }
	lost := func(t tampering) tampering { t.recordLost = true; return t }
	return map[string]tampering{
		"nothing": with(both(), func(*corev1.Pod) {}),
		"an annotation of its own, and another Incident's label": with(both(), func(p *corev1.Pod) {
			p.Annotations["note"], p.Labels[QuarantineLabel(second)] = "new", "held"
		}),
		"an ordinary label": {detached: ordinary, change: func(p *corev1.Pod) { p.Labels["app"] = "web" }},
		"many ordinary labels": {detached: said("it was given ordinary labels (app, l0, l1 and 2 more)"), change: func(p *corev1.Pod) {
			p.Labels["app"] = "web"
			for i := range 4 {
				p.Labels[fmt.Sprintf("l%d", i)] = ""
			}
			delete(p.Labels, "pod-template-hash")
		}},
		"the quarantine label taken off": with(both("its quarantine label was taken off"), func(p *corev1.Pod) { delete(p.Labels, QuarantineLabel(first)) }),
		"another value of it":            with(both("its quarantine label was taken off"), func(p *corev1.Pod) { p.Labels[QuarantineLabel(first)] = "no" }),
		"an eviction annotation changed": with(both(changed...), func(p *corev1.Pod) { p.Annotations[safeToEvict] = "true" }),
		"an eviction annotation removed": with(both(removed(doNotDisrupt)), func(p *corev1.Pod) { delete(p.Annotations, doNotDisrupt) }),
		"the record of annotations removed": lost(with(both(removed(v1alpha1.OriginalAnnotationsAnnotation)), func(p *corev1.Pod) {
			delete(p.Annotations, v1alpha1.OriginalAnnotationsAnnotation)
		})),
		"the record of annotations spoilt": lost(with(both(unreadable(v1alpha1.OriginalAnnotationsAnnotation)), func(p *corev1.Pod) {
			p.Annotations[v1alpha1.OriginalAnnotationsAnnotation] = "{"
		})),
		"the record of labels removed": {detached: said(removed(v1alpha1.OriginalAnnotation)), change: func(p *corev1.Pod) { delete(p.Annotations, v1alpha1.OriginalAnnotation) }},
		"the record of labels spoilt":  {detached: said(unreadable(v1alpha1.OriginalAnnotation)), change: spoilOriginal},
		"a label and two annotations at once": {
			detached: slices.Concat(ordinary, changed, said(removed(doNotDisrupt))), attached: slices.Concat(changed, said(removed(doNotDisrupt))),
			change: func(p *corev1.Pod) {
				p.Labels["app"], p.Annotations[safeToEvict] = "web", "true"
				delete(p.Annotations, doNotDisrupt)
			},
		},
	}
}

// spoilOriginal does so only where quarantine has put the annotation.
func spoilOriginal(p *corev1.Pod) {
	if _, kept := p.Annotations[v1alpha1.OriginalAnnotation]; kept {
		p.Annotations[v1alpha1.OriginalAnnotation] = "{"
	}
}

// What is repaired is not reported again, and the release gives back exactly what the pod had, as far as the records allow.
func TestDriftAndRepair(t *testing.T) {
	for name, tc := range tamperings() {
		for _, detached := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", detached", false: ", attached"}[detached], func(t *testing.T) {
				before := annotated(map[string]string{safeToEvict: "true"})
				pod := act{by: first, detach: detached}.on(t, before)
				tc.change(pod)
				phrases := tc.attached
				if detached {
					phrases = tc.detached
				}
				if diff := cmp.Diff(phrases, Drift(pod, first, detached)); diff != "" {
					t.Errorf("Drift() (-want +got):\n%s", diff)
				}
				repaired := repair(t, pod, detached, &Original{Labels: before.Labels, Owner: &before.OwnerReferences[0]})
				if drift := Drift(repaired, first, detached); len(drift) > 0 {
					t.Errorf("after the repair Drift() = %q", drift)
				}
				if !Holds(repaired, first) || !keptFromEviction(repaired) {
					t.Errorf("after the repair labels %v, annotations %v", repaired.Labels, repaired.Annotations)
				}
				checkOriginals(t, before, pod, repaired, detached)
				if tc.recordLost {
					delete(before.Annotations, safeToEvict)
				}
				checkRelease(t, before, repaired, detached)
			})
		}
	}
}

func repair(t *testing.T, pod *corev1.Pod, detached bool, recovered *Original) *corev1.Pod {
	t.Helper()
	untouched := pod.DeepCopy()
	out := pod.DeepCopy()
	labels, annotations, lost, err := Repaired(pod, first, detached, recovered)
	if err != nil || lost != (detached && recovered == nil) {
		t.Fatalf("Repaired(): lost %v, error %v", lost, err)
	}
	if diff := cmp.Diff(untouched, pod); diff != "" {
		t.Errorf("the pod that was read was changed (-want +got):\n%s", diff)
	}
	out.Labels, out.Annotations = labels, annotations
	return out
}

// checkOriginals checks that a detached pod carries a record of its labels and owner, and that an attached one carries none and keeps its labels.
func checkOriginals(t *testing.T, before, tampered, repaired *corev1.Pod, detached bool) {
	t.Helper()
	original, err := OriginalOf(repaired)
	if err != nil {
		t.Fatal(err)
	}
	var want *Original
	if detached {
		want = &Original{Labels: before.Labels, Owner: &before.OwnerReferences[0]}
	}
	if diff := cmp.Diff(want, original); diff != "" {
		t.Errorf("original (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(withoutQuarantine(tampered.Labels), withoutQuarantine(repaired.Labels)); !detached && diff != "" {
		t.Errorf("labels of an attached pod (-want +got):\n%s", diff)
	}
}

// checkRelease checks that the pod gets back the annotations that quarantine replaced and, if it was detached, its labels.
func checkRelease(t *testing.T, before, repaired *corev1.Pod, detached bool) {
	t.Helper()
	freed := repaired.DeepCopy()
	delete(freed.Labels, QuarantineLabel(second))
	freed = act{by: first, release: true}.on(t, freed)
	freed.Annotations["note"] = before.Annotations["note"] // everybody may change it
	if diff := cmp.Diff(before.Annotations, freed.Annotations); diff != "" {
		t.Errorf("annotations after the release (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Labels, freed.Labels); detached && diff != "" {
		t.Errorf("labels after the release (-want +got):\n%s", diff)
	}
}

// A detached pod whose original labels nobody knows is repaired as far as possible: what is on it now must not be taken for its originals.
func TestALostOriginalIsNotInvented(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"removed": func(p *corev1.Pod) { delete(p.Annotations, v1alpha1.OriginalAnnotation) },
		"removed, with the own label": func(p *corev1.Pod) {
			delete(p.Annotations, v1alpha1.OriginalAnnotation)
			p.Labels = map[string]string{"app": "smuggled"}
		},
		"spoilt": spoilOriginal,
	} {
		t.Run(name, func(t *testing.T) {
			pod := act{by: first, detach: true}.on(t, webPod())
			change(pod)
			repaired := repair(t, pod, true, nil)
			if diff := cmp.Diff(map[string]string{QuarantineLabel(first): "held"}, repaired.Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(pod.Annotations[v1alpha1.OriginalAnnotation], repaired.Annotations[v1alpha1.OriginalAnnotation]); diff != "" {
				t.Errorf("the annotation (-want +got):\n%s", diff)
			}
			drift := Drift(repaired, first, true)
			if len(drift) != 1 || !strings.Contains(drift[0], v1alpha1.OriginalAnnotation+" ") {
				t.Errorf("Drift() = %q, want it to go on about the originals", drift)
			}
		})
	}
}

// The originals that a pod carries are believed when status says that it was detached, even if it lost its quarantine label and got ordinary ones.
func TestRepairKeepsTheOriginals(t *testing.T) {
	pod := act{by: first, detach: true}.on(t, webPod())
	pod.Labels = map[string]string{"app": "smuggled"}
	repaired := repair(t, pod, true, &Original{Labels: map[string]string{"app": "other"}})
	if diff := cmp.Diff(webPod(), act{by: first, release: true}.on(t, repaired)); diff != "" {
		t.Errorf("after the release (-want +got):\n%s", diff)
	}
}

// The evidence of a pod that another Incident held carries that Incident's label, which must not come back with the originals.
func TestRecoveredOriginalsHoldNoQuarantineLabel(t *testing.T) {
	pod := act{by: first, detach: true}.on(t, webPod())
	delete(pod.Annotations, v1alpha1.OriginalAnnotation)
	repaired := repair(t, pod, true, &Original{Labels: map[string]string{"app": "web", QuarantineLabel(second): "held"}})
	var original Original
	if err := json.Unmarshal([]byte(repaired.Annotations[v1alpha1.OriginalAnnotation]), &original); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Original{Labels: map[string]string{"app": "web"}}, original); diff != "" {
		t.Errorf("original (-want +got):\n%s", diff)
	}
}

// Another Incident detached the pod, and was released first: its labels are still in the annotation, for the Incident that holds it on, attached.
func TestRepairLeavesTheOriginalsOfAnotherIncident(t *testing.T) {
	pod := act{by: first}.on(t, webPod())
	pod = act{by: second, detach: true}.on(t, pod)
	pod = act{by: second, release: true}.on(t, pod)
	if drift := Drift(pod, first, false); len(drift) > 0 {
		t.Errorf("Drift() = %q", drift)
	}
	delete(pod.Annotations, doNotDisrupt)
	repaired := repair(t, pod, false, nil)
	if diff := cmp.Diff(webPod(), act{by: first, release: true}.on(t, repaired)); diff != "" {
		t.Errorf("after the release (-want +got):\n%s", diff)
	}
}
