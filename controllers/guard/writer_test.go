package guard

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// entries are the managedFields of an object.
type entries = []metav1.ManagedFieldsEntry

const apply, update = metav1.ManagedFieldsOperationApply, metav1.ManagedFieldsOperationUpdate

// The entries have the form in which a real API server wrote them.
func TestExamineNamesTheManagerThatWroteADifferenceLast(t *testing.T) {
	type spec = admissionregistrationv1.ValidatingAdmissionPolicySpec
	const (
		allFields = `{"f:spec":{"f:failurePolicy":{},"f:matchConditions":{"k:{\"name\":\"has-an-owner\"}":{".":{},"f:expression":{},"f:name":{}},` +
			`"k:{\"name\":\"not-the-operator\"}":{".":{},"f:expression":{},"f:name":{}}},"f:matchConstraints":{},"f:validations":{},` +
			`"f:variables":{"k:{\"name\":\"known\"}":{},"k:{\"name\":\"other\"}":{}}}}`
		validations  = `{"f:spec":{"f:validations":{}}}`
		newCondition = `{"f:spec":{"f:matchConditions":{"k:{\"name\":\"never\"}":{".":{},"f:expression":{},"f:name":{}}}}}`
		condition    = `{"f:spec":{"f:matchConditions":{"k:{\"name\":\"not-the-operator\"}":{"f:expression":{}}}}}`
		variable     = `{"f:spec":{"f:variables":{"k:{\"name\":\"x\"}":{}}}}`
		unknown      = -1
	)
	installed, edited := wrote("installer", 0, apply, allFields), wrote("editor", time.Hour, update, validations)
	timeless, empty := edited, edited
	timeless.Time, empty.FieldsV1 = nil, nil
	edit := func(s *spec) { s.Validations[0].Expression = "true" }
	add := func(s *spec) {
		s.MatchConditions = append(s.MatchConditions, admissionregistrationv1.MatchCondition{Name: "never", Expression: "false"})
	}
	cases := map[string]struct {
		edit    func(*spec)
		entries entries
		manager string
		after   time.Duration
	}{
		"by an edit":                        {edit, entries{installed, edited}, "editor", time.Hour},
		"whatever the order of entries":     {edit, entries{edited, installed}, "editor", time.Hour},
		"the later of two who edited":       {edit, entries{wrote("late", 2*time.Hour, update, validations), edited}, "late", 2 * time.Hour},
		"by whoever applied something else": {edit, entries{installed}, "installer", 0},
		"in the second of the installation": {edit, entries{installed, wrote("editor", 0, update, validations)}, "editor", 0},
		"not by who edited something else":  {edit, entries{installed, wrote("editor", time.Hour, update, variable)}, "installer", 0},
		"not by who labelled the object":    {edit, entries{installed, wrote("labeller", time.Hour, update, `{"f:metadata":{"f:labels":{}}}`)}, "installer", 0},
		"not by who wrote the status":       {edit, entries{installed, wrote("checker", time.Hour, apply, `{"f:status":{"f:validations":{}}}`)}, "installer", 0},
		"at an unknown time":                {edit, entries{timeless}, "editor", unknown},
		"before a time that is known":       {edit, entries{timeless, installed}, "installer", 0},
		"by entries that were wiped":        {edit, nil, "", unknown},
		"by entries without fields":         {edit, entries{empty}, "", unknown},
		"by entries that cannot be read":    {edit, entries{wrote("a", 0, update, `[`), wrote("b", 0, update, `{"f:spec":1}`)}, "", unknown},

		"a condition that was added":      {add, entries{installed, wrote("editor", time.Hour, update, newCondition)}, "editor", time.Hour},
		"a condition by an older manager": {add, entries{wrote("installer", 2*time.Hour, apply, allFields), wrote("editor", time.Hour, update, newCondition)}, "editor", time.Hour},
		"a condition that was changed": {
			func(s *spec) { s.MatchConditions[0].Expression = "false" }, entries{installed, wrote("editor", time.Hour, update, condition)}, "editor", time.Hour,
		},
		"a mode that was changed": {
			func(s *spec) { s.FailurePolicy = new(admissionregistrationv1.Ignore) },
			entries{installed, wrote("editor", time.Hour, update, `{"f:spec":{"f:failurePolicy":{}}}`)}, "editor", time.Hour,
		},
		"a validation that was taken away": {func(s *spec) { s.Validations = s.Validations[1:] }, entries{installed, edited}, "editor", time.Hour},
		"one edit of two that is recorded": {func(s *spec) { s.MatchConditions = nil; edit(s) }, entries{installed, edited}, "editor", time.Hour},

		"conditions that were taken away": {func(s *spec) { s.MatchConditions = nil }, entries{installed}, "", unknown},
		"a condition that was taken away": {func(s *spec) { s.MatchConditions = s.MatchConditions[:1] }, entries{installed}, "", unknown},
		"parameters that were taken away": {func(s *spec) { s.ParamKind = nil }, entries{installed}, "", unknown},
		"variables in another order":      {func(s *spec) { s.Variables[0], s.Variables[1] = s.Variables[1], s.Variables[0] }, entries{installed}, "", unknown},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := sample()
			tc.edit(&live.Policy.Spec)
			live.Policy.ManagedFields = tc.entries
			got := examineOne(sample(), live)
			if len(got) != 1 {
				t.Fatalf("Examine() = %v, want one finding", got)
			}
			want := Finding{Kind: policyKind, Name: "cofferdam-sample", Problem: Changed, Field: got[0].Field, Manager: tc.manager}
			if tc.after >= 0 {
				want.At = noon.Add(tc.after)
			}
			// Without a time zone of its own, so that findings can be compared.
			if got[0] != want {
				t.Errorf("Examine() (-want +got):\n%s", cmp.Diff(want, got[0], cmp.Transformer("zone", time.Time.String)))
			}
		})
	}
}

func TestExamineNamesTheManagerOfTheActions(t *testing.T) {
	type actions = []admissionregistrationv1.ValidationAction
	installed := wrote("installer", 0, apply, `{"f:spec":{"f:policyName":{},"f:validationActions":{"v:\"Audit\"":{}}}}`)
	edited := wrote("editor", time.Hour, update, `{"f:spec":{"f:validationActions":{"v:\"Warn\"":{}}}}`)
	cases := map[string]struct {
		actions actions
		entries entries
		manager string
	}{
		"one instead of another":       {actions{"Audit", "Warn"}, entries{installed, edited}, "editor"},
		"one that was taken away":      {actions{"Audit"}, entries{installed}, ""},
		"not who wrote only the other": {actions{"Audit", "Warn"}, entries{installed}, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := sample()
			live.Binding.Spec.ValidationActions, live.Binding.ManagedFields = tc.actions, tc.entries
			got := examineOne(sample(), live)
			if len(got) != 1 || got[0].Field != "spec.validationActions" || got[0].Manager != tc.manager || got[0].At.IsZero() != (tc.manager == "") {
				t.Errorf("Examine() = %+v, want manager %q", got, tc.manager)
			}
		})
	}
}
