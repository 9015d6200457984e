package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	// patience bounds every wait. It is a limit against hanging. On a cluster of one's own, images have to be pulled first.
	patience         = 90 * time.Second
	patienceExisting = 5 * time.Minute
	// quiet is how long a wait stays silent. After that it speaks less and less often.
	quiet = 2 * time.Second
	poll  = 50 * time.Millisecond
)

// until looks again and again until there is nothing left to wait for. look returns "" then, and otherwise what is still missing.
func (d *demo) until(ctx context.Context, what string, look func(context.Context) (missing string, err error)) error {
	started := time.Now()
	speak := started.Add(quiet)
	for {
		missing, err := look(ctx)
		if err != nil {
			missing = err.Error()
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case missing == "":
			return nil
		case time.Since(started) > d.patience:
			return fmt.Errorf("waited %s in vain until %s: %s", d.patience, what, missing)
		case time.Now().After(speak):
			fmt.Println(clip(fmt.Sprintf("    ... %s, waiting until %s: %s", seconds(time.Since(started)), what, strings.TrimSpace(missing)), width+16))
			speak = started.Add(2 * time.Since(started))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

// read reads the Incident from the API server.
func (d *demo) read(ctx context.Context) (*v1alpha1.Incident, error) {
	var inc v1alpha1.Incident
	if err := d.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: incidentName}, &inc); err != nil {
		return nil, fmt.Errorf("read the Incident: %w", err)
	}
	return &inc, nil
}

// await waits until the operator has seen the Incident as it is now, and the Incident is as wanted. missing returns "" then.
func (d *demo) await(ctx context.Context, what string, missing func(*v1alpha1.Incident) string) (*v1alpha1.Incident, error) {
	var last *v1alpha1.Incident
	err := d.until(ctx, what, func(ctx context.Context) (string, error) {
		inc, err := d.read(ctx)
		if err != nil {
			return "", err
		}
		last = inc
		why := missing(inc)
		if inc.Status.ObservedGeneration != inc.Generation {
			return "the operator has not yet seen the last change", nil
		}
		return why, nil
	})
	return last, err
}

// is waits for a condition to be True.
func is(kind string) func(*v1alpha1.Incident) string {
	return func(inc *v1alpha1.Incident) string {
		if apimeta.IsStatusConditionTrue(inc.Status.Conditions, kind) {
			return ""
		}
		return describe(inc, kind)
	}
}

// hasReason waits for a condition to have a reason.
func hasReason(kind, reason string) func(*v1alpha1.Incident) string {
	return func(inc *v1alpha1.Incident) string {
		if condition(inc, kind).Reason == reason {
			return ""
		}
		return describe(inc, kind)
	}
}

func condition(inc *v1alpha1.Incident, kind string) metav1.Condition {
	if c := apimeta.FindStatusCondition(inc.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionUnknown, Message: "not reported yet"}
}

func describe(inc *v1alpha1.Incident, kind string) string {
	c := condition(inc, kind)
	return fmt.Sprintf("%s=%s (%s): %s", c.Type, c.Status, c.Reason, c.Message)
}
