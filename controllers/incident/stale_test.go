package incident

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestWritesKnowWhatIsBehind(t *testing.T) {
	version := func(uid types.UID, version string) *v1alpha1.Incident {
		return &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{UID: uid, ResourceVersion: version}}
	}
	w := NewWrites()
	w.wrote(version("a", "100"), time.Time{})
	cases := map[string]struct {
		read *v1alpha1.Incident
		want bool
	}{
		"before the write":                      {read: version("a", "99"), want: true},
		"the write itself":                      {read: version("a", "100")},
		"after it":                              {read: version("a", "101")},
		"with more digits":                      {read: version("a", "1000")},
		"a namesake, of which nothing is known": {read: version("b", "1")},
		"a version that cannot be compared":     {read: version("a", "x")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := w.behind(tc.read); got != tc.want {
				t.Errorf("behind() = %t", got)
			}
		})
	}
	w.forget(types.NamespacedName{})
	if w.behind(version("a", "1")) {
		t.Error("what was forgotten is remembered")
	}
}

// After etcd was restored from a backup, the API server itself has what is older, and passes go on. It is asked only when the cache has had time to hear of the write.
func TestLookBack(t *testing.T) {
	name, now := types.NamespacedName{Namespace: "shop", Name: "inc"}, time.Now()
	for what, tc := range map[string]struct {
		version string
		ago     time.Duration
		want    bool
	}{
		"the cache is late":                {version: "100", ago: time.Minute, want: true},
		"versions have gone back":          {version: "90", ago: time.Minute, want: false},
		"the write has only just happened": {version: "90", ago: time.Millisecond, want: true},
	} {
		live := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "inc", UID: "a", ResourceVersion: tc.version}}
		r := &Reconciler{Writes: NewWrites(), Live: fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(live).Build(), Clock: clocktesting.NewFakePassiveClock(now)}
		written, cached := live.DeepCopy(), live.DeepCopy()
		written.ResourceVersion, cached.ResourceVersion = "100", "90"
		r.Writes.wrote(written, now.Add(-tc.ago))
		if err := r.lookBack(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if got := r.Writes.behind(cached); got != tc.want {
			t.Errorf("%s: behind() = %t", what, got)
		}
	}
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	out := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(out); err != nil {
		t.Fatal(err)
	}
	return out
}
