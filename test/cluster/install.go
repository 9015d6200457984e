package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

const (
	// ProbePrefix begins the names of the admission policies that WaitForGuards writes for a moment.
	ProbePrefix     = "cofferdam-probe-"
	probeAnnotation = "containment.cofferdam.dev/probe"
	bothInEffect    = "both probes are in effect"
	effectTimeout   = time.Minute
)

// Install applies config/<overlay> and returns when all of it is in effect.
func (c *Cluster) Install(ctx context.Context, overlay string) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	if _, err := c.KubectlContext(ctx, "apply", "--server-side", "--force-conflicts", "-k", "config/"+overlay); err != nil {
		return fmt.Errorf("install config/%s: %w", overlay, err)
	}
	if _, err := c.KubectlContext(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd",
		"incidents.containment.cofferdam.dev", "containmentpolicies.containment.cofferdam.dev", "recoveryplans.containment.cofferdam.dev",
	); err != nil {
		return fmt.Errorf("wait for the kinds of the API: %w", err)
	}
	if err := WaitForGuards(ctx, client); err != nil {
		return fmt.Errorf("wait for the admission policies of config/%s: %w", overlay, err)
	}
	return waitForStamp(ctx, client)
}

// waitForStamp returns when Incidents can be created: until the API server has published the schema of a new kind, a MutatingAdmissionPolicy that
// matches it answers 503.
func waitForStamp(ctx context.Context, client kubernetes.Interface) error {
	const body = `{"apiVersion":"containment.cofferdam.dev/v1alpha1","kind":"Incident","metadata":{"name":"cofferdam-probe"},
		"spec":{"title":"probe","severity":"Low","targets":[{"kind":"Pod","name":"probe"}]}}`
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, effectTimeout, true, func(ctx context.Context) (bool, error) {
		last = client.Discovery().RESTClient().Post().AbsPath("/apis/containment.cofferdam.dev/v1alpha1/namespaces/default/incidents").
			Param("dryRun", metav1.DryRunAll).SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(ctx).Error()
		return !apierrors.IsServiceUnavailable(last), nil
	})
	if err != nil {
		return fmt.Errorf("incidents cannot be created after %s: %w; last answer: %w", effectTimeout, err, last)
	}
	return nil
}

// WaitForGuards returns when every admission policy and binding that exists now is in effect. The API server learns of them by
// watches, in the order in which they were written, and loads all that it knows of at once: when a policy that is written last
// refuses (or changes) a request, the earlier ones are in effect too.
func WaitForGuards(ctx context.Context, client kubernetes.Interface) (err error) {
	// A name of its own, because a probe of an earlier call may still be in effect.
	name := ProbePrefix + utilrand.String(8)
	defer func() { err = errors.Join(err, removeProbes(context.WithoutCancel(ctx), client, name)) }()
	if err := bindMutatingProbe(ctx, client, name); err != nil {
		return err
	}
	if err := bindValidatingProbe(ctx, client, name); err != nil {
		return err
	}
	var last error
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, effectTimeout, true, func(ctx context.Context) (bool, error) {
		probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, last = client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return last != nil && strings.Contains(last.Error(), bothInEffect), nil
	}); err != nil {
		return fmt.Errorf("admission policies are not in effect after %s: %w; last answer: %w", effectTimeout, err, last)
	}
	return nil
}

// probed matches the creation of the ConfigMap that WaitForGuards tries to create.
func probed(name string) *admissionv1.MatchResources {
	return &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
		ResourceNames: []string{name},
		RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
		},
	}}}
}

// bindMutatingProbe writes a policy that puts an annotation on the ConfigMap.
func bindMutatingProbe(ctx context.Context, client kubernetes.Interface, name string) error {
	policy := &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			MatchConstraints:   probed(name),
			ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
			Mutations: []admissionv1.Mutation{{
				PatchType: admissionv1.PatchTypeJSONPatch,
				JSONPatch: &admissionv1.JSONPatch{
					Expression: fmt.Sprintf(`[JSONPatch{op: "add", path: "/metadata/annotations", value: {%q: "changed"}}]`, probeAnnotation),
				},
			}},
		},
	}
	if _, err := client.AdmissionregistrationV1().MutatingAdmissionPolicies().Create(ctx, policy, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the mutating probe: %w", err)
	}
	binding := &admissionv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name},
	}
	if _, err := client.AdmissionregistrationV1().MutatingAdmissionPolicyBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("bind the mutating probe: %w", err)
	}
	return nil
}

// bindValidatingProbe writes a policy that refuses the ConfigMap, and says whether the mutating probe has changed it.
func bindValidatingProbe(ctx context.Context, client kubernetes.Interface, name string) error {
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: probed(name),
			Validations: []admissionv1.Validation{{
				Expression: "false",
				MessageExpression: fmt.Sprintf(`has(object.metadata.annotations) && %q in object.metadata.annotations ? %q : "the validating one only"`,
					probeAnnotation, bothInEffect),
			}},
		},
	}
	if _, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(ctx, policy, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the validating probe: %w", err)
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	if _, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("bind the validating probe: %w", err)
	}
	return nil
}

func removeProbes(ctx context.Context, client kubernetes.Interface, name string) error {
	policies := client.AdmissionregistrationV1()
	var all error
	for _, remove := range []func(context.Context, string, metav1.DeleteOptions) error{
		policies.ValidatingAdmissionPolicyBindings().Delete,
		policies.ValidatingAdmissionPolicies().Delete,
		policies.MutatingAdmissionPolicyBindings().Delete,
		policies.MutatingAdmissionPolicies().Delete,
	} {
		if err := remove(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			all = errors.Join(all, fmt.Errorf("remove the probe: %w", err))
		}
	}
	return all
}
