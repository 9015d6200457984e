package remedy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
)

type requirementList = []metav1.LabelSelectorRequirement

var (
	oursOut   = metav1.LabelSelectorRequirement{Key: "quarantine.cofferdam.dev/aaaa", Operator: metav1.LabelSelectorOpDoesNotExist}
	theirsOut = metav1.LabelSelectorRequirement{Key: "quarantine.cofferdam.dev/bbbb", Operator: metav1.LabelSelectorOpDoesNotExist}
	notDB     = metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"db"}}
	hasTier   = metav1.LabelSelectorRequirement{Key: "tier", Operator: metav1.LabelSelectorOpExists}
)

// leaky is a policy of somebody else that selects by the requirements, and by a label.
func leaky(list ...metav1.LabelSelectorRequirement) *networkingv1.NetworkPolicy {
	return policyNamed("leaky", allowIngress(metav1.LabelSelector{MatchLabels: map[string]string{"env": "prod"}, MatchExpressions: list}))
}

// stored is the policy as the API server has it.
type stored struct {
	client.Client
	np *networkingv1.NetworkPolicy
}

func store(t *testing.T, np *networkingv1.NetworkPolicy) *stored {
	t.Helper()
	s := &stored{Client: fake.NewClientBuilder().WithObjects(np.DeepCopy()).Build(), np: &networkingv1.NetworkPolicy{}}
	if err := s.Get(t.Context(), client.ObjectKeyFromObject(np), s.np); err != nil {
		t.Fatal(err)
	}
	return s
}

// apply applies the patch to what is stored, and reads it again.
func (s *stored) apply(t *testing.T, patch []byte) error {
	t.Helper()
	if err := s.Patch(t.Context(), s.np.DeepCopy(), client.RawPatch(types.JSONPatchType, patch)); err != nil {
		return err
	}
	return s.Get(t.Context(), client.ObjectKeyFromObject(s.np), s.np)
}

func TestCarveOutAndRestore(t *testing.T) {
	cases := map[string]struct {
		before, carved requirementList
		// later is what others make of the list meanwhile; nil for nothing.
		later, restored requirementList
	}{
		"no requirements":                      {carved: requirementList{oursOut}},
		"requirements stay in front":           {before: requirementList{notDB, hasTier}, carved: requirementList{notDB, hasTier, oursOut}, restored: requirementList{notDB, hasTier}},
		"another Incident's stays":             {before: requirementList{theirsOut}, carved: requirementList{theirsOut, oursOut}, restored: requirementList{theirsOut}},
		"moved to another place":               {before: requirementList{notDB}, carved: requirementList{notDB, oursOut}, later: requirementList{oursOut, notDB}, restored: requirementList{notDB}},
		"others were added":                    {carved: requirementList{oursOut}, later: requirementList{oursOut, theirsOut, hasTier}, restored: requirementList{theirsOut, hasTier}},
		"others were removed":                  {before: requirementList{notDB}, carved: requirementList{notDB, oursOut}, later: requirementList{oursOut}},
		"it is there twice":                    {before: requirementList{notDB}, carved: requirementList{notDB, oursOut}, later: requirementList{oursOut, notDB, oursOut}, restored: requirementList{notDB}},
		"it is there twice, and nothing else":  {carved: requirementList{oursOut}, later: requirementList{oursOut, oursOut}},
		"the same key for another requirement": {before: requirementList{notOf(oursOut)}, carved: requirementList{notOf(oursOut), oursOut}, restored: requirementList{notOf(oursOut)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := store(t, leaky(tc.before...))
			patch, ok := CarveOut(s.np, first)
			if !ok {
				t.Fatal("CarveOut() has nothing to do")
			}
			s.mustApply(t, patch, tc.carved)
			if _, again := CarveOut(s.np, first); again || !CarvedOut(s.np, first) || CarvedOut(s.np, "cccc") {
				t.Errorf("CarveOut() again: %v; CarvedOut() = %v, for another Incident %v", again, CarvedOut(s.np, first), CarvedOut(s.np, "cccc"))
			}
			if tc.later != nil {
				s.np.Spec.PodSelector.MatchExpressions = tc.later
				if err := s.Update(t.Context(), s.np); err != nil {
					t.Fatal(err)
				}
			}
			patch, ok = Restore(s.np, first)
			if !ok {
				t.Fatal("Restore() has nothing to do")
			}
			s.mustApply(t, patch, tc.restored)
			if _, again := Restore(s.np, first); again || CarvedOut(s.np, first) {
				t.Errorf("Restore() again: %v; CarvedOut() = %v", again, CarvedOut(s.np, first))
			}
		})
	}
}

// A list that was not there before is taken out as well.
func TestRestoreLeavesNoEmptyList(t *testing.T) {
	np := leaky(oursOut)
	np.ResourceVersion = "7"
	patch, _ := Restore(np, first)
	want := `[{"op":"test","path":"/metadata/uid","value":"uid-leaky"},{"op":"test","path":"/metadata/resourceVersion","value":"7"},` +
		`{"op":"remove","path":"/spec/podSelector/matchExpressions"}]`
	if diff := cmp.Diff(want, string(patch)); diff != "" {
		t.Errorf("Restore() (-want +got):\n%s", diff)
	}
}

// notOf is a requirement about the same label that takes nobody out.
func notOf(r metav1.LabelSelectorRequirement) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: r.Key, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"x"}}
}

// mustApply applies the patch and checks that it changed the list and nothing else.
func (s *stored) mustApply(t *testing.T, patch []byte, want requirementList) {
	t.Helper()
	before := s.np.DeepCopy()
	if err := s.apply(t, patch); err != nil {
		t.Fatalf("applying %s: %v", patch, err)
	}
	before.Spec.PodSelector.MatchExpressions, before.ResourceVersion = want, s.np.ResourceVersion
	if diff := cmp.Diff(before, s.np); diff != "" {
		t.Errorf("after %s (-want +got):\n%s", patch, diff)
	}
}

// A policy that was replaced by a namesake, or has changed since it was read, is not touched.
func TestPatchesAreForOneVersionOfOnePolicy(t *testing.T) {
	for name, change := range map[string]func(*networkingv1.NetworkPolicy){
		"another object":  func(np *networkingv1.NetworkPolicy) { np.UID = "other" },
		"another version": func(np *networkingv1.NetworkPolicy) { np.ResourceVersion = "1" },
	} {
		t.Run(name, func(t *testing.T) {
			for what, np := range map[string]*networkingv1.NetworkPolicy{"CarveOut": leaky(notDB), "Restore": leaky(notDB, oursOut)} {
				s := store(t, np)
				seen := s.np.DeepCopy()
				change(seen)
				patch, ok := CarveOut(seen, first)
				if what == "Restore" {
					patch, ok = Restore(seen, first)
				}
				if !ok {
					t.Fatalf("%s() has nothing to do", what)
				}
				if err := s.apply(t, patch); err == nil {
					t.Errorf("%s() changed it", what)
				}
			}
		})
	}
}

func TestCarveOutIsNotOffered(t *testing.T) {
	ours := leaky()
	ours.Labels = map[string]string{v1alpha1.IncidentUIDLabel: string(second)}
	unreadable := leaky(metav1.LabelSelectorRequirement{Key: "app", Operator: "Like", Values: []string{"w*"}})
	for name, np := range map[string]*networkingv1.NetworkPolicy{
		"for a policy of an Incident": ours, "for the Incident's own": denyAll(), "for a selector that cannot be read": unreadable, "twice": leaky(oursOut),
	} {
		t.Run(name, func(t *testing.T) {
			if patch, ok := CarveOut(np, first); ok {
				t.Errorf("CarveOut() = %s", patch)
			}
		})
	}
}

// Whoever wrote the selector anew has taken the requirement out; what is there then is not ours to change.
func TestNothingIsRestoredThatIsNotOurs(t *testing.T) {
	for name, np := range map[string]*networkingv1.NetworkPolicy{
		"no requirements": leaky(), "others": leaky(notDB, theirsOut), "the same key with another operator": leaky(notOf(oursOut)),
		"the same key, but present": leaky(metav1.LabelSelectorRequirement{Key: oursOut.Key, Operator: metav1.LabelSelectorOpExists}),
	} {
		t.Run(name, func(t *testing.T) {
			if patch, ok := Restore(np, first); ok || CarvedOut(np, first) {
				t.Errorf("Restore() = %s, CarvedOut() = %v", patch, CarvedOut(np, first))
			}
		})
	}
}

// A carve-out closes the leak, for a detached pod and for an attached one, and changes nothing for the others.
func TestACarveOutClosesTheLeak(t *testing.T) {
	everything := policyNamed("leaky", allowIngress(metav1.LabelSelector{}))
	s := store(t, everything)
	patch, _ := CarveOut(s.np, first)
	if err := s.apply(t, patch); err != nil {
		t.Fatal(err)
	}
	for _, detach := range []bool{true, false} {
		pod := held(webPod(), detach)
		if leaks := isolation.Evaluate(pod, isolation.SetOf(everything, denyAll()), nil, nil); len(leaks) == 0 {
			t.Errorf("detached %v: there is no leak to close", detach)
		}
		if leaks := isolation.Evaluate(pod, isolation.SetOf(s.np, denyAll()), nil, nil); len(leaks) > 0 {
			t.Errorf("detached %v: %v", detach, leaks)
		}
	}
	free := webPod()
	before, after := isolation.SetOf(everything), isolation.SetOf(s.np)
	for _, d := range isolation.Directions() {
		if isolation.Reachable(free, before, d).String() != isolation.Reachable(free, after, d).String() {
			t.Errorf("%s of a free pod has changed", d)
		}
	}
}

func TestOwned(t *testing.T) {
	entry := func(manager, subresource, fields string) metav1.ManagedFieldsEntry {
		e := metav1.ManagedFieldsEntry{Manager: manager, Subresource: subresource, Operation: metav1.ManagedFieldsOperationUpdate}
		if fields != "" {
			e.FieldsV1 = metav1.NewFieldsV1(fields)
		}
		return e
	}
	const whole, part = `{"f:spec":{"f:podSelector":{}}}`, `{"f:spec":{"f:podSelector":{"f:matchExpressions":{}}}}`
	cases := map[string]struct {
		entries []metav1.ManagedFieldsEntry
		want    bool
	}{
		"nobody":                            {},
		"the selector as a whole":           {entries: []metav1.ManagedFieldsEntry{entry("cofferdam", "", whole)}, want: true},
		"the list, where it is told apart":  {entries: []metav1.ManagedFieldsEntry{entry("cofferdam", "", part)}, want: true},
		"among others":                      {entries: []metav1.ManagedFieldsEntry{entry("kubectl", "", whole), entry("cofferdam", "", whole)}, want: true},
		"somebody else":                     {entries: []metav1.ManagedFieldsEntry{entry("kubectl", "", whole), entry("cofferdam", "", `{"f:spec":{"f:ingress":{}}}`)}},
		"another part of the selector only": {entries: []metav1.ManagedFieldsEntry{entry("cofferdam", "", `{"f:spec":{"f:podSelector":{"f:matchLabels":{}}}}`)}},
		"metadata only":                     {entries: []metav1.ManagedFieldsEntry{entry("cofferdam", "", `{"f:metadata":{"f:labels":{}}}`)}},
		"a subresource":                     {entries: []metav1.ManagedFieldsEntry{entry("cofferdam", "status", whole)}},
		"fields that are not told":          {entries: []metav1.ManagedFieldsEntry{entry("cofferdam", "", "")}},
		"fields that cannot be read":        {entries: []metav1.ManagedFieldsEntry{entry("cofferdam", "", `{"f:spec":[]}`)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			np := leaky(oursOut)
			np.ManagedFields = tc.entries
			if got := Owned(np, "cofferdam"); got != tc.want {
				t.Errorf("Owned() = %v, want %v", got, tc.want)
			}
		})
	}
}
