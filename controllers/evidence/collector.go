package evidence

import (
	"context"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/store"
)

// Collector collects one kind of evidence. It is asked again and again, in passes that may each be the last one before a crash: whatever it does is safe to repeat, and what it
// returns is all that is remembered.
type Collector interface {
	// About says what the collector is, needs and may alter.
	About() About
	// Begin returns the items that the pods should have under the orders, whether or not they have them already, without reading or writing anything.
	Begin(x *Execution, pods []*corev1.Pod) []v1alpha1.EvidenceItem
	// Collect takes one look at a pending item and returns the item as it is now. An error leaves the item pending: not knowing is no gap before the deadline. What is slow is done by
	// x.Background, not here, because a pass that waits holds up containment.
	Collect(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error)
}

// About describes a collector to people.
type About struct {
	// Type is the kind of evidence.
	Type v1alpha1.EvidenceType
	// Needs says what has to be there for it to work.
	Needs string
	// Alters says what it may change about the scene; "nothing" when it only reads.
	Alters string
	// Deadline is how long one item may take under the orders.
	Deadline func(v1alpha1.EvidenceOrders) time.Duration
}

// Writer performs a write, or in a dry run only notes what would be written.
type Writer interface {
	Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error
}

// Sink is where what is collected goes.
type Sink interface {
	// PutItem stores everything that r has, or nothing.
	PutItem(ctx context.Context, incidentUID string, r io.Reader) (store.Object, error)
}

// Execution is what collectors work with during one pass.
type Execution struct {
	// Reader reads pods, policies and namespaces from a cache and everything else live.
	Reader   client.Reader
	Writer   Writer
	Journal  *journal.Journal
	Incident *v1alpha1.Incident
	// Orders have every default filled in (containmentpolicy.Effective).
	Orders v1alpha1.EvidenceOrders
	// Pod returns the pod with the UID as it is now, or nil when it is gone.
	Pod func(uid string) *corev1.Pod
	// Sink is nil while the store cannot be opened; SinkProblem then says why.
	Sink        Sink
	SinkProblem string
	Background  *Background
	// OperatorNamespace is the operator's own namespace.
	OperatorNamespace string
	Now               time.Time
	DryRun            bool
	// Withheld says that nothing may be deleted yet: what is intended is not in the custody ledger.
	Withheld bool

	// full says, for jobs of the orders, why no more of them can be started in this pass.
	full map[string]string
}

// Owner is the Incident by name: whoever waits for a background task is woken by it.
func (x *Execution) Owner() types.NamespacedName { return client.ObjectKeyFromObject(x.Incident) }

// TaskID is the name of the background task of an item; it is unique among all Incidents.
func (x *Execution) TaskID(itemID string) string { return string(x.Incident.UID) + "/" + itemID }

// Late reports whether the item's deadline has passed.
func (x *Execution) Late(item v1alpha1.EvidenceItem) bool {
	return !item.Deadline.IsZero() && x.Now.After(item.Deadline.Time)
}

// Stored notes on an item what was put into the store.
func Stored(item v1alpha1.EvidenceItem, object store.Object) v1alpha1.EvidenceItem {
	item.Location, item.Digest, item.Size, item.StoredDigest, item.StoredSize = object.Key, object.PlainDigest, object.PlainSize, "", 0
	if object.Encrypted {
		item.StoredDigest, item.StoredSize = object.Digest, object.Size
	}
	return item
}

// InStore reports whether the item's location is a key in the store. Snapshots, checkpoints and what was not brought in yet are elsewhere.
func InStore(item *v1alpha1.EvidenceItem) bool {
	return item.Digest != "" && strings.HasPrefix(item.Location, "incidents/")
}

// MediaType is the media type of what is stored for an item.
func MediaType(item *v1alpha1.EvidenceItem) string {
	switch item.Type {
	case v1alpha1.EvidenceManifests, v1alpha1.EvidenceSurroundings:
		return "application/json"
	case v1alpha1.EvidenceLogs:
		return "application/zip"
	default:
		return "application/octet-stream"
	}
}
