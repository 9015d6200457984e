package evidence

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=configmaps,verbs=get;list;create;update

// Media types of what is spooled.
const (
	// RecordMediaType is that of the record of one pod.
	RecordMediaType = "application/vnd.cofferdam.manifests+json"
	// SurroundingsMediaType is that of the surroundings of the pods of one namespace.
	SurroundingsMediaType = "application/vnd.cofferdam.surroundings+json"
)

// SpoolLabel has the same value on every part of one spooled document: the beginning of the document's digest.
const SpoolLabel = "containment.cofferdam.dev/evidence-document"

// spooledAgainAnnotation is on chunks of a pass that died, and says when another pass has begun to use them.
const spooledAgainAnnotation = "containment.cofferdam.dev/spooled-again"

const (
	// spoolIndexKey is the key of the index in its ConfigMap.
	spoolIndexKey = "index.json"
	// chunkKey is the key of the content of a chunk.
	chunkKey = "chunk"
	// chunkKind is the value of EvidenceLabel on chunks.
	chunkKind = "chunk"
	// maxDocument bounds what is spooled, in bytes before compression.
	maxDocument = 64 << 20
	// spoolPage is how many ConfigMaps are listed at a time, by their metadata.
	spoolPage = 500
)

var (
	// ErrSpoolGone says that a spooled document, or a part of it, is not there.
	ErrSpoolGone = errors.New("the spooled evidence is gone")
	// ErrSpoolDamaged says that a spooled document is not what was spooled.
	ErrSpoolDamaged = errors.New("the spooled evidence is damaged")
	// ErrTooLarge says that a document cannot be spooled, however often that is tried.
	ErrTooLarge = errors.New("it is larger than can be kept")
)

// spoolIndex says what was spooled.
type spoolIndex struct {
	MediaType string `json:"mediaType"`
	// Digest and Size are of the document, before compression.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// PackedDigest is of the document compressed with gzip, all chunks together.
	PackedDigest string `json:"packedDigest"`
	// Chunks has the parts in their order; none when the index's own ConfigMap has the document.
	Chunks []spoolChunk `json:"chunks,omitempty"`
}

type spoolChunk struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// SurroundingsName is the name of the ConfigMap that has the surroundings of the Incident's pods in a namespace, or their index.
func SurroundingsName(inc *v1alpha1.Incident, namespace string) string {
	return fmt.Sprintf("surroundings-%s-%s", inc.UID, shortHash(namespace))
}

// SpoolObjects packs a document, not empty and at most 64 MiB, into immutable ConfigMaps of the operator's namespace, out of reach of the namespaces that it is about. They are to be created in the order
// in which they are returned. The last one has the given name and is the index: there is no document before it is there, and the first index there is stands (see WriteSpool). A document that fits has no
// other. None has an owner reference: evidence outlives the Incident.
func SpoolObjects(inc *v1alpha1.Incident, operatorNamespace, name, mediaType string, document []byte) ([]*corev1.ConfigMap, error) {
	switch {
	case len(document) == 0:
		return nil, fmt.Errorf("spooling %s: there is nothing to spool", name)
	case len(document) > maxDocument:
		return nil, fmt.Errorf("%w: it has %d bytes, and at most %d can be kept", ErrTooLarge, len(document), maxDocument)
	}
	packed, err := pack(document)
	if err != nil {
		return nil, fmt.Errorf("compressing %s: %w", name, err)
	}
	index := spoolIndex{MediaType: mediaType, Digest: digestOf(document), Size: int64(len(document)), PackedDigest: digestOf(packed)}
	base := func(name, kind string) *corev1.ConfigMap {
		labels := measure.OwnedLabels(inc)
		labels[v1alpha1.EvidenceLabel] = kind
		labels[SpoolLabel] = documentLabel(index.Digest)
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name, Labels: labels, Annotations: measure.OwnedAnnotations(inc)},
			Immutable:  new(true),
		}
	}
	kind := spoolKind(mediaType)
	last := base(name, kind)
	var out []*corev1.ConfigMap
	if len(packed) <= maxRecord {
		last.BinaryData = map[string][]byte{kind + ".json.gz": packed}
	} else {
		for part := range slices.Chunk(packed, maxRecord) {
			chunk := base(fmt.Sprintf("evidence-%s-%s-%03d", inc.UID, documentLabel(index.Digest), len(out)), chunkKind)
			chunk.BinaryData = map[string][]byte{chunkKey: part}
			index.Chunks = append(index.Chunks, spoolChunk{Name: chunk.Name, Digest: digestOf(part)})
			out = append(out, chunk)
		}
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("encoding the index of %s: %w", name, err)
	}
	last.Data = map[string]string{spoolIndexKey: string(raw)}
	return append(out, last), nil
}

// spoolKind names the content after its media type: it is the value of EvidenceLabel and what the key of the content begins with.
func spoolKind(mediaType string) string {
	switch mediaType {
	case RecordMediaType:
		return "manifests"
	case SurroundingsMediaType:
		return "surroundings"
	}
	return "document"
}

func documentLabel(digest string) string { return strings.TrimPrefix(digest, "sha256:")[:32] }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// packers are used again: each has most of a megabyte, which to get and to clear for every record takes longer than to compress one.
var packers sync.Pool

func pack(document []byte) ([]byte, error) {
	var packed bytes.Buffer
	zip, used := packers.Get().(*gzip.Writer)
	if used {
		zip.Reset(&packed)
	} else {
		zip = gzip.NewWriter(&packed)
	}
	defer func() {
		zip.Reset(io.Discard) // so that the document is not held on to
		packers.Put(zip)
	}()
	if _, err := zip.Write(document); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// TakeOver is told of a chunk that a pass has left that died, before it is marked as one that is used after all.
type TakeOver func(ctx context.Context, chunk *corev1.ConfigMap)

// WriteSpool creates what SpoolObjects returned, and returns the index as the API server has it. When there is an index of that name already, that one is returned and nothing is written: a pass that
// died before it wrote status has stored it, and the first record is nearest to the untouched pods. A crash in between leaves chunks that nothing names; SweepSpool finds them.
//
// Whoever has to know of it is told before a chunk that is there already is changed.
func WriteSpool(ctx context.Context, c client.Client, objects []*corev1.ConfigMap, takeOver ...TakeOver) (*corev1.ConfigMap, error) {
	index := objects[len(objects)-1]
	key := client.ObjectKeyFromObject(index)
	if len(objects) > 1 {
		var found corev1.ConfigMap
		switch err := c.Get(ctx, key, &found); {
		case err == nil:
			return &found, nil
		case !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("reading ConfigMap %s: %w", key, err)
		}
	}
	for _, chunk := range objects[:len(objects)-1] {
		if err := writeChunk(ctx, c, chunk, takeOver); err != nil {
			return nil, fmt.Errorf("creating ConfigMap %s: %w", client.ObjectKeyFromObject(chunk), err)
		}
	}
	got := index.DeepCopy()
	err := c.Create(ctx, got)
	if apierrors.IsAlreadyExists(err) {
		err = c.Get(ctx, key, got)
	}
	if err != nil {
		return nil, fmt.Errorf("creating ConfigMap %s: %w", key, err)
	}
	return got, nil
}

// writeChunk creates a chunk, or takes over one that a pass has left that died. That one is marked: whoever has found before that nothing leads to it, and is about to remove it, removes another version.
func writeChunk(ctx context.Context, c client.Client, want *corev1.ConfigMap, takeOver []TakeOver) error {
	err := c.Create(ctx, want.DeepCopy())
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	var got corev1.ConfigMap
	if err := c.Get(ctx, client.ObjectKeyFromObject(want), &got); err != nil {
		return err
	}
	if !bytes.Equal(got.BinaryData[chunkKey], want.BinaryData[chunkKey]) {
		// The name has the digest in it, so nobody has this by accident.
		return fmt.Errorf("there is one with another content: %w", ErrSpoolDamaged)
	}
	for _, tell := range takeOver {
		tell(ctx, &got)
	}
	if got.Annotations == nil {
		got.Annotations = map[string]string{}
	}
	got.Annotations[spooledAgainAnnotation] = time.Now().UTC().Format(time.RFC3339Nano)
	return c.Update(ctx, &got)
}

// ReadSpool returns the document that was spooled under the name, once all its digests have been checked. The error is ErrSpoolGone or ErrSpoolDamaged when there is no more to be had; with any other it
// could not be found out.
func ReadSpool(ctx context.Context, r client.Reader, operatorNamespace, name string) ([]byte, error) {
	document, _, err := readSpool(ctx, r, operatorNamespace, name)
	return document, err
}

// readSpool also returns the digest of the compressed document, by which status of older Incidents knows a record.
func readSpool(ctx context.Context, r client.Reader, namespace, name string) (document []byte, packedDigest string, err error) {
	cm, err := readPart(ctx, r, namespace, name)
	if err != nil {
		return nil, "", err
	}
	index, err := indexOf(cm)
	if err != nil {
		return nil, "", err
	}
	packed := contentOf(cm)
	if len(index.Chunks) > 0 {
		if packed, err = readChunks(ctx, r, namespace, index.Chunks); err != nil {
			return nil, "", err
		}
	}
	if index.PackedDigest != "" && digestOf(packed) != index.PackedDigest {
		return nil, "", fmt.Errorf("%w: what ConfigMap %s/%s leads to has another digest than it says", ErrSpoolDamaged, namespace, name)
	}
	if document, err = unpackDocument(packed); err != nil {
		return nil, "", fmt.Errorf("%w: unpacking ConfigMap %s/%s: %w", ErrSpoolDamaged, namespace, name, err)
	}
	if index.Digest != "" && digestOf(document) != index.Digest {
		return nil, "", fmt.Errorf("%w: the document in ConfigMap %s/%s has another digest than it says", ErrSpoolDamaged, namespace, name)
	}
	return document, digestOf(packed), nil
}

func readPart(ctx context.Context, r client.Reader, namespace, name string) (*corev1.ConfigMap, error) {
	var cm corev1.ConfigMap
	err := r.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &cm)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: there is no ConfigMap %s/%s", ErrSpoolGone, namespace, name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading ConfigMap %s/%s: %w", namespace, name, err)
	}
	return &cm, nil
}

// indexOf returns the index in the ConfigMap. Records that were made before there were indexes have none; their content has to speak for itself.
func indexOf(cm *corev1.ConfigMap) (spoolIndex, error) {
	raw, ok := cm.Data[spoolIndexKey]
	if !ok && len(cm.BinaryData[manifestsKey]) > 0 {
		return spoolIndex{MediaType: RecordMediaType}, nil
	}
	var index spoolIndex
	if err := json.Unmarshal([]byte(raw), &index); err != nil {
		return index, fmt.Errorf("%w: the index in ConfigMap %s/%s cannot be read: %w", ErrSpoolDamaged, cm.Namespace, cm.Name, err)
	}
	if index.Digest == "" || index.PackedDigest == "" {
		return index, fmt.Errorf("%w: the index in ConfigMap %s/%s has no digest", ErrSpoolDamaged, cm.Namespace, cm.Name)
	}
	return index, nil
}

// contentOf returns the compressed document of a ConfigMap that has all of it.
func contentOf(cm *corev1.ConfigMap) []byte {
	for _, mediaType := range []string{RecordMediaType, SurroundingsMediaType, ""} {
		if content, ok := cm.BinaryData[spoolKind(mediaType)+".json.gz"]; ok {
			return content
		}
	}
	return nil
}

func readChunks(ctx context.Context, r client.Reader, namespace string, chunks []spoolChunk) ([]byte, error) {
	if len(chunks) > maxDocument/maxRecord+1 {
		return nil, fmt.Errorf("%w: the index names %d chunks", ErrSpoolDamaged, len(chunks))
	}
	var packed []byte
	for _, chunk := range chunks {
		cm, err := readPart(ctx, r, namespace, chunk.Name)
		if err != nil {
			return nil, err
		}
		part := cm.BinaryData[chunkKey]
		if digestOf(part) != chunk.Digest {
			return nil, fmt.Errorf("%w: chunk ConfigMap %s/%s has another digest than the index says", ErrSpoolDamaged, namespace, chunk.Name)
		}
		packed = append(packed, part...)
	}
	return packed, nil
}

// unpackDocument is bounded against what somebody else may have put there.
func unpackDocument(packed []byte) ([]byte, error) {
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	document, err := io.ReadAll(io.LimitReader(zip, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(document) > maxDocument {
		return nil, fmt.Errorf("it is larger than %d bytes", maxDocument)
	}
	return document, nil
}

// SweepSpool lists the chunks of an Incident, written before the given time, that no index belongs to: what was left by passes that died. Those of the documents whose digests are given are left out: whoever
// knows of a document may still want its parts, even if its index is lost. Only metadata is read. The time has to leave whoever is writing a document enough to come to its index. A chunk may be removed only
// in the version that is listed.
func SweepSpool(ctx context.Context, r client.Reader, operatorNamespace, incidentUID string, before time.Time, known ...string) ([]metav1.PartialObjectMetadata, error) {
	whole := map[string]bool{}
	for _, digest := range known {
		if text := strings.TrimPrefix(digest, "sha256:"); len(text) == sha256.Size*2 {
			whole[documentLabel(digest)] = true
		}
	}
	var chunks []metav1.PartialObjectMetadata
	opts := &client.ListOptions{Namespace: operatorNamespace, Limit: spoolPage}
	client.MatchingLabels{v1alpha1.IncidentUIDLabel: incidentUID}.ApplyToList(opts)
	client.HasLabels{SpoolLabel, v1alpha1.EvidenceLabel}.ApplyToList(opts)
	for {
		var page metav1.PartialObjectMetadataList
		page.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
		if err := r.List(ctx, &page, opts); err != nil {
			return nil, fmt.Errorf("listing spooled evidence in namespace %s: %w", operatorNamespace, err)
		}
		for i := range page.Items {
			cm := &page.Items[i]
			switch {
			case cm.Labels[v1alpha1.EvidenceLabel] != chunkKind:
				whole[cm.Labels[SpoolLabel]] = true
			case writtenAt(cm).Before(before):
				chunks = append(chunks, *cm)
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	return slices.DeleteFunc(chunks, func(cm metav1.PartialObjectMetadata) bool { return whole[cm.Labels[SpoolLabel]] }), nil
}

// writtenAt is when a chunk was written, or taken over.
func writtenAt(cm *metav1.PartialObjectMetadata) time.Time {
	if again, err := time.Parse(time.RFC3339Nano, cm.Annotations[spooledAgainAnnotation]); err == nil && again.After(cm.CreationTimestamp.Time) {
		return again
	}
	return cm.CreationTimestamp.Time
}

// SpooledItem is the pending item for a document whose index was read back from the API server. Its digest and size are of the document, and are what the store has to confirm.
func SpooledItem(index *corev1.ConfigMap, id string, kind v1alpha1.EvidenceType, subject v1alpha1.ObjectRef, pods []string, taken time.Time) (v1alpha1.EvidenceItem, error) {
	read, err := indexOf(index)
	if err != nil {
		return v1alpha1.EvidenceItem{}, err
	}
	if read.Digest == "" {
		document, err := unpackDocument(contentOf(index))
		if err != nil {
			return v1alpha1.EvidenceItem{}, fmt.Errorf("%w: unpacking ConfigMap %s/%s: %w", ErrSpoolDamaged, index.Namespace, index.Name, err)
		}
		read.Digest, read.Size = digestOf(document), int64(len(document))
	}
	return v1alpha1.EvidenceItem{
		ID: id, Type: kind, Subject: subject, Pods: pods, State: v1alpha1.EvidencePending, Digest: read.Digest, Size: read.Size, TakenAt: metav1.NewTime(taken),
		Location: fmt.Sprintf("ConfigMap %s/%s", index.Namespace, index.Name), Message: "waits to be copied into the evidence store",
	}, nil
}

// RecordObjects packs the record of a pod for WriteSpool.
func RecordObjects(inc *v1alpha1.Incident, operatorNamespace string, record *Record) ([]*corev1.ConfigMap, error) {
	document, err := Encode(record)
	if err != nil {
		return nil, fmt.Errorf("encoding the record of Pod %s/%s: %w", record.Pod.Namespace, record.Pod.Name, err)
	}
	return SpoolObjects(inc, operatorNamespace, RecordName(inc, string(record.Pod.UID)), RecordMediaType, document)
}

// ReadRecord reads the record of a pod that was spooled, of whatever size. Errors are those of ReadSpool.
func ReadRecord(ctx context.Context, r client.Reader, operatorNamespace, name string) (*Record, error) {
	document, err := ReadSpool(ctx, r, operatorNamespace, name)
	if err != nil {
		return nil, err
	}
	var record Record
	if err := json.Unmarshal(document, &record); err != nil {
		return nil, fmt.Errorf("%w: reading the record in ConfigMap %s/%s: %w", ErrSpoolDamaged, operatorNamespace, name, err)
	}
	return &record, nil
}
