package recovery

import (
	"context"
	"fmt"
	"strings"
	"time"

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

// verify waits until what it names is healthy.
type verify struct{}

func (verify) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	return lookAt(ctx, x, step.Name, "verify", step.Verify)
}

// lookAt looks at everything, and runs what runs once only when all else is well. Its jobs are told apart by step and by what the looking is for.
func lookAt(ctx context.Context, x *Execution, step, as string, what *v1alpha1.VerifyStep) (Outcome, error) {
	out, err := observe(ctx, x, what)
	if err != nil || !out.Done || !runsJobs(what) {
		return out, err
	}
	ran, err := runChecks(ctx, x, step, as, what)
	if err != nil || !ran.Done {
		return ran, err
	}
	return done("%s; %s", out.Message, ran.Message), nil
}

// observe looks at what can be looked at again and again.
func observe(ctx context.Context, x *Execution, what *v1alpha1.VerifyStep) (Outcome, error) {
	var bad, unseen []string
	for _, o := range what.Objects {
		why, err := verifyObject(ctx, x.Reader, x.Incident.Namespace, o)
		if err != nil {
			return Outcome{}, err
		}
		if why != "" {
			bad = append(bad, why)
		}
	}
	for _, check := range what.Prometheus {
		switch why, blind := verifyMetric(ctx, x, check); {
		case why == "":
		case blind:
			unseen = append(unseen, why)
		default:
			bad = append(bad, why)
		}
	}
	if len(bad)+len(unseen) > 0 {
		out := waiting("waits: %s", strings.Join(append(bad, unseen...), "; "))
		out.Unseen = len(bad) == 0
		return out.after(asksAgain(what)), nil
	}
	return done("%s", strings.Join(well(what), ", ")), nil
}

// unwatched is how soon something is asked again that nobody can watch, such as a Prometheus or a Secret.
const unwatched = 2 * time.Second

// asksAgain is how soon what is looked at has to be looked at again though nothing has changed in the cluster; zero means never.
func asksAgain(what *v1alpha1.VerifyStep) time.Duration {
	if len(what.Prometheus) > 0 {
		return unwatched
	}
	return 0
}

// well tells what was found to be well.
func well(what *v1alpha1.VerifyStep) []string {
	out := []string{fmt.Sprintf("%d objects are healthy", len(what.Objects))}
	if n := len(what.Prometheus); n > 0 {
		out = append(out, fmt.Sprintf("%d queries of Prometheus yield what they have to", n))
	}
	return out
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
	_, err := compiled(expression, cel.Variable("object", cel.DynType))
	return err
}

// Evaluate evaluates a CEL expression over an object, given as unstructured content. A field that is missing is an error, as it is in CRD rules.
func Evaluate(expression string, object map[string]any) (bool, error) {
	prg, err := compiled(expression, cel.Variable("object", cel.DynType))
	if err != nil {
		return false, err
	}
	return holds(prg, expression, map[string]any{"object": object})
}

// holds evaluates a condition.
func holds(prg cel.Program, expression string, variables map[string]any) (bool, error) {
	out, _, err := prg.Eval(variables)
	if err != nil {
		return false, fmt.Errorf("the expression %q cannot be evaluated: %w", expression, err)
	}
	b, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the expression %q yields %s, not true or false", expression, out.Type())
	}
	return b, nil
}

// compiled compiles a condition over the variables.
func compiled(expression string, variables ...cel.EnvOption) (cel.Program, error) {
	env, err := cel.NewEnv(variables...)
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
