package incident

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Writes remembers the last status that was written of each Incident. The cache may be behind it: a pass over what was before would take for not yet done what was done, and do it again, such as running a job that
// somebody has deleted since. After a restart there is nothing to remember, and the cache is filled anew.
type Writes struct {
	mu   sync.Mutex
	last map[types.NamespacedName]written
}

type written struct {
	uid     types.UID
	version string
	at      time.Time
}

// NewWrites remembers nothing yet.
func NewWrites() *Writes { return &Writes{last: map[types.NamespacedName]written{}} }

// wrote notes the version that a write has made.
func (w *Writes) wrote(inc *v1alpha1.Incident, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[nameOf(inc)] = written{uid: inc.UID, version: inc.ResourceVersion, at: at}
}

// behind reports whether the Incident was read as it was before the last write. Versions are ordered (KEP-5504); one that cannot be compared is not believed to be behind.
func (w *Writes) behind(inc *v1alpha1.Incident) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, known := w.last[nameOf(inc)]
	if !known || last.uid != inc.UID {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(inc.ResourceVersion, last.version)
	return err == nil && order < 0
}

// knows reports whether this process has written the status of the Incident.
func (w *Writes) knows(inc *v1alpha1.Incident) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[nameOf(inc)].uid == inc.UID
}

// since is how long ago the status of the Incident was written by this process; long ago if it never was.
func (w *Writes) since(name types.NamespacedName, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return now.Sub(w.last[name].at)
}

// lookBack asks the API server itself whether the Incident is as old as the cache has it: etcd may have been restored from a backup, which takes versions back. What was written since is gone then.
// A cache that has had no time to hear of the write is not looked behind.
func (r *Reconciler) lookBack(ctx context.Context, name types.NamespacedName) error {
	if r.Writes.since(name, r.Clock.Now()) < retryChanged {
		return nil
	}
	var inc v1alpha1.Incident
	err := r.Live.Get(ctx, name, &inc)
	if err == nil && r.Writes.behind(&inc) {
		r.Writes.forget(name)
	}
	return client.IgnoreNotFound(err)
}

// forget drops what is remembered of an Incident that is gone.
func (w *Writes) forget(name types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.last, name)
}

func nameOf(inc *v1alpha1.Incident) types.NamespacedName {
	return types.NamespacedName{Namespace: inc.Namespace, Name: inc.Name}
}
