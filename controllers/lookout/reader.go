package lookout

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// aheadAtOnce is how many objects are read at a time before the pass asks for them.
const aheadAtOnce = 8

// Reader reads for one pass over an Incident, and watches what it reads. It is for one goroutine, but for Changed.
type Reader struct {
	reader  client.Reader
	scheme  *runtime.Scheme
	lookout *Lookout
	of      types.NamespacedName
	// watched says whether objects of this type, or of this type of list, bring passes anyway.
	watched func(runtime.Object) bool
	waits   map[wait]bool
	blind   bool
	lists   map[string]listing

	mu sync.Mutex
	// got are the workloads that were read in this pass.
	got map[wait]reading
}

// reading is what a read of an object has yielded in this pass.
type reading struct {
	object client.Object
	err    error
}

// listing is what a list has yielded in this pass.
type listing struct {
	list client.ObjectList
	err  error
}

// Reader returns a reader for one pass over the Incident. Objects of types of which watched is true are not watched a second time.
func (l *Lookout) Reader(of types.NamespacedName, c client.Client, watched func(runtime.Object) bool) *Reader {
	return &Reader{reader: c, scheme: c.Scheme(), lookout: l, of: of, watched: watched, waits: map[wait]bool{}, lists: map[string]listing{}, got: map[wait]reading{}}
}

// Get watches the object, and reads it. A workload is read once in a pass, unless the pass has changed it since.
func (r *Reader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	w, _ := r.expect(obj, key.Namespace, key.Name)
	if !workload(w.kind) || len(opts) > 0 {
		return r.reader.Get(ctx, key, obj, opts...)
	}
	r.mu.Lock()
	known, again := r.got[w]
	r.mu.Unlock()
	if again && reflect.TypeOf(known.object) == reflect.TypeOf(obj) {
		if known.err == nil {
			reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(known.object.DeepCopyObject()).Elem())
		}
		return known.err
	}
	err := r.reader.Get(ctx, key, obj)
	if copied, ok := obj.DeepCopyObject().(client.Object); ok && (err == nil || apierrors.IsNotFound(err)) {
		r.mu.Lock()
		r.got[w] = reading{copied, err}
		r.mu.Unlock()
	}
	return err
}

// workload reports whether the kind is of those that run pods, of which a recovery may wait for many.
func workload(kind schema.GroupVersionKind) bool { return kind.Group == appsv1.GroupName }

// Changed says that the pass is changing, or has changed, the object: it is read anew.
func (r *Reader) Changed(kind, namespace, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.got {
		if w.kind.Kind == kind && w.namespace == namespace && w.name == name {
			delete(r.got, w)
		}
	}
}

// ReadAhead reads the workloads that the last pass over the Incident waited for, and others that are likely to be asked for, several at a time: this pass would ask for them one after the other.
func (r *Reader) ReadAhead(ctx context.Context, likely ...client.Object) {
	var group sync.WaitGroup
	slots := make(chan struct{}, aheadAtOnce)
	for w, obj := range r.ahead(likely) {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			// An error is none of the pass: it reads for itself then.
			if err := r.reader.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: w.name}, obj); err != nil {
				return
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got[w] = reading{object: obj}
		})
	}
	group.Wait()
}

// ahead are the workloads to be read ahead, empty. Each is watched before it is read.
func (r *Reader) ahead(likely []client.Object) map[wait]client.Object {
	out := map[wait]client.Object{}
	for _, obj := range likely {
		if w, _ := r.expect(obj, obj.GetNamespace(), obj.GetName()); workload(w.kind) {
			out[w] = obj
		}
	}
	for _, w := range r.lookout.waitsOf(r.of) {
		if !workload(w.kind) || w.name == "" || out[w] != nil {
			continue
		}
		if empty, err := r.scheme.New(w.kind); err == nil {
			if obj, ok := empty.(client.Object); ok {
				out[w] = obj
			}
		}
	}
	return out
}

// List watches whatever the list may come to hold, and reads it. The same list is read once in a pass, for all the steps that ask for it.
func (r *Reader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := client.ListOptions{}
	options.ApplyOptions(opts)
	key := fmt.Sprintf("%T %s %s %s", list, list.GetObjectKind().GroupVersionKind(), options.Namespace, options.AsListOptions())
	known, again := r.lists[key]
	if !again {
		if w, absent := r.expect(list, options.Namespace, ""); absent {
			return &apimeta.NoKindMatchError{GroupKind: w.kind.GroupKind(), SearchedVersions: []string{w.kind.Version}}
		}
		known.err = r.reader.List(ctx, list, opts...)
		known.list, _ = list.DeepCopyObject().(client.ObjectList)
		r.lists[key] = known
		return known.err
	}
	reflect.ValueOf(list).Elem().Set(reflect.ValueOf(known.list.DeepCopyObject()).Elem())
	return known.err
}

// expect says what is waited for, and whether the server was found not to serve the kind just now: there is nothing to be waited for then.
func (r *Reader) expect(obj runtime.Object, namespace, name string) (w wait, absent bool) {
	kind, err := apiutil.GVKForObject(obj, r.scheme)
	if err != nil {
		r.blind = true
		return w, false
	}
	kind.Kind = strings.TrimSuffix(kind.Kind, "List")
	w = wait{place{kind, namespace}, name}
	if r.watched(obj) {
		return w, false
	}
	r.waits[w] = true
	seen, absent := r.lookout.expect(r.of, w)
	// An object that is waited for may come once its kind is served. Where a step looks whether there is anything of a kind, there is nothing, and a pass comes by every minute.
	if !seen && (!absent || name != "") {
		r.blind = true
	}
	return w, absent
}

// Done says that the pass is over, and whether it takes no further look: every change of what it has read brings a pass.
func (r *Reader) Done() bool {
	r.lookout.keep(r.of, r.waits)
	return !r.blind
}
