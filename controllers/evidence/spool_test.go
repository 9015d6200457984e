package evidence

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const operatorNamespace = "cofferdam-system"

// noise is a document that does not get smaller by compression.
func noise(size int) []byte {
	out := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = source.Read(out)
	return out
}

func spooled(t *testing.T, name string, document []byte) []*corev1.ConfigMap {
	t.Helper()
	objects, err := SpoolObjects(incident(), operatorNamespace, name, SurroundingsMediaType, document)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestSpoolRoundTrip(t *testing.T) {
	cases := map[string]struct {
		size, objects int
	}{
		"small":            {size: 10, objects: 1},
		"just one chunk":   {size: maxRecord - 1000, objects: 1},
		"a little more":    {size: maxRecord + 1, objects: 3},
		"several":          {size: 3 * maxRecord, objects: 5},
		"the largest":      {size: maxDocument, objects: -1}, // packed only, for it takes long to store
		"too large":        {size: maxDocument + 1},
		"there is nothing": {size: 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			document := noise(tc.size)
			objects, err := SpoolObjects(incident(), operatorNamespace, "doc", SurroundingsMediaType, document)
			if (err != nil) != (tc.objects == 0) || errors.Is(err, ErrTooLarge) != (tc.size > maxDocument) {
				t.Fatalf("SpoolObjects() error = %v", err)
			}
			if tc.objects <= 0 {
				return
			}
			if len(objects) != tc.objects {
				t.Errorf("%d objects, want %d", len(objects), tc.objects)
			}
			c := clientOf()
			index, err := WriteSpool(context.Background(), c, objects)
			if err != nil || index.Name != "doc" {
				t.Fatalf("WriteSpool() = %v, %v", index, err)
			}
			for _, cm := range objects {
				checkSpoolObject(t, cm)
			}
			got, err := ReadSpool(context.Background(), c, operatorNamespace, "doc")
			if err != nil || !bytes.Equal(got, document) {
				t.Errorf("ReadSpool() = %d bytes, %v", len(got), err)
			}
		})
	}
}

// checkSpoolObject fails unless the API server takes the ConfigMap, nobody changes it, and it is found by its Incident, which does not own it.
func checkSpoolObject(t *testing.T, cm *corev1.ConfigMap) {
	t.Helper()
	if size := cm.Size(); size > 1<<20 {
		t.Errorf("ConfigMap %s has %d bytes", cm.Name, size)
	}
	if cm.Immutable == nil || !*cm.Immutable || cm.Labels[v1alpha1.IncidentUIDLabel] != "inc-uid" || cm.Labels[v1alpha1.EvidenceLabel] == "" || len(cm.OwnerReferences) > 0 {
		t.Errorf("ConfigMap %s: %v, immutable %v", cm.Name, cm.ObjectMeta, cm.Immutable)
	}
}

func clientOf(objs ...client.Object) client.WithWatch {
	return fake.NewClientBuilder().WithObjects(objs...).Build()
}

// The first index there is stands, and nothing more is written.
func TestWriteSpoolFirstStands(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "in chunks": 2 * maxRecord} {
		t.Run(name, func(t *testing.T) {
			c := clientOf()
			first, second := noise(size), noise(size+1)
			for _, document := range [][]byte{first, second} {
				if _, err := WriteSpool(context.Background(), c, spooled(t, "doc", document)); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := ReadSpool(context.Background(), c, operatorNamespace, "doc"); err != nil || !bytes.Equal(got, first) {
				t.Errorf("ReadSpool() = %d bytes, %v; want the first %d", len(got), err, len(first))
			}
			left, err := SweepSpool(context.Background(), c, operatorNamespace, "inc-uid", now)
			if err != nil || len(left) > 0 {
				t.Errorf("SweepSpool() = %d, %v", len(left), err)
			}
		})
	}
}

// A crash before any write leaves no document, then one when the same or another document is spooled again; chunks that nothing leads to are listed.
func TestWriteSpoolCrash(t *testing.T) {
	document, later := noise(3*maxRecord), noise(3*maxRecord+1)
	writes := len(spooled(t, "doc", document))
	for crash := range writes {
		for again, tc := range map[string]struct {
			next []byte
			left int
		}{"the same": {document, 0}, "another": {later, crash}} {
			t.Run(fmt.Sprintf("before write %d, then %s", crash, again), func(t *testing.T) {
				c := clientOf()
				crashBefore(t, c, crash, document)
				if _, err := WriteSpool(context.Background(), c, spooled(t, "doc", tc.next)); err != nil {
					t.Fatal(err)
				}
				if got, err := ReadSpool(context.Background(), c, operatorNamespace, "doc"); err != nil || !bytes.Equal(got, tc.next) {
					t.Errorf("ReadSpool() = %d bytes, %v", len(got), err)
				}
				left, err := SweepSpool(context.Background(), c, operatorNamespace, "inc-uid", now)
				if err != nil || len(left) != tc.left {
					t.Errorf("SweepSpool() = %d, %v; want %d", len(left), err, tc.left)
				}
			})
		}
	}
}

// crashBefore spools the document until that many writes are done, which leaves none.
func crashBefore(t *testing.T, inner client.WithWatch, crash int, document []byte) {
	t.Helper()
	n := 0
	c := interceptor.NewClient(inner, interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
		if n++; n > crash {
			return errors.New("crash")
		}
		return c.Create(ctx, obj, opts...)
	}})
	if _, err := WriteSpool(context.Background(), c, spooled(t, "doc", document)); err == nil {
		t.Fatal("WriteSpool() has not failed")
	}
	if _, err := ReadSpool(context.Background(), inner, operatorNamespace, "doc"); !errors.Is(err, ErrSpoolGone) {
		t.Fatalf("ReadSpool() = %v, want ErrSpoolGone", err)
	}
}

// What is found to be left over is not removed when another leader takes it over meanwhile: whatever happens first, the document is whole in the end.
func TestSweepSpoolWhileItIsTakenOver(t *testing.T) {
	document := noise(2 * maxRecord)
	c := clientOf()
	crashBefore(t, c, 2, document)
	left, err := SweepSpool(t.Context(), c, operatorNamespace, "inc-uid", now)
	if err != nil || len(left) != 2 {
		t.Fatalf("SweepSpool() = %d, %v, want two chunks", len(left), err)
	}
	// The first is removed before the other leader comes to it, the second after.
	remove := func(cm *metav1.PartialObjectMetadata) error {
		return c.Delete(t.Context(), cm, client.Preconditions{UID: &cm.UID, ResourceVersion: &cm.ResourceVersion})
	}
	if err := remove(&left[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteSpool(t.Context(), c, spooled(t, "doc", document)); err != nil {
		t.Fatal(err)
	}
	if err := remove(&left[1]); !apierrors.IsConflict(err) {
		t.Errorf("removing what is used again: %v, want a conflict", err)
	}
	if got, err := ReadSpool(t.Context(), c, operatorNamespace, "doc"); err != nil || !bytes.Equal(got, document) {
		t.Errorf("ReadSpool() = %d bytes, %v", len(got), err)
	}
}

// What is not the operator's, too young, or belongs to an index is not swept.
func TestSweepSpool(t *testing.T) {
	whole := spooled(t, "doc", noise(2*maxRecord))
	orphan := spooled(t, "doc", noise(2*maxRecord+1))[0]
	young := spooled(t, "doc", noise(2*maxRecord+2))[0]
	young.CreationTimestamp = metav1.NewTime(now.Add(time.Hour))
	// The same document of another Incident does not vouch for this one's chunk.
	other := incident()
	other.UID = "other-uid"
	twin, err := SpoolObjects(other, operatorNamespace, "doc-2", SurroundingsMediaType, noise(2*maxRecord+1))
	if err != nil {
		t.Fatal(err)
	}
	foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "foreign"}}
	lostIndex := spooled(t, "doc", noise(2*maxRecord+3))[0] // of a document that status, or the ledger, has the digest of
	takenOver := spooled(t, "doc", noise(2*maxRecord+4))[0]
	takenOver.Annotations[spooledAgainAnnotation] = now.Add(time.Minute).UTC().Format(time.RFC3339Nano)
	c := clientOf(orphan, young, foreign, lostIndex, takenOver)
	for _, cm := range append(whole, twin...) {
		if err := c.Create(context.Background(), cm); err != nil {
			t.Fatal(err)
		}
	}
	left, err := SweepSpool(context.Background(), c, operatorNamespace, "inc-uid", now, "", "sha256:short", digestOf(noise(2*maxRecord+3)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, cm := range left {
		names = append(names, cm.Name)
	}
	if diff := cmp.Diff([]string{orphan.Name}, names); diff != "" {
		t.Errorf("SweepSpool() (-want +got):\n%s", diff)
	}
}

func TestReadSpoolDamage(t *testing.T) {
	document := noise(2 * maxRecord)
	cases := map[string]struct {
		small  bool
		damage func(cms []*corev1.ConfigMap) []*corev1.ConfigMap
		want   error
		says   string
	}{
		"nothing is there": {damage: func([]*corev1.ConfigMap) []*corev1.ConfigMap { return nil }, want: ErrSpoolGone},
		"a chunk is gone":  {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap { return cms[1:] }, want: ErrSpoolGone},
		"a byte of a chunk is another": {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			cms[1].BinaryData[chunkKey][7] ^= 1
			return cms
		}, want: ErrSpoolDamaged, says: "-001 has another digest"},
		"a chunk is empty": {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			cms[0].BinaryData = nil
			return cms
		}, want: ErrSpoolDamaged},
		"chunks have other names, in the index too": {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			index := cms[len(cms)-1]
			a, b := cms[0].Name, cms[1].Name
			index.Data[spoolIndexKey] = strings.NewReplacer(a, b, b, a).Replace(index.Data[spoolIndexKey])
			cms[0].BinaryData, cms[1].BinaryData = cms[1].BinaryData, cms[0].BinaryData
			return cms
		}},
		"the digest of the whole is another": {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			index := cms[len(cms)-1]
			index.Data[spoolIndexKey] = strings.Replace(index.Data[spoolIndexKey], `"packedDigest":"sha256:`, `"packedDigest":"sha256:0`, 1)
			return cms
		}, want: ErrSpoolDamaged},
		"the index is not JSON": {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			cms[len(cms)-1].Data[spoolIndexKey] = "{"
			return cms
		}, want: ErrSpoolDamaged},
		"the index says nothing": {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			cms[len(cms)-1].Data[spoolIndexKey] = "{}"
			return cms
		}, want: ErrSpoolDamaged},
		"the index is missing": {damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			cms[len(cms)-1].Data = nil
			return cms
		}, want: ErrSpoolDamaged},
		"the small one is another": {small: true, damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			packed, err := pack([]byte("other"))
			if err != nil {
				panic(err)
			}
			cms[0].BinaryData["surroundings.json.gz"] = packed
			return cms
		}, want: ErrSpoolDamaged},
		"the small one is not compressed": {small: true, damage: func(cms []*corev1.ConfigMap) []*corev1.ConfigMap {
			cms[0].BinaryData["surroundings.json.gz"] = []byte("plain")
			return cms
		}, want: ErrSpoolDamaged},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			document := document
			if tc.small {
				document = document[:10]
			}
			var objs []client.Object
			for _, cm := range tc.damage(spooled(t, "doc", document)) {
				objs = append(objs, cm.DeepCopy())
			}
			got, err := ReadSpool(context.Background(), clientOf(objs...), operatorNamespace, "doc")
			if tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("ReadSpool() = %v, want it to say %q", err, tc.says)
			}
			if !errors.Is(err, tc.want) || tc.want == nil && !bytes.Equal(got, document) {
				t.Errorf("ReadSpool() = %d bytes, %v; want %v", len(got), err, tc.want)
			}
		})
	}
}

// An API server that does not answer says nothing about what is spooled.
func TestReadSpoolUnknown(t *testing.T) {
	down := interceptor.NewClient(clientOf(), interceptor.Funcs{Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
		return apierrors.NewServiceUnavailable("down")
	}})
	_, err := ReadSpool(context.Background(), down, operatorNamespace, "doc")
	if err == nil || errors.Is(err, ErrSpoolGone) || errors.Is(err, ErrSpoolDamaged) {
		t.Errorf("ReadSpool() = %v", err)
	}
	if _, err := WriteSpool(context.Background(), down, spooled(t, "doc", noise(2*maxRecord))); err == nil {
		t.Error("WriteSpool() writes though it does not know whether there is one")
	}
}

func TestWriteSpoolTakenChunk(t *testing.T) {
	objects := spooled(t, "doc", noise(2*maxRecord))
	taken := objects[1].DeepCopy()
	taken.BinaryData[chunkKey] = []byte("of somebody else")
	if _, err := WriteSpool(context.Background(), clientOf(taken), objects); !errors.Is(err, ErrSpoolDamaged) {
		t.Errorf("WriteSpool() = %v, want ErrSpoolDamaged", err)
	}
}

// Records of before there were indexes, and records of any size, are read alike.
func TestReadRecord(t *testing.T) {
	large := &Record{Pod: recordedPod()}
	large.Pod.Annotations = map[string]string{"noise": hex.EncodeToString(noise(2 * maxRecord))}
	small := &Record{Pod: recordedPod()}
	small.Owners, small.Events = []json.RawMessage{json.RawMessage(`{"kind":"ReplicaSet"}`)}, []corev1.Event{{Reason: "Started"}}
	small.NetworkPolicies = []*networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "allow-all"}}}
	old, _ := oldRecord(t, small)
	pack := func(r *Record) []*corev1.ConfigMap {
		objects, err := RecordObjects(incident(), operatorNamespace, r)
		if err != nil {
			t.Fatal(err)
		}
		return objects
	}
	cases := map[string]struct {
		objects []*corev1.ConfigMap
		want    *Record
	}{
		"of before":     {objects: []*corev1.ConfigMap{old}, want: small},
		"of now, small": {objects: pack(small), want: small},
		"of now, large": {objects: pack(large), want: large},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := clientOf()
			index, err := WriteSpool(context.Background(), c, tc.objects)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ReadRecord(context.Background(), c, operatorNamespace, RecordName(incident(), "pod-uid"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("ReadRecord() (-want +got):\n%s", diff)
			}
			checkSpooledItem(t, c, index)
		})
	}
}

// checkSpooledItem fails unless the item tells of the document that the index leads to.
func checkSpooledItem(t *testing.T, c client.Client, index *corev1.ConfigMap) {
	t.Helper()
	document, err := ReadSpool(context.Background(), c, operatorNamespace, index.Name)
	if err != nil {
		t.Fatal(err)
	}
	item, err := SpooledItem(index, "id", v1alpha1.EvidenceManifests, v1alpha1.ObjectRef{Kind: "Pod"}, []string{"pod-uid"}, now)
	if err != nil {
		t.Fatal(err)
	}
	want := v1alpha1.EvidenceItem{
		ID: "id", Type: v1alpha1.EvidenceManifests, Subject: v1alpha1.ObjectRef{Kind: "Pod"}, Pods: []string{"pod-uid"}, State: v1alpha1.EvidencePending,
		Location: "ConfigMap cofferdam-system/" + index.Name, Digest: digestOf(document), Size: int64(len(document)), TakenAt: metav1.NewTime(now),
		Message: "waits to be copied into the evidence store",
	}
	if diff := cmp.Diff(want, item); diff != "" {
		t.Errorf("SpooledItem() (-want +got):\n%s", diff)
	}
}

// What SweepSpool lists it lists by metadata, page by page.
func TestSweepSpoolPages(t *testing.T) {
	asked := 0
	c := interceptor.NewClient(clientOf(), interceptor.Funcs{List: func(_ context.Context, _ client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		var options client.ListOptions
		options.ApplyOptions(opts)
		page, ok := list.(*metav1.PartialObjectMetadataList)
		if !ok || options.Limit == 0 || options.Namespace != operatorNamespace {
			t.Errorf("asked for %T with %+v", list, options)
			return nil
		}
		if asked++; options.Continue == "" {
			page.Continue = "next"
		}
		return nil
	}})
	if _, err := SweepSpool(context.Background(), c, operatorNamespace, "inc-uid", now); err != nil || asked != 2 {
		t.Errorf("SweepSpool(): %d requests, %v", asked, err)
	}
	refused := interceptor.NewClient(clientOf(), interceptor.Funcs{List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "", nil)
	}})
	if _, err := SweepSpool(context.Background(), refused, operatorNamespace, "inc-uid", now); !apierrors.IsForbidden(err) {
		t.Errorf("SweepSpool() = %v", err)
	}
}
