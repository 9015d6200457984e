package evidence

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Bounds of one survey. What is beyond them is counted.
const (
	// surveyPage is how many objects are listed at a time.
	surveyPage = 250
	// maxPages bounds one list: 100,000 objects are looked at.
	maxPages = 400
	// maxKept and maxListBytes bound what is kept of one list, in objects and in bytes of JSON, so that no kind takes the room of the others.
	maxKept      = 5000
	maxListBytes = 6 << 20
	// maxKeptBytes bounds what is kept of all kinds together, in bytes of JSON.
	maxKeptBytes = 16 << 20
	// maxNotRead bounds what is named as not read.
	maxNotRead = 5000
	// getAtMost is how many objects are read one by one; more are looked for in a list, so that the number of requests does not grow with that of the pods.
	getAtMost = 16
	// maxRestarts is how often a list is begun anew when it took so long that the API server does not remember its beginning.
	maxRestarts = 3
)

// kind is a kind of objects, as it is read.
type kind struct {
	schema.GroupVersionKind
	// cluster says that its objects are in no namespace.
	cluster bool
	// guarded says that the guard lets nobody but the operator put its label on such objects.
	guarded bool
	// foreign says that somebody else has named it, and that it may be of an API whose server is down or strange: then it is done without, whatever the error.
	foreign bool
}

// survey reads objects as the API server has them, in bounds, and keeps account of what was looked at, not read, and left out.
type survey struct {
	reader client.Reader

	kept    map[objectKey]keptObject
	size    int
	read    map[readKey]*ListRead
	notRead map[objectKey]string
	leftOut map[readKey]*LeftOut
	own     map[objectKey]types.UID
}

type objectKey struct{ apiVersion, kind, namespace, name string }

type readKey struct{ kind, namespace string }

type keptObject struct {
	raw json.RawMessage
	uid types.UID
}

func newSurvey(reader client.Reader) *survey {
	return &survey{
		reader: reader, kept: map[objectKey]keptObject{}, read: map[readKey]*ListRead{}, notRead: map[objectKey]string{}, leftOut: map[readKey]*LeftOut{},
		own: map[objectKey]types.UID{},
	}
}

func keyOf(obj *unstructured.Unstructured) objectKey {
	return objectKey{obj.GetAPIVersion(), obj.GetKind(), obj.GetNamespace(), obj.GetName()}
}

// list looks at every object of the kind, in the namespace or, if it is "", in all of them, and keeps those that want returns true for. It returns what it has kept, in the order of the API server. The rest
// is forgotten page by page, so that memory does not grow with the cluster.
func (s *survey) list(ctx context.Context, k kind, namespace string, want func(*unstructured.Unstructured) bool, opts ...client.ListOption) ([]*unstructured.Unstructured, error) {
	for restart := 0; ; restart++ {
		l := listing{ListRead: ListRead{Kind: k.Kind, APIVersion: k.GroupVersion().String(), Namespace: namespace}}
		err := s.listOnce(ctx, k, &l, want, opts)
		if apierrors.IsResourceExpired(err) && restart < maxRestarts {
			continue
		}
		if err != nil && !s.tolerates(ctx, k, namespace, err) {
			return nil, fmt.Errorf("listing objects of kind %s in %s: %w", k.Kind, cmp.Or(namespace, "all namespaces"), err)
		}
		if err == nil {
			s.account(&l)
		}
		return l.kept, nil
	}
}

// listing is one list under way.
type listing struct {
	ListRead
	kept          []*unstructured.Unstructured
	bytes         int
	over, notSeen int
}

func (s *survey) listOnce(ctx context.Context, k kind, l *listing, want func(*unstructured.Unstructured) bool, opts []client.ListOption) error {
	options := &client.ListOptions{Namespace: l.Namespace, Limit: surveyPage}
	options.ApplyOptions(opts)
	for pages := 1; ; pages++ {
		var page unstructured.UnstructuredList
		page.SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind + "List"))
		if err := s.reader.List(ctx, &page, options); err != nil {
			return err
		}
		l.ResourceVersion = cmp.Or(l.ResourceVersion, page.GetResourceVersion())
		l.LookedAt += len(page.Items)
		for i := range page.Items {
			// A copy, because a pointer into the page would keep all of it.
			if obj := page.Items[i]; want(&obj) {
				s.take(k, l, &obj)
			}
		}
		options.Continue = page.GetContinue()
		if options.Continue != "" && pages == maxPages {
			l.notSeen = remaining(page.GetRemainingItemCount())
			return nil
		}
		if options.Continue == "" {
			return nil
		}
	}
}

func (s *survey) take(k kind, l *listing, obj *unstructured.Unstructured) {
	if s.ours(k, obj) {
		return
	}
	size, ok := 0, false
	if len(l.kept) < maxKept && l.bytes < maxListBytes {
		size, ok = s.keep(k, obj)
	}
	if !ok {
		l.over++
		return
	}
	l.bytes += size
	l.kept = append(l.kept, obj)
}

// account notes what came of a list; a kind may be listed more than once, for different reasons.
func (s *survey) account(l *listing) {
	l.Kept = len(l.kept)
	what := readKey{l.Kind + " " + l.APIVersion, l.Namespace} // several APIs have a NetworkPolicy
	if before := s.read[what]; before != nil {
		l.Kept += before.Kept
	}
	s.read[what] = &l.ListRead
	s.leave(l.Kind, l.Namespace, l.over, "more was found than is kept")
	s.leave(l.Kind, l.Namespace, l.notSeen, fmt.Sprintf("not looked at: there are more than %d", maxPages*surveyPage))
}

// remaining is how many objects there are besides; the API server need not know it, but there is at least one.
func remaining(count *int64) int {
	if count == nil {
		return 1
	}
	return int(*count)
}

// ours reports whether the object is one of the operator's own. Those are named and no more: they are not part of how things were. It goes by the label only for kinds on which the guard lets nobody else put
// it; otherwise the label would be a way to stay out of the evidence.
func (s *survey) ours(k kind, obj *unstructured.Unstructured) bool {
	obj.SetGroupVersionKind(k.GroupVersionKind)
	_, labelled := obj.GetLabels()[v1alpha1.IncidentUIDLabel]
	if k.guarded && labelled {
		s.own[keyOf(obj)] = obj.GetUID()
		return true
	}
	return false
}

// keep keeps an object whole, managedFields included: they say who changed what. Of an object that is kept already the first reading stands. It returns the size in bytes of JSON, and false when there is no
// room left.
func (s *survey) keep(k kind, obj *unstructured.Unstructured) (int, bool) {
	obj.SetGroupVersionKind(k.GroupVersionKind)
	key := keyOf(obj)
	if _, kept := s.kept[key]; kept {
		return 0, true
	}
	raw, err := json.Marshal(obj)
	if err != nil || s.size+len(raw) > maxKeptBytes {
		return 0, false
	}
	s.size += len(raw)
	s.kept[key] = keptObject{raw: raw, uid: obj.GetUID()}
	return len(raw), true
}

func (s *survey) leave(kind, namespace string, count int, why string) {
	if count == 0 {
		return
	}
	what := readKey{kind, namespace}
	if s.leftOut[what] == nil {
		s.leftOut[what] = &LeftOut{Kind: kind, Namespace: namespace, Why: why}
	}
	s.leftOut[what].Count += count
}

// tolerates reports whether a kind is done without, and then says so in the record: the operator may not list it, or the API is not served.
func (s *survey) tolerates(ctx context.Context, k kind, namespace string, err error) bool {
	var why string
	switch {
	case apierrors.IsForbidden(err):
		why = "forbidden"
	case apimeta.IsNoMatchError(err), apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		why = "the API server does not serve it"
	case k.foreign && ctx.Err() == nil:
		why = oneLine(err.Error())
	default:
		return false
	}
	s.notRead[objectKey{k.GroupVersion().String(), k.Kind, namespace, ""}] = why
	return true
}

// named keeps the objects with these names: one by one when they are few, otherwise out of a list. Those that are not there, or not readable, are named in the record. It returns what it has found.
func (s *survey) named(ctx context.Context, k kind, names []client.ObjectKey) ([]*unstructured.Unstructured, error) {
	wanted := map[client.ObjectKey]bool{}
	for _, name := range names {
		if k.cluster {
			name.Namespace = ""
		}
		wanted[name] = true
	}
	for key := range s.kept { // what is there already is not read twice
		if key.kind == k.Kind && key.apiVersion == k.GroupVersion().String() {
			delete(wanted, client.ObjectKey{Namespace: key.namespace, Name: key.name})
		}
	}
	delete(wanted, client.ObjectKey{})
	inOrder := slices.SortedFunc(maps.Keys(wanted), compareKeys)
	if len(inOrder) <= getAtMost {
		return s.oneByOne(ctx, k, inOrder)
	}
	namespace := inOrder[0].Namespace
	if inOrder[len(inOrder)-1].Namespace != namespace {
		namespace = ""
	}
	nameOf := func(obj *unstructured.Unstructured) client.ObjectKey {
		// Whether a kind that somebody else has named is in namespaces is seen when there is one.
		return client.ObjectKey{Namespace: cmp.Or(obj.GetNamespace(), namespace), Name: obj.GetName()}
	}
	out, err := s.list(ctx, k, namespace, func(obj *unstructured.Unstructured) bool { return wanted[nameOf(obj)] })
	if err != nil || s.notRead[objectKey{k.GroupVersion().String(), k.Kind, namespace, ""}] != "" || s.leftOut[readKey{k.Kind, namespace}] != nil {
		return out, err // what is missing then need not be absent
	}
	for _, obj := range out {
		delete(wanted, nameOf(obj))
	}
	for _, name := range slices.SortedFunc(maps.Keys(wanted), compareKeys) {
		s.missing(k, name, "not found")
	}
	return out, nil
}

// missing names an object that was not read, up to a bound: somebody may refer to any number of what is not there.
func (s *survey) missing(k kind, name client.ObjectKey, why string) {
	if len(s.notRead) >= maxNotRead {
		s.leave(k.Kind+" not read", name.Namespace, 1, "too many to be named")
		return
	}
	s.notRead[objectKey{k.GroupVersion().String(), k.Kind, name.Namespace, name.Name}] = why
}

func (s *survey) oneByOne(ctx context.Context, k kind, names []client.ObjectKey) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, name := range names {
		obj := &unstructured.Unstructured{}
		obj.SetGroupVersionKind(k.GroupVersionKind)
		err := s.reader.Get(ctx, name, obj)
		switch {
		case apierrors.IsNotFound(err):
			s.missing(k, name, "not found")
		case apierrors.IsForbidden(err):
			s.missing(k, name, "forbidden")
		case apimeta.IsNoMatchError(err):
			s.missing(k, name, "the API server does not serve the kind")
		case err != nil && k.foreign && ctx.Err() == nil:
			s.missing(k, name, oneLine(err.Error()))
		case err != nil:
			return nil, fmt.Errorf("reading %s %s: %w", k.Kind, name, err)
		case s.ours(k, obj):
		default:
			if _, ok := s.keep(k, obj); !ok {
				s.leave(k.Kind, name.Namespace, 1, "more was found than is kept")
				continue
			}
			out = append(out, obj)
		}
	}
	return out, nil
}

func compareKeys(a, b client.ObjectKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func (k objectKey) compare(other objectKey) int {
	return cmp.Or(cmp.Compare(k.kind, other.kind), cmp.Compare(k.namespace, other.namespace), cmp.Compare(k.name, other.name), cmp.Compare(k.apiVersion, other.apiVersion))
}

func (k readKey) compare(other readKey) int {
	return cmp.Or(cmp.Compare(k.kind, other.kind), cmp.Compare(k.namespace, other.namespace))
}

// as reads an object into a type of Kubernetes' own. Fields that the type does not know are not needed for the decision that it is read for; the record has them all.
func as[T any](obj *unstructured.Unstructured) *T {
	var out T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &out); err != nil {
		return new(T) // the API server has validated it: it is of a version that we do not know, and so selects nothing that we could tell
	}
	return &out
}

// ownedBy reports whether one of the UIDs is that of an owner of the object.
func ownedBy(obj metav1.Object, uids map[types.UID]bool) bool {
	return slices.ContainsFunc(obj.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return uids[ref.UID] })
}
