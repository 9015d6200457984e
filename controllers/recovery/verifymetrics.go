package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/cel-go/cel"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/outbound"
)

// callBudget is how long all calls to other services may take in one pass, because the Incident waits meanwhile.
const callBudget = 5 * time.Second

// maxSamples is how many samples of a result are judged. A query with more is too coarse to be a condition.
const maxSamples = 1000

// called bounds the calls of one pass.
func (x *Execution) called(ctx context.Context) (context.Context, context.CancelFunc) {
	if x.callsUntil.IsZero() {
		x.callsUntil = time.Now().Add(callBudget)
	}
	return context.WithDeadline(ctx, x.callsUntil)
}

// verifyMetric says why the result of the query does not satisfy its expression, or "" when it does. It is unseen when Prometheus did not answer.
func verifyMetric(ctx context.Context, x *Execution, check v1alpha1.PrometheusCheck) (why string, unseen bool) {
	name := fmt.Sprintf("Prometheus %s: %s", check.Source, check.Query)
	source := outbound.Find(x.Policy.Recovery.Prometheus, check.Source)
	if source == nil {
		return lackingSource(check.Source), false
	}
	ctx, cancel := x.called(ctx)
	defer cancel()
	samples, err := x.Outbound.Query(ctx, source, check.Query, x.Now.Time)
	var refused outbound.RefusedError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("%s: %s", name, refused.Why), false
	case err != nil:
		return fmt.Sprintf("%s was not answered: %v", name, err), true
	case len(samples) == 0:
		return name + ": there is no data, which proves nothing", false
	case len(samples) > maxSamples:
		return fmt.Sprintf("%s: the result has %d samples, more than %d: aggregate it", name, len(samples), maxSamples), false
	}
	for _, s := range samples {
		ok, err := evaluateSample(check.Expression, s)
		if err != nil {
			return fmt.Sprintf("%s: %v", name, err), false
		}
		if !ok {
			return fmt.Sprintf("%s: the expression %q is false of %s", name, check.Expression, sampleText(s)), false
		}
	}
	return "", false
}

func lackingSource(name string) string {
	return fmt.Sprintf("the ContainmentPolicy names no Prometheus %q in spec.recovery.prometheus: have it added before the Incident is declared, or correct the plan", name)
}

// sampleText is a sample in words.
func sampleText(s outbound.Sample) string {
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		labels = append(labels, fmt.Sprintf("%s=%q", name, s.Labels[name]))
	}
	return fmt.Sprintf("{%s} %s", strings.Join(labels, ","), strconv.FormatFloat(s.Value, 'g', -1, 64))
}

// compileSample returns why an expression does not compile to a condition over "value" and "labels", or nil.
func compileSample(expression string) error {
	_, err := compiled(expression, sampleVariables()...)
	return err
}

func evaluateSample(expression string, s outbound.Sample) (bool, error) {
	prg, err := compiled(expression, sampleVariables()...)
	if err != nil {
		return false, err
	}
	labels := s.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return holds(prg, expression, map[string]any{"value": s.Value, "labels": labels})
}

// sampleVariables leave the type of the value open, so that it compares with 1 as well as with 1.0.
func sampleVariables() []cel.EnvOption {
	return []cel.EnvOption{cel.Variable("value", cel.DynType), cel.Variable("labels", cel.MapType(cel.StringType, cel.StringType))}
}
