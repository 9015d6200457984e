package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/event"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	// checkLimit is how long one image may take.
	checkLimit = time.Minute
	// checksAtOnce is how many images are looked at together.
	checksAtOnce = 8
	// validFor is how long it counts that an image is good: content never changes under a digest, but a registry may lose it. retryAfter is how long anything else counts.
	validFor   = 4 * time.Minute
	retryAfter = 20 * time.Second
	// maxKnown is how many verdicts are remembered.
	maxKnown = 1024
)

// Inspector looks at images outside the passes of the reconcilers, and remembers what was found out.
type Inspector struct {
	// Wake receives the owner of a question whose answer has come.
	Wake chan event.TypedGenericEvent[types.NamespacedName]

	checker *Checker
	clock   clock.PassiveClock
	slots   chan struct{}
	mu      sync.Mutex
	base    context.Context //nolint:containedctx // the life of the manager, which outlasts any one call
	known   map[string]*entry
}

type entry struct {
	verdict Verdict
	// at is when it was found out; zero while that was never so.
	at      time.Time
	running bool
	// waiting are those who asked since it began to run.
	waiting map[types.NamespacedName]bool
}

// NewInspector looks at nothing before it is started.
func NewInspector(checker *Checker, c clock.PassiveClock) *Inspector {
	return &Inspector{
		Wake: make(chan event.TypedGenericEvent[types.NamespacedName]), checker: checker, clock: c, slots: make(chan struct{}, checksAtOnce), known: map[string]*entry{},
	}
}

// Start lets images be looked at until the context ends.
func (i *Inspector) Start(ctx context.Context) error {
	i.mu.Lock()
	i.base = ctx
	i.mu.Unlock()
	<-ctx.Done()
	return nil
}

// Look returns what is known of the image, and whether that is recent. If it is not, the image is looked at, and the owner woken when that is over.
func (i *Inspector) Look(owner types.NamespacedName, image string, v v1alpha1.ImageVerification) (verdict Verdict, recent bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id := keyFor(image, v)
	e := i.known[id]
	if e == nil {
		i.makeRoom()
		e = &entry{verdict: Verdict{Why: "is being looked up"}, waiting: map[types.NamespacedName]bool{}}
		i.known[id] = e
	}
	if age := i.clock.Since(e.at); !e.at.IsZero() && age < lifeOf(e.verdict) {
		return e.verdict, true
	}
	e.waiting[owner] = true
	if !e.running && i.base != nil && i.base.Err() == nil {
		e.running = true
		go i.run(i.base, e, image, v)
	}
	return e.verdict, false
}

func lifeOf(v Verdict) time.Duration {
	if v.State == Good {
		return validFor
	}
	return retryAfter
}

func (i *Inspector) run(ctx context.Context, e *entry, image string, v v1alpha1.ImageVerification) {
	select {
	case i.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	verdict := i.check(ctx, image, v)
	<-i.slots
	i.mu.Lock()
	e.verdict, e.at, e.running = verdict, i.clock.Now(), false
	waiting := e.waiting
	e.waiting = map[types.NamespacedName]bool{}
	i.mu.Unlock()
	for owner := range waiting {
		select {
		case i.Wake <- event.TypedGenericEvent[types.NamespacedName]{Object: owner}:
		case <-ctx.Done():
			return
		}
	}
}

// check is Check, within its time. A panic is what came of this image, and of nothing else: whoever can push decides what is read.
func (i *Inspector) check(ctx context.Context, image string, v v1alpha1.ImageVerification) (verdict Verdict) {
	limited, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			logf.FromContext(ctx).Error(fmt.Errorf("panicked: %v", cause), "looking at an image panicked", "image", image, "stack", string(debug.Stack()))
			verdict = Verdict{Why: "could not be looked up: what its registry says cannot be read"}
		}
	}()
	return i.checker.Check(limited, image, v)
}

// makeRoom forgets what is not recent any more, and if that is not enough, everything that is not under way.
func (i *Inspector) makeRoom() {
	if len(i.known) < maxKnown {
		return
	}
	for _, all := range []bool{false, true} {
		for id, e := range i.known {
			if old := i.clock.Since(e.at) >= lifeOf(e.verdict); !e.running && (all || old) {
				delete(i.known, id)
			}
		}
		if len(i.known) < maxKnown {
			return
		}
	}
}

// keyFor names a question: the same image may be asked about on different terms.
func keyFor(image string, v v1alpha1.ImageVerification) string {
	terms, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("API types always marshal: %v", err))
	}
	return fmt.Sprintf("%s %x", image, sha256.Sum256(terms))
}
