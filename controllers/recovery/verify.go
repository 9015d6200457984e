package recovery

import (
	"context"
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/cel-go/cel"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",resources=pods;services;persistentvolumeclaims,verbs=get
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets;daemonsets;replicasets,verbs=get
// +kubebuilder:rbac:groups=batch,resources=jobs;cronjobs,verbs=get
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies;ingresses,verbs=get
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=get

// expressionCostLimit bounds the evaluation of one expression, in CEL cost units; the API server allows a CRD rule as much.
const expressionCostLimit = 1_000_000

// verify waits until objects are healthy.
type verify struct{}

func (verify) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	return lookAt(ctx, x, step.Verify)
}

func lookAt(ctx context.Context, x *Execution, what *v1alpha1.VerifyStep) (Outcome, error) {
	var notYet []string
	for _, o := range what.Objects {
		why, err := verifyObject(ctx, x.Reader, x.Incident.Namespace, o)
		if err != nil {
			return Outcome{}, err
		}
		if why != "" {
			notYet = append(notYet, why)
		}
	}
	if len(notYet) > 0 {
		return waiting("waits: %s", strings.Join(notYet, "; ")), nil
	}
	return done("%d objects are healthy", len(what.Objects)), nil
}

// verifyObject says why the object is not healthy, or "" when it is.
func verifyObject(ctx context.Context, r client.Reader, ns string, o v1alpha1.VerifiedObject) (string, error) {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(o.APIVersion)
	u.SetKind(o.Kind)
	name := fmt.Sprintf("%s %s/%s", o.Kind, ns, o.Name)
	err := r.Get(ctx, client.ObjectKey{Namespace: ns, Name: o.Name}, u)
	switch {
	case apierrors.IsNotFound(err):
		return name + " does not exist", nil
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("%s may not be read by the operator: grant get on it in a ClusterRole labelled containment.cofferdam.dev/aggregate-to-verify=true", name), nil
	case apimeta.IsNoMatchError(err):
		return fmt.Sprintf("%s: the cluster does not serve %s", name, o.APIVersion), nil
	case err != nil:
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	result, err := status.Compute(u)
	if err != nil {
		return fmt.Sprintf("%s: its status cannot be computed: %v", name, err), nil
	}
	if result.Status != status.CurrentStatus {
		return fmt.Sprintf("%s is %s: %s", name, result.Status, result.Message), nil
	}
	if o.Expression == "" {
		return "", nil
	}
	ok, err := Evaluate(o.Expression, u.Object)
	if err != nil {
		return fmt.Sprintf("%s: %v", name, err), nil
	}
	if !ok {
		return fmt.Sprintf("%s: the expression %q is false", name, o.Expression), nil
	}
	return "", nil
}

// Compile returns why an expression does not compile to a condition over the variable "object", or nil when it does.
func Compile(expression string) error {
	_, err := program(expression)
	return err
}

// Evaluate evaluates a CEL expression over an object, given as unstructured content. A field that is missing is an error, as it is in CRD rules.
func Evaluate(expression string, object map[string]any) (bool, error) {
	prg, err := program(expression)
	if err != nil {
		return false, err
	}
	out, _, err := prg.Eval(map[string]any{"object": object})
	if err != nil {
		return false, fmt.Errorf("the expression %q cannot be evaluated: %w", expression, err)
	}
	b, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the expression %q yields %s, not true or false", expression, out.Type())
	}
	return b, nil
}

func program(expression string) (cel.Program, error) {
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType))
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, fmt.Errorf("the expression %q does not compile: %w", expression, issues.Err())
	}
	if t := ast.OutputType(); t != cel.BoolType && t != cel.DynType {
		return nil, fmt.Errorf("the expression %q yields %s, not true or false", expression, t)
	}
	return env.Program(ast, cel.CostLimit(expressionCostLimit))
}
