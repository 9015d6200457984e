package incident

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
)

// A record that is too large is said to be lost, once, and holds up neither the other pods nor the quarantine of its own.
func TestRecordThatIsTooLarge(t *testing.T) {
	byUID := func(obj client.Object) []string { return []string{string(obj.(*corev1.Event).InvolvedObject.UID)} }
	c := fake.NewClientBuilder().WithIndex(&corev1.Event{}, "involvedObject.uid", byUID).Build()
	pods := []v1alpha1.PodStatus{{Namespace: "shop", Name: "large", UID: "uid-large"}, {Namespace: "shop", Name: "small", UID: "uid-small"}}
	s := contained(pods...)
	s.Reconciler = &Reconciler{Client: c, OperatorNamespace: evidenceNamespace, Clock: clockOf(now)}
	s.view.All = map[string]*corev1.Pod{}
	for _, p := range pods {
		s.view.All[p.UID] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID)}}
	}
	s.view.All["uid-large"].Annotations = map[string]string{"a": strings.Repeat("a", 64<<20)}
	for range 2 {
		if err := s.recordManifests(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]v1alpha1.EvidenceState{}
	for i, item := range s.next.Evidence {
		got[item.ID] = item.State
		if item.State == v1alpha1.EvidenceGap && !strings.HasPrefix(item.Message, "the record of Pod shop/large, with its owners, events and policies, is not kept: it is larger than can be kept: it has 6710") {
			t.Errorf("the gap says %q", item.Message)
		}
		if !s.recorded(&s.next.Pods[i]) {
			t.Errorf("%s may not be quarantined", s.next.Pods[i].Name)
		}
	}
	want := map[string]v1alpha1.EvidenceState{"manifests-uid-large": v1alpha1.EvidenceGap, "manifests-uid-small": v1alpha1.EvidencePending}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
}

func TestUnlessTooLarge(t *testing.T) {
	other := errors.New("no route")
	for name, tc := range map[string]struct {
		err, want error
		items     int
	}{"too large": {fmt.Errorf("x: %w", evidence.ErrTooLarge), nil, 1}, "anything else": {other, other, 0}} {
		t.Run(name, func(t *testing.T) {
			s := contained()
			if err := s.unlessTooLarge(tc.err, v1alpha1.EvidenceItem{ID: "x"}); !errors.Is(err, tc.want) || len(s.next.Evidence) != tc.items {
				t.Errorf("unlessTooLarge() = %v, with %d items", err, len(s.next.Evidence))
			}
		})
	}
}
