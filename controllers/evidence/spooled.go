package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	// copyLimit is how long one attempt to copy a document into the store may take. A store that hangs is asked again.
	copyLimit = time.Minute
	// copyRetry is how long after the beginning of an attempt that has failed the next one begins: a store that is down fails fast.
	copyRetry = 10 * time.Second
)

// Manifests brings the records of pods, which were spooled before the pods were touched, into the store. Its items are begun by whoever spools, as SpooledItem, and not by the collector. They have no deadline: what is
// spooled is safe, and the store may take as long as it takes. An item becomes a gap only when the spooled document is gone, or is not what was spooled.
type Manifests struct{}

// About implements Collector.
func (Manifests) About() About { return aboutSpooled(v1alpha1.EvidenceManifests) }

// Begin implements Collector. There is nothing to begin: an item is there as soon as its document is spooled.
func (Manifests) Begin(*Execution, []*corev1.Pod) []v1alpha1.EvidenceItem { return nil }

// Collect implements Collector.
func (Manifests) Collect(_ context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error) {
	return collectSpooled(x, item, RecordName, item.Subject.UID), nil
}

// Surroundings does for what is around the pods of a namespace what Manifests does for the records of pods. The subject of its items is the Namespace.
type Surroundings struct{}

// About implements Collector.
func (Surroundings) About() About { return aboutSpooled(v1alpha1.EvidenceSurroundings) }

// Begin implements Collector.
func (Surroundings) Begin(*Execution, []*corev1.Pod) []v1alpha1.EvidenceItem { return nil }

// Collect implements Collector.
func (Surroundings) Collect(_ context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error) {
	return collectSpooled(x, item, SurroundingsName, item.Subject.Name), nil
}

func aboutSpooled(kind v1alpha1.EvidenceType) About {
	return About{
		Type: kind, Needs: "the evidence store; until it is there, the record stays in ConfigMaps of the operator's namespace", Alters: "nothing",
		Deadline: func(v1alpha1.EvidenceOrders) time.Duration { return 0 },
	}
}

// copyError is why a copy could not be made, and when the attempt began, by the clock of the passes.
type copyError struct {
	error
	begun time.Time
}

func (e copyError) Unwrap() error { return e.error }

// collectSpooled takes one look at the copy of the document about the subject. Its name follows from Incident and subject: nothing that status says leads anywhere else.
func collectSpooled(x *Execution, item v1alpha1.EvidenceItem, nameOf func(*v1alpha1.Incident, string) string, subject string) v1alpha1.EvidenceItem {
	if x.DryRun || item.State != v1alpha1.EvidencePending {
		return item
	}
	if x.Sink == nil {
		item.Message = "spooled; waits for the evidence store: " + oneLine(x.SinkProblem)
		return item
	}
	const copied = "spooled; is being copied into the evidence store"
	task := x.TaskID(item.ID)
	if x.Background.Running(task) {
		item.Message = copied
		return item
	}
	name := nameOf(x.Incident, subject)
	result, ended := x.Background.Do(task, x.Owner(), copyLimit, copying(x, item, name))
	switch {
	case !ended:
		item.Message = copied
		return item
	case errors.Is(result.Err, ErrSpoolGone), errors.Is(result.Err, ErrSpoolDamaged):
		return gap(item, "it was recorded, but "+oneLine(result.Err.Error()))
	case result.Err != nil:
		var failed copyError
		if errors.As(result.Err, &failed); !x.Now.Before(failed.begun.Add(copyRetry)) {
			x.Background.Forget(task)
			x.Background.Do(task, x.Owner(), copyLimit, copying(x, item, name))
		}
		item.Message = "spooled; could not be copied into the evidence store and is tried again: " + oneLine(result.Err.Error())
		return item
	}
	done := result.Item
	item.State, item.Location, item.Digest, item.Size = v1alpha1.EvidenceCollected, done.Location, done.Digest, done.Size
	item.StoredDigest, item.StoredSize, item.Message = done.StoredDigest, done.StoredSize, ""
	return item
}

// copying copies the document, uncompressed, into the store. It outlasts the pass, and so holds on to nothing of it but what does not change.
func copying(x *Execution, item v1alpha1.EvidenceItem, name string) func(context.Context) Result {
	reader, sink, namespace, incident, begun := x.Reader, x.Sink, x.OperatorNamespace, string(x.Incident.UID), x.Now
	return func(ctx context.Context) (result Result) {
		defer func() {
			if err := panicked(ctx, recover()); err != nil {
				result = Result{Err: copyError{err, begun}} // paced like any other failure
			}
		}()
		document, packedDigest, err := readSpool(ctx, reader, namespace, name)
		if err != nil {
			return Result{Err: copyError{err, begun}}
		}
		digest := digestOf(document)
		if item.Digest != "" && item.Digest != digest && item.Digest != packedDigest {
			return Result{Err: fmt.Errorf("%w: what is in ConfigMap %s/%s has the digest %s, not that in status", ErrSpoolDamaged, namespace, name, digest)}
		}
		object, err := sink.PutItem(ctx, incident, bytes.NewReader(document))
		if err == nil && object.PlainDigest != digest {
			err = fmt.Errorf("the store says that it was given the digest %s", object.PlainDigest)
		}
		if err != nil {
			return Result{Err: copyError{fmt.Errorf("storing what is in ConfigMap %s/%s: %w", namespace, name, err), begun}}
		}
		return Result{Item: Stored(item, object)}
	}
}
