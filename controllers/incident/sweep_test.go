package incident

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/store"
)

const evidenceNamespace = "cofferdam-system"

// leftOver are the chunks of a document whose index was never written, created at a time, and the document's digest.
func leftOver(t *testing.T, c client.Client, name string, created time.Time) (digest string) {
	t.Helper()
	document := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", name)))).Read(document)
	objects, err := evidence.SpoolObjects(contained().incident, evidenceNamespace, name, evidence.SurroundingsMediaType, document)
	if err != nil {
		t.Fatal(err)
	}
	for _, cm := range objects[:len(objects)-1] {
		cm.CreationTimestamp, cm.Name = metav1.NewTime(created), name+cm.Name[strings.LastIndex(cm.Name, "-"):]
		if err := c.Create(t.Context(), cm); err != nil {
			t.Fatal(err)
		}
	}
	item, err := evidence.SpooledItem(objects[len(objects)-1], name, v1alpha1.EvidenceSurroundings, v1alpha1.ObjectRef{}, nil, created)
	if err != nil {
		t.Fatal(err)
	}
	return item.Digest
}

// sweeping is a scope whose ledger has an item with the digest.
func sweeping(t *testing.T, c client.Client, digest string) *scope {
	t.Helper()
	st, err := store.Open(t.Context(), "mem://", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := custody.Open(t.Context(), st, "inc-uid")
	if err != nil {
		t.Fatal(err)
	}
	item := v1alpha1.EvidenceItem{ID: "x", Type: v1alpha1.EvidenceSurroundings, State: v1alpha1.EvidenceCollected, Digest: digest, Size: 1 << 20}
	item.Location = custody.ItemKey("inc-uid", digest)
	key, err := custody.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Append(t.Context(), key, itemFacts(&item, now.Time), now.Time); err != nil {
		t.Fatal(err)
	}
	s := contained()
	s.Reconciler = &Reconciler{Client: c, Books: NewBooks(nil, nil, nil, nil), OperatorNamespace: evidenceNamespace, Clock: clockOf(now)}
	s.Books.of(s.owner(), s.incident.UID).ledger = ledger
	s.books.current = true
	return s
}

func clockOf(at metav1.Time) clock.PassiveClock { return clocktesting.NewFakePassiveClock(at.Time) }

func leftIn(t *testing.T, c client.Client) []string {
	t.Helper()
	var list corev1.ConfigMapList
	if err := c.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, cm := range list.Items {
		name := cm.Name[:strings.LastIndex(cm.Name, "-")]
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func TestSweepSpool(t *testing.T) {
	old, all := now.Add(-2*time.Hour), []string{"in-next", "in-status", "in-the-ledger", "orphan", "young"}
	for name, tc := range map[string]struct {
		seen   time.Time // when the Incident was seen first
		change func(*scope)
		want   []string
	}{
		"what nothing refers to, after an hour": {old, func(*scope) {}, []string{"in-next", "in-status", "in-the-ledger", "young"}},
		"an operator that is new":               {now.Add(-59 * time.Minute), func(*scope) {}, all},
		"never seen before":                     {time.Time{}, func(*scope) {}, all},
		"a ledger that lags behind":             {old, func(s *scope) { s.books.current = false }, all},
		"a ledger that was not read":            {old, func(s *scope) { s.Books.of(s.owner(), s.incident.UID).ledger = nil }, all},
		"a dry run":                             {old, dryRun, all},
	} {
		t.Run(name, func(t *testing.T) {
			c := fake.NewClientBuilder().Build()
			leftOver(t, c, "orphan", old)
			leftOver(t, c, "young", now.Add(-59*time.Minute))
			inStatus, inNext := leftOver(t, c, "in-status", old), leftOver(t, c, "in-next", old)
			s := sweeping(t, c, leftOver(t, c, "in-the-ledger", old))
			s.incident.Status.Evidence = []v1alpha1.EvidenceItem{{ID: "a", Digest: inStatus}}
			s.next.Evidence = []v1alpha1.EvidenceItem{{ID: "b", Digest: inNext}, {ID: "c"}}
			s.Books.of(s.owner(), s.incident.UID).swept = tc.seen
			tc.change(s)
			s.sweepSpool(t.Context())
			if diff := cmp.Diff(tc.want, leftIn(t, c)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			leftOver(t, c, "orphan-2", old)
			s.sweepSpool(t.Context()) // not again within the hour
			if diff := cmp.Diff(len(tc.want)+1, len(leftIn(t, c))); diff != "" {
				t.Errorf("left afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

// One pass removes so many, and the next ones go on.
func TestSweepSpoolIsBounded(t *testing.T) {
	c := fake.NewClientBuilder().Build()
	for i := range sweepMost/2 + 1 { // of two chunks each
		leftOver(t, c, fmt.Sprintf("orphan-%d", i), now.Add(-2*time.Hour))
	}
	s := sweeping(t, c, "sha256:"+strings.Repeat("0", 64))
	k := s.Books.of(s.owner(), s.incident.UID)
	for _, want := range []int{1, 0} {
		k.swept = now.Add(-sweepAge)
		s.sweepSpool(t.Context())
		if got := len(leftIn(t, c)); got != want {
			t.Errorf("%d are left, want %d", got, want)
		}
	}
}
