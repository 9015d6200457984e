package guard

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestExamineNamesTheFieldOfThePolicyThatWasEdited(t *testing.T) {
	type (
		spec       = admissionregistrationv1.ValidatingAdmissionPolicySpec
		ruleType   = admissionregistrationv1.NamedRuleWithOperations
		operations = []admissionregistrationv1.OperationType
	)
	rules := func(s *spec) []ruleType { return s.MatchConstraints.ResourceRules }
	excluded := func(s *spec) []ruleType { return s.MatchConstraints.ExcludeResourceRules }
	except := func(s *spec) *metav1.LabelSelectorRequirement {
		return &s.MatchConstraints.NamespaceSelector.MatchExpressions[0]
	}
	cases := map[string]struct {
		edit func(*spec)
		want string
	}{
		"untouched":               {func(*spec) {}, ""},
		"the default written out": {func(s *spec) { s.FailurePolicy = new(admissionregistrationv1.Fail) }, ""},
		"empty lists instead of none": {func(s *spec) {
			s.MatchConstraints.ObjectSelector.MatchExpressions = []metav1.LabelSelectorRequirement{}
		}, ""},
		"fails open":                    {func(s *spec) { s.FailurePolicy = new(admissionregistrationv1.Ignore) }, "failurePolicy"},
		"no parameters":                 {func(s *spec) { s.ParamKind = nil }, "paramKind"},
		"parameters of another kind":    {func(s *spec) { s.ParamKind.Kind = "Secret" }, "paramKind.kind"},
		"parameters of another version": {func(s *spec) { s.ParamKind.APIVersion = "v2" }, "paramKind.apiVersion"},
		"no constraints":                {func(s *spec) { s.MatchConstraints = nil }, "matchConstraints"},
		"a rule less":                   {func(s *spec) { s.MatchConstraints.ResourceRules = rules(s)[:1] }, "matchConstraints.resourceRules[1]"},
		"no rules":                      {func(s *spec) { s.MatchConstraints.ResourceRules = nil }, "matchConstraints.resourceRules"},
		"a rule more": {func(s *spec) {
			s.MatchConstraints.ResourceRules = append(rules(s), rule("nodes"))
		}, "matchConstraints.resourceRules[2]"},
		"an operation less": {func(s *spec) {
			rules(s)[1].Operations = operations{"CREATE"}
		}, "matchConstraints.resourceRules[1].operations"},
		"another operation": {func(s *spec) { rules(s)[0].Operations[1] = "CONNECT" }, "matchConstraints.resourceRules[0].operations"},
		"another group":     {func(s *spec) { rules(s)[0].APIGroups[0] = "apps" }, "matchConstraints.resourceRules[0].apiGroups"},
		"another version":   {func(s *spec) { rules(s)[0].APIVersions[0] = "v2" }, "matchConstraints.resourceRules[0].apiVersions"},
		"another resource":  {func(s *spec) { rules(s)[0].Resources[0] = "pods/log" }, "matchConstraints.resourceRules[0].resources"},
		"another scope":     {func(s *spec) { rules(s)[0].Scope = new(admissionregistrationv1.ClusterScope) }, "matchConstraints.resourceRules[0].scope"},
		"only some names":   {func(s *spec) { rules(s)[0].ResourceNames = []string{"nobody"} }, "matchConstraints.resourceRules[0].resourceNames"},
		"all names":         {func(s *spec) { rules(s)[0].ResourceNames = nil }, "matchConstraints.resourceRules[0].resourceNames"},
		"an exclusion more": {func(s *spec) {
			s.MatchConstraints.ExcludeResourceRules = append(excluded(s), rule("pods"))
		}, "matchConstraints.excludeResourceRules[1]"},
		"another exclusion":                  {func(s *spec) { excluded(s)[0].Resources[0] = "pods" }, "matchConstraints.excludeResourceRules[0].resources"},
		"another match policy":               {func(s *spec) { s.MatchConstraints.MatchPolicy = new(admissionregistrationv1.Equivalent) }, "matchConstraints.matchPolicy"},
		"another namespace excepted":         {func(s *spec) { except(s).Values[1] = "shop" }, "matchConstraints.namespaceSelector.matchExpressions[0].values"},
		"another operator of the selector":   {func(s *spec) { except(s).Operator = "In" }, "matchConstraints.namespaceSelector.matchExpressions[0].operator"},
		"another key of the selector":        {func(s *spec) { except(s).Key = "other" }, "matchConstraints.namespaceSelector.matchExpressions[0].key"},
		"no namespace selector":              {func(s *spec) { s.MatchConstraints.NamespaceSelector = nil }, "matchConstraints.namespaceSelector.matchExpressions"},
		"a label more":                       {func(s *spec) { s.MatchConstraints.ObjectSelector.MatchLabels["a.b/c"] = "d" }, `matchConstraints.objectSelector.matchLabels["a.b/c"]`},
		"another label value":                {func(s *spec) { s.MatchConstraints.ObjectSelector.MatchLabels["app"] = "db" }, "matchConstraints.objectSelector.matchLabels.app"},
		"no labels":                          {func(s *spec) { s.MatchConstraints.ObjectSelector.MatchLabels = nil }, "matchConstraints.objectSelector.matchLabels"},
		"another expression":                 {func(s *spec) { s.Validations[1].Expression = "true" }, "validations[1].expression"},
		"another message":                    {func(s *spec) { s.Validations[0].Message = "yes" }, "validations[0].message"},
		"another message expression":         {func(s *spec) { s.Validations[1].MessageExpression = `""` }, "validations[1].messageExpression"},
		"another reason":                     {func(s *spec) { s.Validations[0].Reason = nil }, "validations[0].reason"},
		"a validation less":                  {func(s *spec) { s.Validations = s.Validations[1:] }, "validations[0].expression"},
		"no validations":                     {func(s *spec) { s.Validations = nil }, "validations"},
		"another audit annotation":           {func(s *spec) { s.AuditAnnotations[0].ValueExpression = "null" }, "auditAnnotations[0].valueExpression"},
		"another key of an audit annotation": {func(s *spec) { s.AuditAnnotations[0].Key = "x" }, "auditAnnotations[0].key"},
		"a condition more": {func(s *spec) {
			s.MatchConditions = append(s.MatchConditions, admissionregistrationv1.MatchCondition{Name: "never", Expression: "false"})
		}, "matchConditions[2]"},
		"a condition less":       {func(s *spec) { s.MatchConditions = s.MatchConditions[:1] }, "matchConditions[1]"},
		"no conditions":          {func(s *spec) { s.MatchConditions = nil }, "matchConditions"},
		"another condition":      {func(s *spec) { s.MatchConditions[0].Expression = "false" }, "matchConditions[0].expression"},
		"another condition name": {func(s *spec) { s.MatchConditions[0].Name = "x" }, "matchConditions[0].name"},
		"another variable":       {func(s *spec) { s.Variables[0].Expression = "false" }, "variables[0].expression"},
		"variables in another order": {func(s *spec) {
			s.Variables[0], s.Variables[1] = s.Variables[1], s.Variables[0]
		}, "variables[0].expression"},
		"two edits: the first by name": {func(s *spec) {
			s.Variables, s.FailurePolicy = nil, new(admissionregistrationv1.Ignore)
		}, "failurePolicy"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := sample()
			tc.edit(&live.Policy.Spec)
			expectField(t, policyKind, tc.want, examineOne(sample(), live))
		})
	}
}

func TestExamineNamesTheFieldOfTheBindingThatWasEdited(t *testing.T) {
	type (
		spec       = admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec
		actions    = []admissionregistrationv1.ValidationAction
		operations = []admissionregistrationv1.OperationType
	)
	except := func(s *spec) *metav1.LabelSelectorRequirement {
		return &s.MatchResources.NamespaceSelector.MatchExpressions[0]
	}
	cases := map[string]struct {
		edit func(*spec)
		want string
	}{
		"untouched":                       {func(*spec) {}, ""},
		"actions in another order":        {func(s *spec) { s.ValidationActions = actions{"Audit", "Deny"} }, ""},
		"no longer denies":                {func(s *spec) { s.ValidationActions = actions{"Audit"} }, "validationActions"},
		"no longer audits":                {func(s *spec) { s.ValidationActions = actions{"Deny"} }, "validationActions"},
		"warns only":                      {func(s *spec) { s.ValidationActions = actions{"Audit", "Warn"} }, "validationActions"},
		"does nothing":                    {func(s *spec) { s.ValidationActions = nil }, "validationActions"},
		"binds another policy":            {func(s *spec) { s.PolicyName = "harmless" }, "policyName"},
		"no parameters":                   {func(s *spec) { s.ParamRef = nil }, "paramRef"},
		"parameters by name":              {func(s *spec) { s.ParamRef.Name = "empty" }, "paramRef.name"},
		"parameters of another namespace": {func(s *spec) { s.ParamRef.Namespace = "shop" }, "paramRef.namespace"},
		"parameters with another label":   {func(s *spec) { s.ParamRef.Selector.MatchLabels["test/held"] = "no" }, `paramRef.selector.matchLabels["test/held"]`},
		"every parameter":                 {func(s *spec) { s.ParamRef.Selector = &metav1.LabelSelector{} }, "paramRef.selector.matchLabels"},
		"no parameters deny":              {func(s *spec) { s.ParamRef.ParameterNotFoundAction = new(admissionregistrationv1.DenyAction) }, "paramRef.parameterNotFoundAction"},
		"for everything":                  {func(s *spec) { s.MatchResources = nil }, "matchResources"},
		"for one namespace":               {func(s *spec) { except(s).Operator = "In" }, "matchResources.namespaceSelector.matchExpressions[0].operator"},
		"for objects with another label":  {func(s *spec) { s.MatchResources.ObjectSelector.MatchLabels["app"] = "x" }, "matchResources.objectSelector.matchLabels.app"},
		"for other resources":             {func(s *spec) { s.MatchResources.ResourceRules = s.MatchResources.ResourceRules[:1] }, "matchResources.resourceRules[1]"},
		"except for some resources":       {func(s *spec) { s.MatchResources.ExcludeResourceRules[0].Resources[0] = "*" }, "matchResources.excludeResourceRules[0].resources"},
		"for equivalent resources":        {func(s *spec) { s.MatchResources.MatchPolicy = nil }, "matchResources.matchPolicy"},
		"for exclusions of another scope": {func(s *spec) { s.MatchResources.ExcludeResourceRules[0].Scope = nil }, "matchResources.excludeResourceRules[0].scope"},
		"for operations that are all of them": {func(s *spec) {
			s.MatchResources.ResourceRules[0].Operations = operations{"*"}
		}, "matchResources.resourceRules[0].operations"},
		"for objects of any name": {func(s *spec) { s.MatchResources.ResourceRules[0].ResourceNames = nil }, "matchResources.resourceRules[0].resourceNames"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := sample()
			tc.edit(&live.Binding.Spec)
			expectField(t, bindingKind, tc.want, examineOne(sample(), live))
		})
	}
}

func expectField(t *testing.T, kind, field string, got []Finding) {
	t.Helper()
	var want []Finding
	if field != "" {
		want = []Finding{{Kind: kind, Name: "cofferdam-sample", Problem: Changed, Field: "spec." + field}}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Examine() (-want +got):\n%s", diff)
	}
}

// Whatever is restricted in a binding that shipped without restrictions is an edit, even if it restricts nothing.
func TestExamineReportsWhatWasAddedToABareGuard(t *testing.T) {
	bare := func() Policy {
		p := sample()
		p.Policy.Spec.MatchConditions, p.Binding.Spec.MatchResources, p.Binding.Spec.ParamRef = nil, nil, nil
		return p
	}
	cases := map[string]struct {
		edit func(*Policy)
		kind string
		want string
	}{
		"conditions":       {edit: func(p *Policy) { p.Policy.Spec.MatchConditions = sample().Policy.Spec.MatchConditions }, kind: policyKind, want: "matchConditions"},
		"resources":        {edit: func(p *Policy) { p.Binding.Spec.MatchResources = &admissionregistrationv1.MatchResources{} }, kind: bindingKind, want: "matchResources"},
		"parameters":       {edit: func(p *Policy) { p.Binding.Spec.ParamRef = sample().Binding.Spec.ParamRef }, kind: bindingKind, want: "paramRef"},
		"nothing was done": {edit: func(*Policy) {}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := bare()
			tc.edit(&live)
			expectField(t, tc.kind, tc.want, examineOne(bare(), live))
		})
	}
}

// The API server stores what the YAML leaves out.
func TestExamineKnowsTheDefaultsOfTheAPIServer(t *testing.T) {
	shipped := sample()
	shipped.Policy.Spec.FailurePolicy = nil
	for _, m := range []*admissionregistrationv1.MatchResources{shipped.Policy.Spec.MatchConstraints, shipped.Binding.Spec.MatchResources} {
		m.MatchPolicy, m.NamespaceSelector, m.ObjectSelector = nil, nil, nil
		m.ResourceRules[0].Scope, m.ExcludeResourceRules[0].Scope = nil, nil
	}
	live := Policy{Policy: *shipped.Policy.DeepCopy(), Binding: *shipped.Binding.DeepCopy()}
	live.Policy.Spec.FailurePolicy = new(admissionregistrationv1.Fail)
	for _, m := range []*admissionregistrationv1.MatchResources{live.Policy.Spec.MatchConstraints, live.Binding.Spec.MatchResources} {
		m.MatchPolicy, m.NamespaceSelector, m.ObjectSelector = new(admissionregistrationv1.Equivalent), &metav1.LabelSelector{}, &metav1.LabelSelector{}
		m.ResourceRules[0].Scope, m.ExcludeResourceRules[0].Scope = new(admissionregistrationv1.AllScopes), new(admissionregistrationv1.AllScopes)
	}
	before := Policy{Policy: *shipped.Policy.DeepCopy(), Binding: *shipped.Binding.DeepCopy()}
	if got := examineOne(shipped, live); len(got) != 0 {
		t.Errorf("Examine() = %v, want nothing", got)
	}
	if diff := cmp.Diff(before, shipped); diff != "" {
		t.Errorf("Examine() changed what it was given (-before +after):\n%s", diff)
	}
}

func TestExamineForgivesBlankLinesAndNoOtherWhiteSpace(t *testing.T) {
	const shippedExpression = "a // why\n  && b\n&& c == \" \""
	cases := map[string]struct {
		live, want string
	}{
		"as shipped":               {shippedExpression, ""},
		"a blank line":             {"a // why\n\n  && b\n&& c == \" \"", ""},
		"several, one with spaces": {"a // why\n\n \t\n  && b\n\r\n&& c == \" \"", ""},
		"another indentation":      {"a // why\n && b\n&& c == \" \"", "validations[0].expression"},
		"a line less":              {"a // why  && b\n&& c == \" \"", "validations[0].expression"},
		"a space in a string":      {"a // why\n  && b\n&& c == \"  \"", "validations[0].expression"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			shipped, live := sample(), sample()
			shipped.Policy.Spec.Validations[0].Expression, live.Policy.Spec.Validations[0].Expression = shippedExpression, tc.live
			expectField(t, policyKind, tc.want, examineOne(shipped, live))
			expectField(t, policyKind, tc.want, examineOne(live, shipped))
		})
	}
}

func TestExamineReportsWhatIsMissing(t *testing.T) {
	going := metav1.NewTime(noon)
	cases := map[string]struct {
		policies []admissionregistrationv1.ValidatingAdmissionPolicy
		bindings []admissionregistrationv1.ValidatingAdmissionPolicyBinding
		edit     func(policies []admissionregistrationv1.ValidatingAdmissionPolicy, bindings []admissionregistrationv1.ValidatingAdmissionPolicyBinding)
		want     []Finding
	}{
		"all of it": {want: []Finding{
			{Kind: policyKind, Name: "cofferdam-sample", Problem: Missing}, {Kind: bindingKind, Name: "cofferdam-sample", Problem: Missing},
		}},
		"the binding": {
			policies: []admissionregistrationv1.ValidatingAdmissionPolicy{sample().Policy},
			want:     []Finding{{Kind: bindingKind, Name: "cofferdam-sample", Problem: Missing}},
		},
		"the policy": {
			bindings: []admissionregistrationv1.ValidatingAdmissionPolicyBinding{sample().Binding},
			want:     []Finding{{Kind: policyKind, Name: "cofferdam-sample", Problem: Missing}},
		},
		"both under other names": {
			policies: []admissionregistrationv1.ValidatingAdmissionPolicy{sample().Policy},
			bindings: []admissionregistrationv1.ValidatingAdmissionPolicyBinding{sample().Binding},
			edit: func(p []admissionregistrationv1.ValidatingAdmissionPolicy, b []admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
				p[0].Name, b[0].Name = "cofferdam-other", "cofferdam-other"
			},
			want: []Finding{
				{Kind: policyKind, Name: "cofferdam-sample", Problem: Missing}, {Kind: bindingKind, Name: "cofferdam-sample", Problem: Missing},
			},
		},
		"what is being deleted, edited or not": {
			policies: []admissionregistrationv1.ValidatingAdmissionPolicy{sample().Policy},
			bindings: []admissionregistrationv1.ValidatingAdmissionPolicyBinding{sample().Binding},
			edit: func(p []admissionregistrationv1.ValidatingAdmissionPolicy, b []admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
				p[0].DeletionTimestamp, b[0].DeletionTimestamp = &going, &going
				p[0].Spec.FailurePolicy = new(admissionregistrationv1.Ignore)
			},
			want: []Finding{
				{Kind: policyKind, Name: "cofferdam-sample", Problem: Missing, Detail: "is being deleted"},
				{Kind: bindingKind, Name: "cofferdam-sample", Problem: Missing, Detail: "is being deleted"},
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.edit != nil {
				tc.edit(tc.policies, tc.bindings)
			}
			if diff := cmp.Diff(tc.want, Examine([]Policy{sample()}, tc.policies, tc.bindings)); diff != "" {
				t.Errorf("Examine() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExamineIgnoresPoliciesThatWereNotShippedAndKeepsTheOrderOfThoseThatWere(t *testing.T) {
	named := func(name string) Policy {
		p := sample()
		p.Policy.Name, p.Binding.Name = name, name
		return p
	}
	edited := named("cofferdam-b")
	edited.Policy.Spec.FailurePolicy = new(admissionregistrationv1.Ignore)
	theirs := named("cofferdam-theirs")
	theirs.Policy.Spec.Validations = nil
	got := Examine([]Policy{named("cofferdam-c"), named("cofferdam-b"), named("cofferdam-a")},
		[]admissionregistrationv1.ValidatingAdmissionPolicy{theirs.Policy, named("cofferdam-a").Policy, edited.Policy},
		[]admissionregistrationv1.ValidatingAdmissionPolicyBinding{named("cofferdam-a").Binding, edited.Binding, theirs.Binding})
	want := []Finding{
		{Kind: policyKind, Name: "cofferdam-c", Problem: Missing}, {Kind: bindingKind, Name: "cofferdam-c", Problem: Missing},
		{Kind: policyKind, Name: "cofferdam-b", Problem: Changed, Field: "spec.failurePolicy"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Examine() (-want +got):\n%s", diff)
	}
}

func TestExamineReportsWhatTheTypeCheckingFound(t *testing.T) {
	checked := func(observed int64, warnings ...admissionregistrationv1.ExpressionWarning) admissionregistrationv1.ValidatingAdmissionPolicyStatus {
		return admissionregistrationv1.ValidatingAdmissionPolicyStatus{
			ObservedGeneration: observed, TypeChecking: &admissionregistrationv1.TypeChecking{ExpressionWarnings: warnings},
		}
	}
	bad := admissionregistrationv1.ExpressionWarning{
		FieldRef: "spec.validations[1].expression", Warning: "\nv1, Kind=Pod: ERROR: <input>:1:12:  undefined field 'x'\n | object.spec.x > 1\n | ...........^\n",
	}
	second := admissionregistrationv1.ExpressionWarning{FieldRef: "spec.validations[0].expression", Warning: "other"}
	cases := map[string]struct {
		status admissionregistrationv1.ValidatingAdmissionPolicyStatus
		edited bool
		want   []Finding
	}{
		"not checked yet": {},
		"without mistake": {status: checked(2)},
		"the first mistake": {status: checked(2, bad, second), want: []Finding{{
			Kind: policyKind, Name: "cofferdam-sample", Problem: NotWorking, Field: "spec.validations[1].expression",
			Detail: "v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'x'",
		}}},
		"of an older spec": {status: checked(1, bad)},
		"of an edited policy, which has to be put back first": {status: checked(2, bad), edited: true, want: []Finding{{
			Kind: policyKind, Name: "cofferdam-sample", Problem: Changed, Field: "spec.failurePolicy",
		}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			live := sample()
			live.Policy.Generation, live.Policy.Status = 2, tc.status
			if tc.edited {
				live.Policy.Spec.FailurePolicy = new(admissionregistrationv1.Ignore)
			}
			if diff := cmp.Diff(tc.want, examineOne(sample(), live)); diff != "" {
				t.Errorf("Examine() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBriefIsBoundedAndReadable(t *testing.T) {
	got := brief("a\xff" + strings.Repeat("é", maxDetail))
	if !utf8.ValidString(got) || len(got) > maxDetail+len("…") || !strings.HasPrefix(got, "aé") || !strings.HasSuffix(got, "é…") {
		t.Errorf("brief() = %q", got)
	}
	if got := brief(strings.Repeat("a", maxDetail)); len(got) != maxDetail {
		t.Errorf("brief() = %q, want all of it", got)
	}
}

func TestAFindingIsOneSentenceWithTheNextThingToDo(t *testing.T) {
	const (
		differs = "ValidatingAdmissionPolicyBinding cofferdam-times is not what was shipped: spec.validationActions differs, "
		again   = `; apply config/guard again by "kubectl replace -k config/guard", because "kubectl apply" keeps what others have added`
	)
	changed := Finding{Kind: bindingKind, Name: "cofferdam-times", Problem: Changed, Field: "spec.validationActions"}
	by, at := changed, changed
	by.Manager = "kubectl-edit"
	at.Manager, at.At = "kubectl-edit", noon.In(time.FixedZone("local", 3600))
	cases := map[string]struct {
		finding Finding
		want    string
	}{
		"missing": {
			finding: Finding{Kind: policyKind, Name: "cofferdam-times", Problem: Missing},
			want:    "ValidatingAdmissionPolicy cofferdam-times is missing, and the API does not record who did that; apply config/guard again",
		},
		"being deleted": {
			finding: Finding{Kind: policyKind, Name: "cofferdam-times", Problem: Missing, Detail: "is being deleted"},
			want:    "ValidatingAdmissionPolicy cofferdam-times is being deleted, and the API does not record who did that; apply config/guard again",
		},
		"changed by nobody knows whom": {
			finding: changed,
			want:    differs + "and metadata.managedFields does not tell who did it" + again,
		},
		"changed nobody knows when": {
			finding: by,
			want:    differs + "last written by field manager \"kubectl-edit\" at an unknown time" + again,
		},
		"changed": {
			finding: at,
			want:    differs + "last written by field manager \"kubectl-edit\" at 2026-03-01T12:00:00Z" + again,
		},
		"not working": {
			finding: Finding{Kind: policyKind, Name: "cofferdam-times", Problem: NotWorking, Field: "spec.validations[0].expression", Detail: "undefined field 'x'"},
			want: "ValidatingAdmissionPolicy cofferdam-times is what was shipped, but this API server finds a mistake in spec.validations[0].expression (undefined field 'x'); " +
				"apply the config/guard of a release that supports this version of Kubernetes",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.finding.String()); diff != "" {
				t.Errorf("String() (-want +got):\n%s", diff)
			}
		})
	}
}

// guards answers lists with the shipped guard, as an operator in that namespace needs it.
type guards struct {
	client.Reader
	namespace                        string
	errorOfPolicies, errorOfBindings error
}

func (g guards) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	asked := client.ListOptions{}
	asked.ApplyOptions(opts)
	asked.UnsafeDisableDeepCopy = nil
	if asked != (client.ListOptions{}) {
		return errors.New("a part would hide the rest")
	}
	for _, p := range Shipped(Options{OperatorNamespace: g.namespace}) {
		p.Policy.ResourceVersion, p.Binding.ResourceVersion = "of "+g.namespace, "of "+g.namespace
		switch out := list.(type) {
		case *admissionregistrationv1.ValidatingAdmissionPolicyList:
			out.Items = append(out.Items, p.Policy)
		case *admissionregistrationv1.ValidatingAdmissionPolicyBindingList:
			out.Items = append(out.Items, p.Binding)
		}
	}
	if _, ok := list.(*admissionregistrationv1.ValidatingAdmissionPolicyList); ok {
		return g.errorOfPolicies
	}
	return g.errorOfBindings
}

func TestCheck(t *testing.T) {
	away := errors.New("away")
	// What has to name the operator, if the operator is to be let through.
	exemption := Finding{Kind: policyKind, Name: "cofferdam-operator-only", Problem: Changed, Field: "spec.matchConditions[0].expression"}
	cases := map[string]struct {
		cluster guards
		opts    Options
		want    *Finding
		err     error
	}{
		"as shipped":                      {},
		"in another namespace":            {cluster: guards{namespace: "elsewhere"}, opts: Options{OperatorNamespace: "elsewhere"}},
		"as shipped for another operator": {opts: Options{OperatorNamespace: "elsewhere"}, want: &exemption},
		"policies that cannot be read":    {cluster: guards{errorOfPolicies: away}, err: away},
		"bindings that cannot be read":    {cluster: guards{errorOfBindings: away}, err: away},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			checker := &Checker{Options: tc.opts}
			got, err := checker.Check(context.Background(), tc.cluster)
			if !errors.Is(err, tc.err) || (tc.err != nil && got != nil) {
				t.Fatalf("Check() = %v, %v, want error %v", got, err, tc.err)
			}
			if tc.want == nil && len(got) > 0 {
				t.Errorf("Check() = %v, want nothing", got)
			}
			if tc.want != nil && !slices.Contains(got, *tc.want) {
				t.Errorf("Check() = %v, want %v among it", got, *tc.want)
			}
		})
	}
}

// Any word of any shipped object: changed, or taken away.
func TestExamineReportsEveryEditOfWhatIsShipped(t *testing.T) {
	edits := 0
	for _, shipped := range Shipped(Options{}) {
		for kind, spec := range map[string]map[string]any{policyKind: policySpec(shipped.Policy.Spec), bindingKind: bindingSpec(shipped.Binding.Spec)} {
			everyEdit(spec, func() {
				edits++
				live := Policy{Policy: *shipped.Policy.DeepCopy(), Binding: *shipped.Binding.DeepCopy()}
				if kind == policyKind {
					live.Policy.Spec = into[admissionregistrationv1.ValidatingAdmissionPolicySpec](t, spec)
				} else {
					live.Binding.Spec = into[admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec](t, spec)
				}
				got := examineOne(shipped, live)
				if len(got) != 1 || got[0].Kind != kind || got[0].Name != shipped.Policy.Name || got[0].Problem != Changed || !strings.HasPrefix(got[0].Field, "spec.") {
					raw, _ := json.Marshal(spec)
					t.Errorf("Examine() = %v for %s", got, raw)
				}
			})
		}
	}
	if edits < 500 {
		t.Errorf("%d edits were tried", edits)
	}
}

// everyEdit calls try after each of the smallest edits of an object, and undoes it. Fields that have a default are not taken away: that would be no edit.
func everyEdit(object map[string]any, try func()) {
	defaulted := []string{"failurePolicy", "matchPolicy", "namespaceSelector", "objectSelector", "scope"}
	for key, value := range object {
		if !slices.Contains(defaulted, key) {
			delete(object, key)
			try()
		}
		if word, ok := value.(string); ok {
			object[key] = word + "x"
			try()
		}
		object[key] = value
		switch value := value.(type) {
		case map[string]any:
			everyEdit(value, try)
		case []any:
			everyEditOfList(object, key, value, try)
		}
	}
}

func everyEditOfList(object map[string]any, key string, list []any, try func()) {
	for i, item := range list {
		object[key] = slices.Concat(list[:i], list[i+1:])
		try()
		if word, ok := item.(string); ok {
			object[key] = slices.Concat(list[:i], []any{word + "x"}, list[i+1:])
			try()
		}
		object[key] = append(slices.Clone(list), item)
		try()
		object[key] = list
		if child, ok := item.(map[string]any); ok {
			everyEdit(child, try)
		}
	}
}

func into[T any](t *testing.T, spec map[string]any) T {
	t.Helper()
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var out T
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What was found holds until one of the policies, or of their bindings, is another one.
func TestCheckSeesEveryChange(t *testing.T) {
	checker, g := &Checker{}, guards{}
	for _, step := range []struct {
		namespace string
		findings  bool
	}{{"", false}, {"", false}, {"elsewhere", true}, {"", false}} {
		g.namespace = step.namespace
		got, err := checker.Check(t.Context(), g)
		if err != nil || (len(got) > 0) != step.findings {
			t.Errorf("Check() of guards for namespace %q = %v, %v", step.namespace, got, err)
		}
	}
}
