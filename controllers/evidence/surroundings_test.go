package evidence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func gather(t *testing.T, r client.Reader, pods []*corev1.Pod) *SurroundingsRecord {
	t.Helper()
	s, err := GatherSurroundings(context.Background(), r, "shop", pods, PolicyKinds{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func toUnstructured(t *testing.T, obj any) *unstructured.Unstructured {
	t.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: fields}
}

func notRead(s *SurroundingsRecord) []string {
	var out []string
	for _, n := range s.NotRead {
		out = append(out, nameOf(n.Kind, n.Namespace, n.Name)+": "+n.Why)
	}
	return out
}

// everything is what of the namespace shop with two pods belongs into the record.
var everything = []string{
	"ClusterRole admin", "ClusterRole view",
	"ClusterRoleBinding by-account", "ClusterRoleBinding by-all-accounts", "ClusterRoleBinding by-everybody", "ClusterRoleBinding by-group", "ClusterRoleBinding by-user-name",
	"ControllerRevision shop/web-rev", "Deployment shop/top",
	"EndpointSlice mallory/in-1", "EndpointSlice shop/manual-1", "EndpointSlice shop/web-1",
	"Event shop/event-0", "Event shop/event-1", "Event shop/event-other",
	"HorizontalPodAutoscaler shop/web", "Ingress shop/web", "LimitRange shop/limits", "Namespace shop", "NetworkPolicy shop/allow-all", "Node node-0", "Node node-1",
	"PersistentVolume pv-0", "PersistentVolume pv-1", "PersistentVolumeClaim shop/data-web-0", "PersistentVolumeClaim shop/data-web-1", "PodDisruptionBudget shop/web",
	"ReplicaSet shop/top-rs", "ResourceQuota shop/quota", "Role mallory/far", "Role shop/local", "RoleBinding mallory/far", "RoleBinding shop/anybody",
	"Service mallory/in", "Service shop/labelled", "Service shop/manual", "Service shop/web", "ServiceAccount shop/web", "StatefulSet shop/web", "StorageClass fast",
}

func TestGatherSurroundings(t *testing.T) {
	pods, objs := shop(2)
	elsewhere := shopPod(1, &appsv1.StatefulSet{})
	elsewhere.Namespace, elsewhere.Spec.NodeName = "mallory", "not-node"
	r := live(t, objs...)
	got := gather(t, r, append([]*corev1.Pod{elsewhere}, pods...))
	if diff := cmp.Diff(everything, names(t, got)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ClusterRole gone: not found"}, notRead(got)); diff != "" {
		t.Errorf("not read (-want +got):\n%s", diff)
	}
	if len(got.LeftOut) > 0 {
		t.Errorf("left out: %v", got.LeftOut)
	}
	want := []ObjectName{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Namespace: "shop", Name: "cofferdam-quarantine-x", UID: "uid-shop-cofferdam-quarantine-x"}}
	if diff := cmp.Diff(want, got.Own); diff != "" {
		t.Errorf("own (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]SurroundedPod{
		{Name: "web-0", UID: "uid-shop-web-0", Node: "node-0", ServiceAccount: "web"}, {Name: "web-1", UID: "uid-shop-web-1", Node: "node-1", ServiceAccount: "web"},
	}, got.Pods); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	i := slices.IndexFunc(got.Read, func(l ListRead) bool { return l.Kind == "Service" })
	if diff := cmp.Diff(ListRead{APIVersion: "v1", Kind: "Service", Namespace: "shop", LookedAt: 4, Kept: 2}, got.Read[i], cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "ResourceVersion" }, cmp.Ignore())); diff != "" {
		t.Errorf("account of Services (-want +got):\n%s", diff)
	}
}

// Nothing there at all: a pod by itself in a namespace that has nothing.
func TestGatherSurroundingsOfNothing(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metaOf("shop", "alone")}
	got := gather(t, live(t), []*corev1.Pod{pod})
	if len(got.Objects) > 0 || len(got.References) > 0 || len(got.Metadata) > 0 {
		t.Errorf("%d objects, %d references, %d metadata of nothing", len(got.Objects), len(got.References), len(got.Metadata))
	}
	if diff := cmp.Diff([]string{"Namespace shop: not found", "ServiceAccount shop/default: not found"}, notRead(got)); diff != "" {
		t.Errorf("not read (-want +got):\n%s", diff)
	}
	var read []string
	for _, l := range got.Read {
		read = append(read, l.Kind)
	}
	want := []string{
		"ClusterRoleBinding", "ControllerRevision", "EndpointSlice", "EndpointSlice", "Event", "HorizontalPodAutoscaler", "Ingress", "LimitRange", "NetworkPolicy", "PodDisruptionBudget", "ReplicaSet",
		"ResourceQuota", "RoleBinding", "RoleBinding", "Service",
	}
	if diff := cmp.Diff(want, read); diff != "" {
		t.Errorf("kinds that were looked at (-want +got):\n%s", diff)
	}
}

// A kind that may not be read, or that the server does not know, is named and does not stand in the way of the others; whatever else happens is an error.
func TestGatherSurroundingsRefused(t *testing.T) {
	pods, objs := shop(2)
	kinds := map[string]bool{}
	for _, name := range everything {
		kinds[strings.Fields(name)[0]] = true
	}
	for kind := range kinds {
		for why, tc := range map[string]struct {
			err  error
			want string
		}{
			"forbidden": {err: forbidden("things"), want: "forbidden"},
			"unknown":   {err: &apimeta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: kind}}, want: "the API server does not serve"},
		} {
			t.Run(kind+" "+why, func(t *testing.T) {
				r := live(t, objs...)
				r.errs[kind] = tc.err
				got := gather(t, r, pods)
				if slices.ContainsFunc(names(t, got), func(name string) bool { return strings.Fields(name)[0] == kind }) {
					t.Errorf("%s is in the record", kind)
				}
				if !slices.ContainsFunc(got.NotRead, func(n NotRead) bool { return n.Kind == kind && strings.Contains(n.Why, tc.want) }) {
					t.Errorf("the record does not say that %s was not read: %v", kind, got.NotRead)
				}
			})
		}
		t.Run(kind+" fails", func(t *testing.T) {
			r := live(t, objs...)
			r.errs[kind] = apierrors.NewServiceUnavailable("down")
			if s, err := GatherSurroundings(context.Background(), r, "shop", pods, PolicyKinds{}); !apierrors.IsServiceUnavailable(err) || s != nil {
				t.Errorf("GatherSurroundings() = %v, %v", s, err)
			}
		})
	}
}

// Who makes a pod chooses what it says its owners are.
func TestGatherSurroundingsOwners(t *testing.T) {
	_, objs := shop(1)
	ref := func(apiVersion, kind, name, uid string) metav1.OwnerReference {
		r := metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name}
		r.UID = metaOf("shop", uid).UID
		return r
	}
	var many []metav1.OwnerReference
	for i := range maxOwnerKinds + 4 {
		many = append(many, ref("example.com/v1", fmt.Sprintf("Kind%02d", i), "x", "x"))
	}
	cases := map[string]struct {
		owners  []metav1.OwnerReference
		errs    map[string]error
		want    []string
		notRead []string
		refs    []string
		left    int
	}{
		"up to the top":        {owners: []metav1.OwnerReference{ref("apps/v1", "StatefulSet", "web", "web")}, want: []string{"Deployment shop/top", "StatefulSet shop/web"}},
		"gone":                 {owners: []metav1.OwnerReference{ref("apps/v1", "StatefulSet", "gone", "gone")}, notRead: []string{"StatefulSet shop/gone: not found"}},
		"a namesake":           {owners: []metav1.OwnerReference{ref("apps/v1", "Deployment", "top", "old")}, want: []string{"Deployment shop/top"}, notRead: []string{"Deployment shop/top: there is only a namesake: the owner had the UID uid-shop-old"}},
		"of an unknown kind":   {owners: []metav1.OwnerReference{ref("example.com/v1", "Thing", "x", "x")}, errs: map[string]error{"Thing": &apimeta.NoKindMatchError{}}, notRead: []string{"Thing shop/x: the API server does not serve the kind"}},
		"of an API that fails": {owners: []metav1.OwnerReference{ref("example.com/v1", "Thing", "x", "x")}, errs: map[string]error{"Thing": errors.New("discovery failed\x1b[2J")}, notRead: []string{"Thing shop/x: discovery failed\ufffd[2J"}},
		"a Secret":             {owners: []metav1.OwnerReference{ref("v1", "Secret", "not-secret", "not-secret")}, refs: []string{"Secret shop/not-secret owner reference"}},
		"of too many kinds":    {owners: many, errs: nil, left: 4},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metaOf("shop", "alone")}
			pod.OwnerReferences = tc.owners
			r := live(t, objs...)
			maps.Copy(r.errs, tc.errs)
			if tc.left > 0 {
				for _, o := range tc.owners {
					r.errs[o.Kind] = &apimeta.NoKindMatchError{}
				}
			}
			got := gather(t, r, []*corev1.Pod{pod})
			unread := slices.DeleteFunc(notRead(got), func(n string) bool {
				return strings.HasPrefix(n, "ServiceAccount") || strings.HasPrefix(n, "ClusterRole ") || tc.left > 0
			})
			if diff := cmp.Diff([]any{tc.want, tc.notRead, tc.refs, tc.left}, []any{ownersIn(t, got), unread, referencesIn(got), leftOutOf(got)}, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("owners, not read, references, left out (-want +got):\n%s", diff)
			}
		})
	}
}

// ownersIn names the objects in the record that may be owners.
func ownersIn(t *testing.T, s *SurroundingsRecord) []string {
	t.Helper()
	return slices.DeleteFunc(names(t, s), func(name string) bool {
		return !slices.Contains([]string{"Deployment", "StatefulSet", "Thing"}, strings.Fields(name)[0])
	})
}

func referencesIn(s *SurroundingsRecord) []string {
	var out []string
	for _, ref := range s.References {
		out = append(out, nameOf(ref.Kind, ref.Namespace, ref.Name)+" "+ref.Where)
	}
	return out
}

// leftOutOf is how many objects the record says that it leaves out.
func leftOutOf(s *SurroundingsRecord) int {
	count := 0
	for _, l := range s.LeftOut {
		count += l.Count
	}
	return count
}

// What another Incident took from a pod is still known: the owner, and the labels by which Services select it.
func TestGatherSurroundingsOfDetached(t *testing.T) {
	pods, objs := shop(1)
	pod := pods[0]
	pod.Annotations = map[string]string{v1alpha1.OriginalAnnotation: `{"labels":{"app":"web"},"owner":{"apiVersion":"apps/v1","kind":"StatefulSet","name":"web","uid":"uid-shop-web"}}`}
	pod.Labels, pod.OwnerReferences = map[string]string{"quarantine.cofferdam.dev/x": "held"}, nil
	got := names(t, gather(t, live(t, objs...), pods))
	for _, want := range []string{"StatefulSet shop/web", "Deployment shop/top", "Service shop/web", "PodDisruptionBudget shop/web"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

// Pages, and lists that the server has forgotten the beginning of, give the same record.
func TestGatherSurroundingsPages(t *testing.T) {
	pods, objs := shop(20)
	whole := gather(t, live(t, objs...), pods)
	r := live(t, objs...)
	r.page = 2
	r.expire = map[string]int{"Event": 2, "PersistentVolumeClaim": maxRestarts}
	got := gather(t, r, pods)
	if diff := cmp.Diff(whole, got); diff != "" {
		t.Errorf("in pages (-want +got):\n%s", diff)
	}
	r.expire = map[string]int{"Event": maxRestarts + 1}
	if _, err := GatherSurroundings(context.Background(), r, "shop", pods, PolicyKinds{}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a list that always expires: %v", err)
	}
}

func TestGatherSurroundingsCapped(t *testing.T) {
	pods, objs := shop(1)
	large := strings.Repeat("x", 1<<20)
	for i := range 8 {
		b := bindingIn("shop", fmt.Sprintf("large-%d", i), "local", subject("User", "", "jane"))
		b.Annotations = map[string]string{"large": large}
		objs = append(objs, b)
	}
	for i := range maxOtherEvents + 7 {
		objs = append(objs, &corev1.Event{ObjectMeta: metaOf("shop", fmt.Sprintf("z-%04d", i)), InvolvedObject: corev1.ObjectReference{UID: "other"}})
	}
	for i := range maxKept + 5 {
		objs = append(objs, &rbacv1.ClusterRoleBinding{ObjectMeta: metaOf("", fmt.Sprintf("z-%05d", i)), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: subject("Group", "", "system:authenticated")})
	}
	got := gather(t, live(t, objs...), pods)
	// Five ClusterRoleBindings and one Event more are in the namespace anyway; of the large RoleBindings the sixth crosses the bound.
	want := []LeftOut{
		{Kind: "ClusterRoleBinding", Count: 10, Why: "more was found than is kept"},
		{Kind: "Event", Namespace: "shop", Count: 8, Why: "about objects that are not in this record"},
		{Kind: "RoleBinding", Namespace: "shop", Count: 2, Why: "more was found than is kept"},
	}
	if diff := cmp.Diff(want, got.LeftOut); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	i := slices.IndexFunc(got.Read, func(l ListRead) bool { return l.Kind == "Event" })
	if kept := got.Read[i].Kept; kept != maxOtherEvents+1 {
		t.Errorf("%d Events are kept, want the one about the pod and %d others", kept, maxOtherEvents)
	}
	if all := names(t, got); !slices.Contains(all, "Event shop/event-0") || !slices.Contains(all, "StorageClass fast") {
		t.Error("what is about the pod was crowded out")
	}
	if document, err := Encode(got); err != nil || len(document) > maxKeptBytes+1<<20 {
		t.Errorf("the document has %d bytes, %v", len(document), err)
	}
}

func TestGatherSurroundingsTotal(t *testing.T) {
	s := newSurvey(live(t))
	large := strings.Repeat("x", 1<<20)
	left := 0
	for i := range 20 {
		obj := toUnstructured(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), Annotations: map[string]string{"large": large}}})
		if _, ok := s.keep(kindIn("", "v1", "ServiceAccount"), obj); !ok {
			left++
		}
	}
	if left != 5 || s.size > maxKeptBytes {
		t.Errorf("%d of 20 left out, %d bytes kept", left, s.size)
	}
	for i := range maxNotRead + 3 {
		s.missing(kindIn("", "v1", "Thing"), client.ObjectKey{Name: fmt.Sprint(i)}, "not found")
	}
	if len(s.notRead) != maxNotRead || s.leftOut[readKey{"Thing not read", ""}].Count != 3 {
		t.Errorf("%d named, left out %v", len(s.notRead), s.leftOut)
	}
}

// The same cluster gives the same bytes, in whatever order the pods are told.
func TestGatherSurroundingsDeterministic(t *testing.T) {
	pods, objs := shop(30)
	encode := func() string {
		document, err := Encode(gather(t, live(t, objs...), pods))
		if err != nil {
			t.Fatal(err)
		}
		return string(document)
	}
	first := encode()
	for range 5 {
		rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
		if diff := cmp.Diff(first, encode()); diff != "" {
			t.Fatalf("another time (-first +now):\n%s", diff)
		}
	}
}

// Names, annotations and messages come from whoever is investigated.
func TestGatherSurroundingsControlCharacters(t *testing.T) {
	pods, objs := shop(1)
	evil := "\x1b]0;owned\x07\u009b2J\u202e"
	pods[0].Spec.Volumes = append(pods[0].Spec.Volumes, corev1.Volume{Name: evil, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "name" + evil}}})
	objs = append(objs, &corev1.Event{ObjectMeta: metaOf("shop", "evil"), Message: evil, InvolvedObject: corev1.ObjectReference{UID: pods[0].UID}})
	r := live(t, objs...)
	r.errs["Secret"] = forbidden("secrets")
	document, err := Encode(gather(t, r, pods))
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(string(document), func(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f || r == '\u202e' }); i >= 0 {
		t.Errorf("the document has a character that a terminal obeys: %q", document[i:i+10])
	}
	if !strings.Contains(string(document), `\u001b]0;owned`) {
		t.Error("what was there is not in the document")
	}
}

// requests are counted: they depend on what there is, not on how many pods there are.
func TestGatherSurroundingsRequests(t *testing.T) {
	count := func(n int) map[string]int {
		pods, objs := shop(n)
		r := live(t, objs...)
		gather(t, r, pods)
		return r.asked
	}
	few, many := count(getAtMost+1), count(240) // fewer than a page, so that only the number of pods differs
	if diff := cmp.Diff(few, many); diff != "" {
		t.Errorf("requests for %d and for 240 pods (-few +many):\n%s", getAtMost+1, diff)
	}
	if many["list Event"] != 1 {
		t.Errorf("Events are listed %d times", many["list Event"])
	}
}

func BenchmarkGatherSurroundings(b *testing.B) {
	for _, n := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("pods=%d", n), func(b *testing.B) {
			pods, objs := shop(n)
			r := live(b, objs...)
			size := 0
			for b.Loop() {
				s, err := GatherSurroundings(context.Background(), r, "shop", pods, PolicyKinds{})
				if err != nil {
					b.Fatal(err)
				}
				document, err := Encode(s)
				if err != nil {
					b.Fatal(err)
				}
				size = len(document)
			}
			b.ReportMetric(float64(r.requests())/float64(b.N), "requests/op")
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
