// Package guard tells whether the admission guard of a cluster is the one that was shipped in config/guard. The operator may not repair it: who may write
// admission policies may refuse every request of everybody. So it says what is wrong, and goes on by repairing what the guard would have prevented.
package guard

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	shippedguard "cofferdam.dev/cofferdam/config/guard"
)

// shippedNamespace is the operator's namespace as config/guard names it: in the operator's user name, in references to parameters and in selectors.
const shippedNamespace = "cofferdam-system"

const (
	policyKind  = "ValidatingAdmissionPolicy"
	bindingKind = "ValidatingAdmissionPolicyBinding"
)

// Policy is a shipped policy with the binding that puts it into effect.
type Policy struct {
	Policy  admissionregistrationv1.ValidatingAdmissionPolicy
	Binding admissionregistrationv1.ValidatingAdmissionPolicyBinding
}

// Options are what differs between installations of the same guard.
type Options struct {
	// OperatorNamespace is the namespace that the operator is installed into. Default cofferdam-system, as shipped.
	OperatorNamespace string
}

// Shipped returns the admission guard of this release, as it looks for an operator in that namespace, ordered by name. The result is the caller's own.
func Shipped(opts Options) []Policy {
	namespace := opts.OperatorNamespace
	if namespace == "" {
		namespace = shippedNamespace
	}
	out, err := inNamespace(parsed(), namespace)
	if err != nil {
		panic(fmt.Sprintf("what was read from YAML can always be written as JSON: %v", err))
	}
	return out
}

var parsed = sync.OnceValue(func() []Policy {
	out, err := parse(shippedguard.Manifests())
	if err != nil {
		panic(fmt.Sprintf("config/guard was tested before it was shipped: %v", err))
	}
	return out
})

// inNamespace replaces the operator's namespace in every string. Not in the YAML, where a namespace such as "1234" would become a number.
func inNamespace(shipped []Policy, namespace string) ([]Policy, error) {
	raw, err := json.Marshal(shipped)
	if err != nil {
		return nil, err
	}
	quoted, err := json.Marshal(namespace)
	if err != nil {
		return nil, err
	}
	var out []Policy
	return out, json.Unmarshal(bytes.ReplaceAll(raw, []byte(shippedNamespace), quoted[1:len(quoted)-1]), &out)
}

// parse reads policies and bindings from files and pairs them. A file that is not understood is an error: what is left out here is not watched.
func parse(files map[string][]byte) ([]Policy, error) {
	var policies []admissionregistrationv1.ValidatingAdmissionPolicy
	bindings := map[string]admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(files[name])))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", name, err)
			}
			policy, binding, err := parseDocument(document)
			switch {
			case err != nil:
				return nil, fmt.Errorf("reading %s: %w", name, err)
			case policy != nil:
				policies = append(policies, *policy)
			case bindings[binding.Spec.PolicyName].Name != "":
				return nil, fmt.Errorf("reading %s: policy %s is bound twice", name, binding.Spec.PolicyName)
			default:
				bindings[binding.Spec.PolicyName] = *binding
			}
		}
	}
	return pair(policies, bindings)
}

// parseDocument reads one object. Fields that the API types do not know are errors.
func parseDocument(document []byte) (*admissionregistrationv1.ValidatingAdmissionPolicy, *admissionregistrationv1.ValidatingAdmissionPolicyBinding, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return nil, nil, err
	}
	if kind.APIVersion != admissionregistrationv1.SchemeGroupVersion.String() {
		return nil, nil, fmt.Errorf("%s is not of %s", kind.APIVersion, admissionregistrationv1.SchemeGroupVersion)
	}
	switch kind.Kind {
	case policyKind:
		policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
		return policy, nil, yaml.UnmarshalStrict(document, policy)
	case bindingKind:
		binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
		return nil, binding, yaml.UnmarshalStrict(document, binding)
	}
	return nil, nil, fmt.Errorf("%s is neither a policy nor a binding", kind.Kind)
}

func pair(policies []admissionregistrationv1.ValidatingAdmissionPolicy, bindings map[string]admissionregistrationv1.ValidatingAdmissionPolicyBinding) ([]Policy, error) {
	out := make([]Policy, 0, len(policies))
	for _, policy := range policies {
		binding, bound := bindings[policy.Name]
		if !bound {
			return nil, fmt.Errorf("policy %s is not bound", policy.Name)
		}
		delete(bindings, policy.Name)
		out = append(out, Policy{Policy: policy, Binding: binding})
	}
	if len(bindings) > 0 {
		return nil, fmt.Errorf("bindings of policies that do not exist: %v", slices.Sorted(maps.Keys(bindings)))
	}
	slices.SortFunc(out, func(a, b Policy) int { return cmp.Compare(a.Policy.Name, b.Policy.Name) })
	return out, nil
}
