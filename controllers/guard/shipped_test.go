package guard

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	shippedguard "cofferdam.dev/cofferdam/config/guard"
)

func TestWhatIsWatchedIsWhatKustomizeInstalls(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "guard", "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var kustomization struct{ Resources []string }
	if err := yaml.Unmarshal(raw, &kustomization); err != nil {
		t.Fatal(err)
	}
	slices.Sort(kustomization.Resources)
	if diff := cmp.Diff(kustomization.Resources, slices.Sorted(maps.Keys(shippedguard.Manifests()))); diff != "" {
		t.Errorf("files of config/guard (-installed +embedded):\n%s", diff)
	}
}

func TestEveryShippedPolicyIsBoundByItsOwnNameAndDenies(t *testing.T) {
	shipped := Shipped(Options{})
	if len(shipped) < len(shippedguard.Manifests()) {
		t.Errorf("%d policies in %d files", len(shipped), len(shippedguard.Manifests()))
	}
	if !slices.IsSortedFunc(shipped, func(a, b Policy) int { return strings.Compare(a.Policy.Name, b.Policy.Name) }) {
		t.Error("not ordered by name")
	}
	for _, p := range shipped {
		if p.Policy.Name != p.Binding.Name || p.Policy.Name != p.Binding.Spec.PolicyName || !strings.HasPrefix(p.Policy.Name, "cofferdam-") {
			t.Errorf("policy %s, binding %s of policy %s", p.Policy.Name, p.Binding.Name, p.Binding.Spec.PolicyName)
		}
		if len(p.Policy.Spec.Validations) == 0 {
			t.Errorf("policy %s validates nothing", p.Policy.Name)
		}
		if !slices.Contains(p.Binding.Spec.ValidationActions, "Deny") {
			t.Errorf("binding %s does not deny", p.Binding.Name)
		}
	}
}

// In such strings a blank line would mean something.
func TestNoShippedExpressionHasAStringOverSeveralLines(t *testing.T) {
	for name, content := range shippedguard.Manifests() {
		for _, quotes := range []string{`"""`, "'''"} {
			if strings.Contains(string(content), quotes) {
				t.Errorf("%s has %s", name, quotes)
			}
		}
	}
}

// text is all that the shipped objects say.
func text(t *testing.T, opts Options) string {
	t.Helper()
	raw, err := json.Marshal(Shipped(opts))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestTheOperatorsNamespaceIsThatOfTheInstallation(t *testing.T) {
	const user, elsewhere = "system:serviceaccount:cofferdam-system:cofferdam-controller-manager", "system:serviceaccount:elsewhere:cofferdam-controller-manager"
	if got := text(t, Options{}); !strings.Contains(got, user) || !strings.Contains(got, `"namespace":"cofferdam-system"`) {
		t.Error("config/guard names the operator and its namespace otherwise than the constant does")
	}
	if diff := cmp.Diff(Shipped(Options{}), Shipped(Options{OperatorNamespace: "cofferdam-system"})); diff != "" {
		t.Errorf("the namespace that is shipped is not the default (-default +named):\n%s", diff)
	}
	got := text(t, Options{OperatorNamespace: "elsewhere"})
	if strings.Contains(got, "cofferdam-system") || !strings.Contains(got, elsewhere) || !strings.Contains(got, `"namespace":"elsewhere"`) {
		t.Error("the operator is still in the namespace that is shipped")
	}
	// A number in YAML, and a name that JSON would have to quote.
	for _, namespace := range []string{"1234", `a"b\`} {
		shipped := Shipped(Options{OperatorNamespace: namespace})
		i := slices.IndexFunc(shipped, func(p Policy) bool { return p.Binding.Spec.ParamRef != nil })
		if got := shipped[i].Binding.Spec.ParamRef.Namespace; got != namespace {
			t.Errorf("the parameters are in namespace %q, want %q", got, namespace)
		}
	}
}

func TestTheResultOfShippedIsTheCallersOwn(t *testing.T) {
	first := Shipped(Options{})
	first[0].Policy.Spec.Validations[0].Expression = "true"
	first[0].Binding.Spec.ValidationActions[0] = "Warn"
	if second := Shipped(Options{}); second[0].Policy.Spec.Validations[0].Expression == "true" || second[0].Binding.Spec.ValidationActions[0] == "Warn" {
		t.Error("a change by one caller reached another")
	}
}

func TestParse(t *testing.T) {
	const (
		policy     = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: a}\n"
		binding    = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: b}\nspec: {policyName: a}\n"
		secondFile = "other"
	)
	cases := map[string]struct {
		files map[string]string
		want  string
	}{
		"a policy and its binding":           {files: map[string]string{"f": "# why\n" + policy + "---\n" + binding}},
		"in two files, the binding first":    {files: map[string]string{"f": binding, secondFile: policy}},
		"a policy without binding":           {files: map[string]string{"f": policy}, want: "policy a is not bound"},
		"a binding without policy":           {files: map[string]string{"f": binding}, want: "bindings of policies that do not exist: [a]"},
		"a policy that is bound twice":       {files: map[string]string{"f": policy + "---\n" + binding, secondFile: binding}, want: "policy a is bound twice"},
		"a policy that exists twice":         {files: map[string]string{"f": policy + "---\n" + binding, secondFile: policy}, want: "policy a is not bound"},
		"a kind that is not examined":        {files: map[string]string{"f": strings.ReplaceAll(policy, "Validating", "Mutating")}, want: "MutatingAdmissionPolicy is neither"},
		"a version that is not examined":     {files: map[string]string{"f": strings.ReplaceAll(policy, "/v1", "/v2")}, want: "admissionregistration.k8s.io/v2 is not of"},
		"a field that the API does not know": {files: map[string]string{"f": policy + "spec: {failurePolice: Fail}\n"}, want: "failurePolice"},
		"a binding with such a field":        {files: map[string]string{"f": policy + "---\n" + binding + "status: {}\n"}, want: "status"},
		"no YAML":                            {files: map[string]string{"f": "a: b: c"}, want: "reading f"},
		"an empty document":                  {files: map[string]string{"f": policy + "---\n# nothing\n---\n" + binding}, want: "is not of"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{}
			for name, content := range tc.files {
				files[name] = []byte(content)
			}
			got, err := parse(files)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("parse() = %v, %v, want an error with %q", got, err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0].Policy.Name != "a" || got[0].Binding.Name != "b" {
				t.Errorf("parse() = %v", got)
			}
		})
	}
}
