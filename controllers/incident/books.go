package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/containmentpolicy"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
)

const (
	// bookLimit is how long one attempt to write the ledger may take.
	bookLimit = 30 * time.Second
	// bookRetry is how soon it is tried again after a failure.
	bookRetry = 5 * time.Second
	// maxActs bounds the writes that are remembered while the store is away.
	maxActs = 2000
)

// Books keeps the ledgers of the open Incidents. Ledgers are written in the background: a store that is slow, or hangs, does not delay containment. It delays what is destructive, which waits until
// its intent is in the ledger.
type Books struct {
	// Stores opens the store that the standing orders name.
	Stores *evidence.Stores
	// Keys finds the key that signs.
	Keys *evidence.Keys
	// Background runs the writing.
	Background *evidence.Background
	// Clock stamps entries.
	Clock clock.PassiveClock

	mu    sync.Mutex
	books map[types.UID]*book
	names map[types.NamespacedName]types.UID
}

// NewBooks keeps ledgers in the stores, signed with the key.
func NewBooks(stores *evidence.Stores, keys *evidence.Keys, background *evidence.Background, clock clock.PassiveClock) *Books {
	return &Books{
		Stores: stores, Keys: keys, Background: background, Clock: clock,
		books: map[types.UID]*book{}, names: map[types.NamespacedName]types.UID{},
	}
}

// book is what is known of one ledger.
type book struct {
	mu     sync.Mutex
	ledger *custody.Ledger
	// acts are writes to the API server that the ledger does not have yet.
	acts []custody.Fact
	// head is the head that was signed last; problem says why there is no newer one, and damaged that the ledger in the store is not what was written.
	head    *v1alpha1.CustodyStatus
	problem string
	damaged bool
	unlocks string
	// audits are looks at what is in the store, by the goal before which they were taken.
	audits map[v1alpha1.Goal]*audit
	// warning says what else went wrong, such as a time-stamp authority that did not answer.
	warning string
	// swept is when what was left of documents was looked for last, or when the Incident was seen first.
	swept time.Time
}

func (b *Books) of(name types.NamespacedName, uid types.UID) *book {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.books[uid] == nil {
		b.books[uid] = &book{}
		b.names[name] = uid
	}
	return b.books[uid]
}

// forget drops what is remembered of the ledger of an Incident that is gone.
func (b *Books) forget(name types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if uid, known := b.names[name]; known {
		b.Background.ForgetAll(string(uid) + "/")
	}
	delete(b.books, b.names[name])
	delete(b.names, name)
}

// has reports whether the ledger has the fact.
func (k *book) has(id string) bool { return k.ledger != nil && k.ledger.Has(id) }

// missing are the facts that the ledger does not have.
func (k *book) missing(facts []custody.Fact) []custody.Fact {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(facts), func(f custody.Fact) bool { return k.has(f.ID) })
	return append(out, k.acts...)
}

// note remembers writes until the ledger has them. When there are too many, the last one that is remembered says that more are not.
func (k *book) note(acts []custody.Fact) {
	k.mu.Lock()
	defer k.mu.Unlock()
	room := maxActs - len(k.acts)
	if room > 0 && room <= len(acts) {
		last := &acts[room-1]
		last.Detail += "; the store is away, and writes after this one are not recorded one by one"
	}
	k.acts = append(k.acts, acts[:max(0, min(room, len(acts)))]...)
}

// booking is what one attempt to write the ledger works with.
type booking struct {
	uid    types.UID
	orders v1alpha1.EvidenceStore
	facts  []custody.Fact
	// known is the head that status has: a ledger that does not contain it was cut off.
	known *v1alpha1.CustodyStatus
}

// write appends facts to the ledger and signs its head.
func (b *Books) write(ctx context.Context, k *book, e booking) error {
	st, err := b.Stores.For(ctx, e.orders)
	if err != nil {
		return err
	}
	key, err := b.Keys.Signer(ctx)
	if err != nil {
		return err
	}
	ledger, err := k.open(ctx, st, key, e)
	if err != nil {
		return fmt.Errorf("reading the ledger in %s: %w", st.URL(), err)
	}
	if _, err := ledger.Append(ctx, key, append(slices.Clone(e.facts), keyFact(key, b.Clock.Now())), b.Clock.Now()); err != nil {
		k.reopen()
		return fmt.Errorf("writing the ledger in %s: %w", st.URL(), err)
	}
	k.wrote(ledger)
	head, err := b.sign(ctx, k, ledger, key, e)
	if err != nil {
		k.reopen()
		return fmt.Errorf("signing the ledger in %s: %w", st.URL(), err)
	}
	head.Store = st.URL()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.head = head
	k.unlocks = ""
	if locks, why := st.Locks(); e.orders.LockDays > 0 && !locks {
		k.unlocks = why
	}
	return nil
}

// open returns the ledger as it was last read, or reads it. It has to have what status and this operator know of it, and what follows that has to be signed by the key that signs now or by one that has signed that:
// after a change of keys, status may not have come to know everything that the older key has signed.
func (k *book) open(ctx context.Context, st *store.Store, key custody.Signer, e booking) (*custody.Ledger, error) {
	k.mu.Lock()
	ledger, head := k.ledger, k.head
	k.mu.Unlock()
	if ledger != nil {
		return ledger, nil
	}
	keys := []string{custody.KeyID(key.PublicKey())}
	var known *custody.Pin
	for _, h := range []*v1alpha1.CustodyStatus{e.known, head} {
		if h == nil {
			continue
		}
		keys = append(keys, h.KeyID)
		if known == nil || h.Entries > known.Seq {
			known = &custody.Pin{Seq: h.Entries, Digest: h.Digest}
		}
	}
	return custody.Open(ctx, st, string(e.uid), custody.TrustOnly(keys, known))
}

// keyFact tells, once for each key, which key signs from now on.
func keyFact(key custody.Signer, now time.Time) custody.Fact {
	id := custody.KeyID(key.PublicKey())
	return observed("key/"+id, now, "SigningKey", custody.Subject{Kind: "Secret", Name: evidence.KeySecret}, "heads are signed by key "+id)
}

// reopen makes the next attempt read the ledger anew: what the store has is what counts.
func (k *book) reopen() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ledger = nil
}

// wrote notes what the ledger has now.
func (k *book) wrote(ledger *custody.Ledger) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ledger = ledger
	k.acts = slices.DeleteFunc(k.acts, func(f custody.Fact) bool { return ledger.Has(f.ID) })
}

// sign signs the head. Where something has turned, a time-stamp authority is asked, if the standing orders name one; it is only a warning when it does not answer.
func (b *Books) sign(ctx context.Context, k *book, ledger *custody.Ledger, key custody.Signer, e booking) (*v1alpha1.CustodyStatus, error) {
	var warning error
	options := []custody.SignOption{custody.Warn(func(err error) { warning = errors.Join(warning, err) })}
	turned := slices.ContainsFunc(e.facts, func(f custody.Fact) bool {
		return strings.HasPrefix(f.ID, "condition/") || strings.HasPrefix(f.ID, "approval/")
	})
	if e.orders.TimeAuthorityURL != "" && turned {
		options = append(options, custody.TimestampBy(&custody.Timestamper{URL: e.orders.TimeAuthorityURL}))
	}
	head, err := ledger.Sign(ctx, key, b.Clock.Now(), options...)
	if err != nil {
		return nil, err
	}
	k.warn(warning)
	out := &v1alpha1.CustodyStatus{Entries: head.Seq, Digest: head.Digest, KeyID: head.KeyID, Signature: head.Signature, SignedAt: metav1.NewTime(head.At)}
	if stamp, err := head.Stamp(); err == nil && stamp != nil {
		out.AttestedAt = metav1.NewTime(stamp.Time)
	}
	return out, nil
}

// warn notes what went wrong without keeping the ledger from being written.
func (k *book) warn(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.warning = ""
	if err != nil {
		k.warning = err.Error()
	}
}

// bookkeeping is what a pass knows of the ledger.
type bookkeeping struct {
	// begun says that the Incident has a ledger.
	begun bool
	// current says that the ledger has everything that is durable, and that its head is signed.
	current bool
	// withheld says why nothing destructive may be done now; empty when it may.
	withheld string
	// problem says why the ledger could not be written, damaged that it is not what was written, and unlocks why the store does not lock what is in it though it should.
	problem string
	damaged bool
	unlocks string
	warning string
}

// trouble says why the ledger cannot be written, or "" while it is written as it should be.
func (b bookkeeping) trouble() string {
	if b.problem == "" {
		return ""
	}
	return b.withheld
}

// keepBooks sees to it that the ledger follows the Incident. It does not wait for the store.
func (s *scope) keepBooks() {
	if s.dryRun() || !s.holds() && s.incident.Status.Custody == nil && s.incident.Status.ReleasedAt.IsZero() {
		return
	}
	k := s.Books.of(s.owner(), s.incident.UID)
	if result, ended := s.Books.Background.Result(s.ledgerTask()); ended {
		s.Books.Background.Forget(s.ledgerTask())
		k.judge(result.Err)
	}
	all := facts(s.incident, s.now.Time)
	s.leaveOutEntries()
	missing := k.missing(all)
	s.books = k.state(all, len(missing) == 0)
	if len(missing) > 0 || k.unsigned() {
		if s.books.problem != "" {
			s.lookAgainAfter(bookRetry)
		}
		s.book(k, s.incident, missing)
	}
	if head := k.signedHead(); head != nil {
		s.next.Custody = head
	}
}

// bookAtOnce has the ledger follow what the pass has written without waiting for the next one, which would only begin to wait for it. Whether it went well, the next pass sees.
func (s *scope) bookAtOnce() {
	if s.written == nil || !s.books.begun || s.books.problem != "" || s.dryRun() {
		return
	}
	k := s.Books.of(s.owner(), s.incident.UID)
	if missing := k.missing(facts(s.written, s.now.Time)); len(missing) > 0 {
		s.book(k, s.written, missing)
	}
}

// book begins to write facts to the ledger, unless that is under way.
func (s *scope) book(k *book, inc *v1alpha1.Incident, missing []custody.Fact) {
	e := booking{uid: inc.UID, orders: s.orders().Store, facts: missing, known: inc.Status.Custody.DeepCopy()}
	s.Books.Background.Do(s.ledgerTask(), s.owner(), bookLimit, func(ctx context.Context) evidence.Result {
		return evidence.Result{Err: s.Books.write(ctx, k, e)}
	})
}

func (s *scope) ledgerTask() string { return string(s.incident.UID) + "/ledger" }

func (s *scope) owner() types.NamespacedName {
	return types.NamespacedName{Namespace: s.incident.Namespace, Name: s.incident.Name}
}

// orders are the evidence orders in force.
func (s *scope) orders() v1alpha1.EvidenceOrders {
	if p := s.incident.Status.Policy; p != nil {
		return containmentpolicy.Effective(p.Spec).Evidence
	}
	return s.policy.Evidence
}

// judge notes how the last attempt went.
func (k *book) judge(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var damage *custody.DamageError
	k.problem, k.damaged = "", errors.As(err, &damage)
	if err != nil {
		k.problem = err.Error()
	}
}

func (k *book) unsigned() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.head == nil || k.ledger == nil || k.head.Entries != k.ledger.Seq()
}

func (k *book) signedHead() *v1alpha1.CustodyStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.head == nil {
		return nil
	}
	return k.head.DeepCopy()
}

// state says what the ledger allows. Whatever is destructive waits for its intent to be in the ledger, and for a store that works.
func (k *book) state(all []custody.Fact, current bool) bookkeeping {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := bookkeeping{begun: true, problem: k.problem, damaged: k.damaged, unlocks: k.unlocks, warning: k.warning}
	out.current = current && k.problem == "" && k.head != nil && k.ledger != nil && k.head.Entries == k.ledger.Seq()
	switch {
	case k.problem != "":
		out.withheld = "waits until the custody ledger can be written: " + k.problem
	case k.head == nil:
		out.withheld = "waits until the custody ledger is begun"
	case slices.ContainsFunc(all, func(f custody.Fact) bool { return f.Phase == custody.PhaseIntent && !k.has(f.ID) }):
		out.withheld = "waits until what is intended is in the custody ledger"
	}
	return out
}

// act is a write to the API server as the ledger tells it.
func (s *scope) act(op v1alpha1.PlannedAction, err error) {
	result := "done"
	if err != nil {
		result = "failed: " + err.Error()
	}
	s.acts = append(s.acts, custody.Fact{
		ID: fmt.Sprintf("write/%s/%d", s.passID, len(s.acts)), At: s.Clock.Now(), Actor: operator(), Action: "Write", Phase: custody.PhaseOutcome, Subject: subjectOf(op.Object),
		Detail: fmt.Sprintf("%s: %s (%s)", op.Verb, op.Detail, result),
	})
}

// rememberActs keeps the writes of the pass until the ledger has them, which the next pass sees to.
func (s *scope) rememberActs() {
	if len(s.acts) == 0 || s.dryRun() {
		return
	}
	s.Books.of(s.owner(), s.incident.UID).note(s.acts)
	s.lookAgainAfter(retryChanged)
}
