package incident

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestWritesKnowWhatIsBehind(t *testing.T) {
	version := func(uid types.UID, version string) *v1alpha1.Incident {
		return &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{UID: uid, ResourceVersion: version}}
	}
	w := NewWrites()
	w.wrote(version("a", "100"))
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

// After etcd was restored from a backup, the API server itself has what is older, and passes go on.
func TestLookBack(t *testing.T) {
	name := types.NamespacedName{Namespace: "shop", Name: "inc"}
	for version, want := range map[string]bool{"100": true, "90": false} {
		live := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "inc", UID: "a", ResourceVersion: version}}
		r := &Reconciler{Writes: NewWrites(), Live: fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(live).Build()}
		written, cached := live.DeepCopy(), live.DeepCopy()
		written.ResourceVersion, cached.ResourceVersion = "100", "90"
		r.Writes.wrote(written)
		if err := r.lookBack(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if got := r.Writes.behind(cached); got != want {
			t.Errorf("with version %s at the API server, behind() = %t", version, got)
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
