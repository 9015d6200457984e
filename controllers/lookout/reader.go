package lookout

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Reader reads for one pass over an Incident, and watches what it reads. It is for one goroutine.
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
}

// listing is what a list has yielded in this pass.
type listing struct {
	list client.ObjectList
	err  error
}

// Reader returns a reader for one pass over the Incident. Objects of types of which watched is true are not watched a second time.
func (l *Lookout) Reader(of types.NamespacedName, c client.Client, watched func(runtime.Object) bool) *Reader {
	return &Reader{reader: c, scheme: c.Scheme(), lookout: l, of: of, watched: watched, waits: map[wait]bool{}, lists: map[string]listing{}}
}

// Get watches the object, and reads it.
func (r *Reader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	r.expect(obj, key.Namespace, key.Name)
	return r.reader.Get(ctx, key, obj, opts...)
}

// List watches whatever the list may come to hold, and reads it. The same list is read once in a pass, for all the steps that ask for it.
func (r *Reader) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := client.ListOptions{}
	options.ApplyOptions(opts)
	key := fmt.Sprintf("%T %s %s %s", list, list.GetObjectKind().GroupVersionKind(), options.Namespace, options.AsListOptions())
	known, again := r.lists[key]
	if !again {
		r.expect(list, options.Namespace, "")
		known.err = r.reader.List(ctx, list, opts...)
		known.list, _ = list.DeepCopyObject().(client.ObjectList)
		r.lists[key] = known
		return known.err
	}
	reflect.ValueOf(list).Elem().Set(reflect.ValueOf(known.list.DeepCopyObject()).Elem())
	return known.err
}

func (r *Reader) expect(obj runtime.Object, namespace, name string) {
	if r.watched(obj) {
		return
	}
	kind, err := apiutil.GVKForObject(obj, r.scheme)
	if err != nil {
		r.blind = true
		return
	}
	kind.Kind = strings.TrimSuffix(kind.Kind, "List")
	w := wait{place{kind, namespace}, name}
	r.waits[w] = true
	if !r.lookout.expect(r.of, w) {
		r.blind = true
	}
}

// Done says that the pass is over, and whether it takes no further look: every change of what it has read brings a pass.
func (r *Reader) Done() bool {
	r.lookout.keep(r.of, r.waits)
	return !r.blind
}
