package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// story is what the steps hand on to one another.
type story struct {
	// snapshots says that volumes can be snapshotted on this cluster.
	snapshots bool
	// backedUp is the second after the backup of the database, and volumeBefore the volume that it had before anything happened.
	backedUp     time.Time
	volumeBefore *corev1.PersistentVolume
	// before are the pods of the application before anything happened, by app.
	before map[string][]corev1.Pod
	// uid is the UID of the Incident.
	uid string
	// enforced is when the command was given that made the dry run real.
	enforced time.Time
	// evidence pods are those that were running when the Incident was enforced.
	evidencePods []v1alpha1.PodStatus
	// closed is the Incident as it was before it was deleted.
	closed *v1alpha1.Incident
	// archive is the file that the evidence was exported into.
	archive string
}

// tell goes through the story. An error is something that keeps it from going on.
func (d *demo) tell(ctx context.Context) error {
	blank()
	say("What follows a $ is run as it stands, in namespace %s. The name before it says who runs it: responder, approver and tenant are "+
		"impersonated (kubectl --as) and have the rights of test/demo/manifests/people.yaml; the platform engineer administers the cluster.", namespace)
	for i, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"The application: web and db run a compromised image, blog a clean one", d.openShop},
		{"A dry run: what would be done, without doing it", d.rehearse},
		{"Contain: the pods are cut off, and two policies of others still let traffic through", d.contain},
		{"The platform engineer closes the leaks", d.closeLeaks},
		{"What is kept as evidence, and what was left alone", d.inspectEvidence},
		{"The owner of the namespace tries to undo the containment", d.tryToUndo},
		{"Recover: a volume from before the incident, known-good images, in order, looked at, approved, and released in waves", d.recover},
		{"Close: the rest of the quarantine is lifted, the evidence stays", d.close},
		{"The evidence is handed over: one file that can be checked without the cluster and without Cofferdam", d.handOver},
		{"What happened when", d.lookBack},
	} {
		heading(i+1, chapter.title)
		if err := chapter.tell(ctx); err != nil {
			return orCause(ctx, err)
		}
	}
	return nil
}
