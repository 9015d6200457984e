package incident

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
)

const bookFolder = "incidents/inc-uid/"

// clerk writes a ledger as the operator does.
type clerk struct {
	*Books
	c  client.Client
	st *store.Store
	// status is what the Incident has of it.
	status *v1alpha1.CustodyStatus
}

func newClerk(t *testing.T) *clerk {
	t.Helper()
	c := fake.NewClientBuilder().Build()
	stores := &evidence.Stores{Default: "mem://" + strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, t.Name())), Reader: c, Namespace: evidenceNamespace, Clock: clockOf(now)}
	st, err := stores.For(t.Context(), v1alpha1.EvidenceStore{})
	if err != nil {
		t.Fatal(err)
	}
	return &clerk{Books: NewBooks(stores, &evidence.Keys{Client: c, Namespace: evidenceNamespace}, nil, clockOf(now)), c: c, st: st}
}

// record records facts in a book, and publishes the head.
func (c *clerk) record(ctx context.Context, k *book, ids ...string) error {
	var facts []custody.Fact
	for _, id := range ids {
		facts = append(facts, observed(id, now.Time, "Seen", custody.Subject{Kind: "Pod"}, ""))
	}
	err := c.write(ctx, k, booking{uid: "inc-uid", facts: facts, known: c.status})
	k.judge(err)
	if err == nil {
		c.status = k.signedHead()
	}
	return err
}

func (c *clerk) key(t *testing.T) custody.Signer {
	t.Helper()
	key, err := c.Keys.Signer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c *clerk) change(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	content, err := c.st.Read(t.Context(), bookFolder+name)
	if err == nil {
		err = c.st.Delete(t.Context(), bookFolder+name)
	}
	if err == nil {
		err = c.st.Create(t.Context(), bookFolder+name, change(content))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// segments are the names of the segments, and recorded the IDs in the ledger, whoever has signed it.
func (c *clerk) segments(t *testing.T) []string {
	t.Helper()
	keys, err := c.st.Keys(t.Context(), bookFolder+"ledger/")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (c *clerk) recorded(t *testing.T) (ids []string) {
	t.Helper()
	ledger, err := custody.Open(t.Context(), c.st, "inc-uid")
	if err != nil {
		t.Fatal(err)
	}
	for e := range ledger.Entries() {
		if e.Action != "SigningKey" {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// append writes a line, as the operator does before it dies, or as somebody does who can write to the store and has this program, but not the operator's key.
func (c *clerk) append(t *testing.T, key custody.Signer, id string) *custody.Ledger {
	t.Helper()
	ledger, err := custody.Open(t.Context(), c.st, "inc-uid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Append(t.Context(), key, []custody.Fact{observed(id, now.Time, "Seen", custody.Subject{Kind: "Pod"}, "")}, now.Time); err != nil {
		t.Fatal(err)
	}
	return ledger
}

func (c *clerk) strangerAppends(t *testing.T) (*custody.Ledger, custody.Signer) {
	t.Helper()
	own, err := custody.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return c.append(t, own, "stranger"), own
}

func sealOf(segment []byte) []byte { return segment[bytes.LastIndex(segment, []byte(`{"format"`)):] }

type strangerAtTheBooks struct {
	write func(t *testing.T, c *clerk)
	want  string // of the condition; empty where what was written is only told of
}

// Whoever can write to the store adds nothing that the operator signs, and the condition Custody says that the ledger is damaged.
func TestBooksRefuseWhatAStrangerWrites(t *testing.T) {
	const third = "ledger/000000000003-00.jsonl" // the first segment has a fact and the key
	cases := map[string]strangerAtTheBooks{
		"lines sealed by his own key": {func(t *testing.T, c *clerk) { c.strangerAppends(t) }, "the entries from 3 to 3 are signed by the key"},
		"lines and a head by his own key": {func(t *testing.T, c *clerk) {
			ledger, own := c.strangerAppends(t)
			if _, err := ledger.Sign(t.Context(), own, now.Time); err != nil {
				t.Fatal(err)
			}
		}, "the entries from 3 to 3 are signed by the key"},
		"a head by his own key, of what the operator did not come to sign": {func(t *testing.T, c *clerk) {
			died := c.append(t, c.key(t), "last")
			own, err := custody.GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := died.Sign(t.Context(), own, now.Time); err != nil {
				t.Fatal(err)
			}
		}, "this head is signed by the key"},
		"lines with a seal of the operator's": {func(t *testing.T, c *clerk) {
			c.strangerAppends(t)
			first, err := c.st.Read(t.Context(), bookFolder+"ledger/000000000001-00.jsonl")
			if err != nil {
				t.Fatal(err)
			}
			c.change(t, third, func(b []byte) []byte { return append(bytes.TrimSuffix(b, sealOf(b)), sealOf(first)...) })
		}, "this is not the seal of entry 3: it is about entry 2"},
		"lines without a seal": {func(t *testing.T, c *clerk) {
			c.strangerAppends(t)
			c.change(t, third, func(b []byte) []byte { return bytes.TrimSuffix(b, sealOf(b)) })
		}, ""},
	}
	for name, tc := range cases {
		for _, restarted := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", after a restart"}[restarted], func(t *testing.T) { tc.check(t, third, restarted) })
		}
	}
}

func (tc strangerAtTheBooks) check(t *testing.T, third string, restarted bool) {
	t.Helper()
	c, k := newClerk(t), &book{}
	if err := c.record(t.Context(), k, "a"); err != nil {
		t.Fatal(err)
	}
	tc.write(t, c)
	before, signed := c.segments(t), c.status
	if restarted {
		k = &book{}
	}
	if tc.want == "" {
		if err := c.record(t.Context(), k, "b"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a", "void/" + third, "b"}, c.recorded(t)); diff != "" {
			t.Error(diff)
		}
		return
	}
	// The operator that is running sees first that somebody else has written, and reads the ledger anew.
	for range 2 {
		_ = c.record(t.Context(), k, "b")
	}
	checkDamaged(t, k, tc.want)
	if k.has("stranger") {
		t.Error("the operator takes what the stranger has written for its ledger")
	}
	if diff := cmp.Diff(signed, c.status); diff != "" {
		t.Errorf("the operator has signed:\n%s", diff)
	}
	if diff := cmp.Diff(before, c.segments(t)); diff != "" {
		t.Errorf("the operator has written:\n%s", diff)
	}
}

// checkDamaged checks that the condition Custody says so.
func checkDamaged(t *testing.T, k *book, want string) {
	t.Helper()
	s := contained()
	s.next.Custody = &v1alpha1.CustodyStatus{}
	s.books = k.state(nil, false)
	got := s.custody()
	if got.Status != metav1.ConditionFalse || got.Reason != v1alpha1.ReasonLedgerDamaged || !strings.Contains(got.Message, want) || s.books.withheld == "" {
		t.Errorf("Custody is %s (%s): %s; destruction waits because %q", got.Status, got.Reason, got.Message, s.books.withheld)
	}
}

// A ledger of a version that did not seal segments is refused, and the store stays as it is.
func TestBooksRefuseALedgerWithoutSeals(t *testing.T) {
	for name, heads := range map[string]bool{"with its heads": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			c, k := newClerk(t), &book{}
			for _, id := range []string{"a", "b"} {
				if err := c.record(t.Context(), k, id); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range c.segments(t) {
				c.change(t, strings.TrimPrefix(key, bookFolder), func(b []byte) []byte { return bytes.TrimSuffix(b, sealOf(b)) })
			}
			if !heads {
				for _, head := range []string{"heads/000000000002.json", "heads/000000000003.json"} {
					if err := c.st.Delete(t.Context(), bookFolder+head); err != nil {
						t.Fatal(err)
					}
				}
			}
			before, k := c.segments(t), &book{}
			err := c.record(t.Context(), k, "c")
			if _, damaged := errors.AsType[*custody.DamageError](err); !damaged {
				t.Errorf("the error is: %v", err)
			}
			checkDamaged(t, k, "written by a version that did not seal segments")
			if diff := cmp.Diff(before, c.segments(t)); diff != "" {
				t.Errorf("the operator has written:\n%s", diff)
			}
		})
	}
}

// Somebody replaces the Secret with the key. What the older key has signed counts, though status may not have come to know it.
func TestBooksAfterAChangeOfKeys(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restarted], func(t *testing.T) {
			c, k := newClerk(t), &book{}
			if err := c.record(t.Context(), k, "a"); err != nil {
				t.Fatal(err)
			}
			known, old := c.status, custody.KeyID(c.key(t).PublicKey())
			if err := c.record(t.Context(), k, "b"); err != nil {
				t.Fatal(err)
			}
			c.status = known // the operator did not come to write it
			if err := c.c.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: evidenceNamespace, Name: evidence.KeySecret}}); err != nil {
				t.Fatal(err)
			}
			if restarted {
				k = &book{}
			}
			other := &book{} // a second operator, which reads the ledger only now
			for i, b := range []*book{k, other, k} {
				if err := c.record(t.Context(), b, []string{"c", "d", "e"}[i]); err != nil {
					t.Fatal(err)
				}
			}
			if young := custody.KeyID(c.key(t).PublicKey()); c.status.KeyID != young || young == old {
				t.Errorf("the head is signed by %s, after %s", c.status.KeyID, old)
			}
			if got := c.recorded(t); !slices.Equal(got, []string{"a", "b", "c", "d", "e"}) {
				t.Errorf("the ledger has %q", got)
			}
		})
	}
}
