package recovery

import (
	"fmt"
	"strings"
	"testing"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestEvaluate(t *testing.T) {
	object := map[string]any{
		"metadata": map[string]any{"name": "web", "labels": map[string]any{"app": "web"}},
		"status":   map[string]any{"readyReplicas": int64(2), "phase": "Running", "ok": true},
	}
	cases := map[string]struct {
		expression string
		want       bool
		err        string
	}{
		"true":                      {expression: "object.status.readyReplicas >= 2", want: true},
		"false":                     {expression: "object.status.readyReplicas > 2"},
		"a field that is a bool":    {expression: "object.status.ok", want: true},
		"strings":                   {expression: `object.metadata.name.startsWith("we") && object.metadata.labels.app == "web"`, want: true},
		"has":                       {expression: "has(object.status.missing)"},
		"missing field":             {expression: "object.status.missing == 1", err: "no such key"},
		"a field that is no bool":   {expression: "object.status.phase", err: "yields string"},
		"an expression of a number": {expression: "1 + 1", err: "yields int"},
		"another variable":          {expression: "self.status.ok", err: "does not compile"},
		"not an expression":         {expression: "object.status.", err: "does not compile"},
		"types that do not compare": {expression: "object.status.phase > 3", err: "cannot be evaluated"},
		"an expression without end": {expression: `"` + strings.Repeat("y", 100) + `".matches("(a|b)") || [1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, [1,2,3,4,5,6,7,8,9].all(f, a + b + c + d + e + f > 0))))))`, err: "cost limit"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Evaluate(tc.expression, object)
			if got != tc.want || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("Evaluate() = %v, %v, want %v, error %q", got, err, tc.want, tc.err)
			}
		})
	}
}

// Whoever may write a RecoveryPlan must not be able to exhaust the operator: functions that make much of little, and are charged only afterwards, are not there.
func TestExpressionsCannotMultiply(t *testing.T) {
	for _, expression := range []string{
		"lists.range(10000000).size() > 0",
		`object.long.replace("x", object.long).size() > 0`,
		`"%s".format([object.long]).size() > 0`,
	} {
		if err := Compile(expression); err == nil {
			t.Errorf("Compile(%s) succeeded, want it to be refused", expression)
		}
	}
}

func TestCompile(t *testing.T) {
	for name, tc := range map[string]struct {
		expression string
		ok         bool
	}{
		"condition":           {expression: "object.status.readyReplicas >= 2", ok: true},
		"anything of a field": {expression: "object.status.ok", ok: true},
		"number":              {expression: "1 + 1"},
		"text":                {expression: `"true"`},
		"nonsense":            {expression: ")"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Compile(tc.expression); (err == nil) != tc.ok {
				t.Errorf("Compile() = %v, want it to compile: %v", err, tc.ok)
			}
		})
	}
}

func TestUnusable(t *testing.T) {
	verifying := func(expression string) v1alpha1.RecoveryStep {
		return v1alpha1.RecoveryStep{Name: "look", Verify: &v1alpha1.VerifyStep{Objects: []v1alpha1.VerifiedObject{{Expression: expression}}}}
	}
	cases := map[string]struct {
		steps  []v1alpha1.RecoveryStep
		reason string
		word   string
	}{
		"usable":           {steps: append(graph("a", "b: a"), verifying("object.status.ok"), verifying(""))},
		"circle":           {steps: graph("a: b", "b: a"), reason: v1alpha1.ReasonCyclicDependencies, word: "a -> b -> a"},
		"bad expression":   {steps: []v1alpha1.RecoveryStep{verifying("1 + 1")}, reason: v1alpha1.ReasonInvalidExpression, word: "step look"},
		"the circle first": {steps: append(graph("a: a"), verifying(")")), reason: v1alpha1.ReasonCyclicDependencies},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			reason, why := Unusable(v1alpha1.RecoveryPlanSpec{Steps: tc.steps})
			if reason != tc.reason || (why == "") != (reason == "") || !strings.Contains(why, tc.word) {
				t.Errorf("Unusable() = %q, %q, want %q, %q", reason, why, tc.reason, tc.word)
			}
		})
	}
}

func TestActionFor(t *testing.T) {
	cases := map[string]struct {
		step v1alpha1.RecoveryStep
		want string
	}{
		"rollBackImages": {step: v1alpha1.RecoveryStep{RollBackImages: &v1alpha1.RollBackImagesStep{}}, want: "recovery.rollBackImages"},
		"verify":         {step: v1alpha1.RecoveryStep{Verify: &v1alpha1.VerifyStep{}}, want: "recovery.verify"},
		"approve":        {step: v1alpha1.RecoveryStep{Approve: &v1alpha1.ApproveStep{}}, want: "recovery.approve"},
		"release":        {step: v1alpha1.RecoveryStep{Release: &v1alpha1.ReleaseStep{}}, want: "recovery.release"},
		"rotateSecrets":  {step: v1alpha1.RecoveryStep{RotateSecrets: &v1alpha1.RotateSecretsStep{}}, want: "recovery.rotateSecrets"},
		"notify":         {step: v1alpha1.RecoveryStep{Notify: &v1alpha1.NotifyStep{}}, want: "recovery.notify"},
		"nothing":        {want: "<nil>"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := fmt.Sprintf("%T", ActionFor(tc.step)); got != tc.want {
				t.Errorf("ActionFor() = %s, want %s", got, tc.want)
			}
		})
	}
}
