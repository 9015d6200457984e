package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// close ends the Incident.
func (d *demo) close(ctx context.Context) error {
	if err := d.kubectl(ctx, responder, "patch", "incident", incidentName, "--type=merge", "-p", `{"spec":{"goal":"Close"}}`); err != nil {
		return err
	}
	inc, err := d.await(ctx, "closing asks for approval", hasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))
	if err != nil {
		return err
	}
	say("%s", describe(inc, v1alpha1.ConditionReleased))
	if err := d.kubectl(ctx, approver, approve(approver, v1alpha1.CloseStage, inc.Status.CloseDigest, "/spec/approvals/-")...); err != nil {
		return err
	}
	inc, err = d.await(ctx, "nothing is held any more", func(inc *v1alpha1.Incident) string {
		if len(inc.Finalizers) > 0 {
			return describe(inc, v1alpha1.ConditionReleased)
		}
		return is(v1alpha1.ConditionReady)(inc)
	})
	if err != nil {
		return err
	}
	if err := d.kubectl(ctx, responder, "get", "incident", incidentName); err != nil {
		return err
	}
	blank()
	d.check("the evidence pods are removed, and so is every deny policy of the Incident", d.nothingHeld(ctx))
	d.check("the application runs, and blog is still as it was", errors.Join(d.running(ctx), d.untouched(ctx, blog)))
	d.closed = inc
	return nil
}

// deleteIncident deletes the record; what it refers to stays.
func (d *demo) deleteIncident(ctx context.Context, inc *v1alpha1.Incident) error {
	if err := d.kubectl(ctx, responder, "delete", "incident", incidentName); err != nil {
		return err
	}
	err := d.until(ctx, "the Incident is deleted", func(ctx context.Context) (string, error) {
		err := d.admin.Get(ctx, client.ObjectKeyFromObject(inc), &v1alpha1.Incident{})
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		return "it is still there", err
	})
	if err != nil {
		return err
	}
	blank()
	d.check("a closed Incident can be deleted, and its evidence outlives it: every record is there and has its digest", d.recordsHold(inc))
	if d.snapshots {
		d.check("the snapshot of the volume outlives it too, and its content is still set to Retain", d.snapshotHolds(ctx, inc))
	}
	return nil
}

// nothingHeld says what is left of the quarantine.
func (d *demo) nothingHeld(ctx context.Context) error {
	pods, err := d.pods(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, p := range pods {
		for key := range p.Labels {
			if strings.HasPrefix(key, v1alpha1.QuarantineLabelPrefix) {
				problems = append(problems, fmt.Errorf("pod %s is labelled %s", p.Name, key))
			}
		}
		for _, s := range d.evidencePods {
			if s.UID == string(p.UID) {
				problems = append(problems, fmt.Errorf("pod %s is still there", p.Name))
			}
		}
	}
	written, err := d.writtenFor(ctx)
	for _, name := range written {
		if !strings.HasPrefix(name, "ConfigMap evidence-") && !strings.HasPrefix(name, "ConfigMap surroundings-") {
			problems = append(problems, fmt.Errorf("%s is still there", name))
		}
	}
	return errors.Join(append(problems, err)...)
}

func (d *demo) running(ctx context.Context) error {
	now, err := d.podsByApp(ctx)
	if err != nil {
		return err
	}
	if missing := d.notRunning(now); missing != "" {
		return errors.New(missing)
	}
	return nil
}

// lookBack prints the record of the Incident and what the operator measured.
func (d *demo) lookBack(ctx context.Context) error {
	showTimeline(d.closed)
	blank()
	return d.scrapeMetrics(ctx)
}
