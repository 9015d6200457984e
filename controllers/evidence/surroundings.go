package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// SurroundingsRecord is what is kept of what is around the pods of one namespace: objects as the API server had them, before the operator changed anything, and an account of what is missing.
type SurroundingsRecord struct {
	Namespace string `json:"namespace"`
	// Pods are the pods that this is around. Their own manifests are in the record of each.
	Pods []SurroundedPod `json:"pods"`
	// Objects are the objects, sorted by kind, namespace and name.
	Objects []json.RawMessage `json:"objects,omitempty"`
	// References are the Secrets and ConfigMaps that the pods, their accounts, their volumes and their Ingresses refer to.
	References []Reference `json:"references,omitempty"`
	// Metadata is the metadata of those that the operator may get. Values of annotations are left out, because they can repeat the data.
	Metadata []metav1.PartialObjectMetadata `json:"metadata,omitempty"`
	// Notes say what is not in here on purpose.
	Notes []string `json:"notes"`
	// Read says what was looked at, so that what is not in here is known not to have been there.
	Read []ListRead `json:"read,omitempty"`
	// NotRead says what could not be read, and why.
	NotRead []NotRead `json:"notRead,omitempty"`
	// LeftOut says how much there was beyond the bounds of the record.
	LeftOut []LeftOut `json:"leftOut,omitempty"`
	// Own names objects of the operator's own, of this Incident or of others, that were there already. They are not evidence.
	Own []ObjectName `json:"own,omitempty"`
}

// SurroundedPod is one of the pods that the surroundings are around.
type SurroundedPod struct {
	Name           string    `json:"name"`
	UID            types.UID `json:"uid"`
	Node           string    `json:"node,omitempty"`
	ServiceAccount string    `json:"serviceAccount"`
}

// ListRead says that the objects of a kind were listed.
type ListRead struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Namespace is empty for all namespaces, and for kinds that are in none.
	Namespace string `json:"namespace,omitempty"`
	// ResourceVersion is the state of the API server that was read.
	ResourceVersion string `json:"resourceVersion,omitempty"`
	LookedAt        int    `json:"lookedAt"`
	Kept            int    `json:"kept"`
}

// NotRead is an object, or if it has no name a kind of objects, that could not be read.
type NotRead struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name,omitempty"`
	Why        string `json:"why"`
}

// LeftOut counts objects beyond the bounds of the record.
type LeftOut struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Count     int    `json:"count"`
	Why       string `json:"why"`
}

// ObjectName names an object.
type ObjectName struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Namespace  string    `json:"namespace,omitempty"`
	Name       string    `json:"name"`
	UID        types.UID `json:"uid"`
}

// surroundingsNotes are in every record, for whoever reads it without this code.
var surroundingsNotes = []string{
	"The data of Secrets and ConfigMaps is never read, only who refers to which of them.",
	"The metadata of Secrets and ConfigMaps is read where the operator may get them. As installed it may not: RBAC cannot allow metadata alone, and whoever may get a Secret may read what is in it. " +
		"The ClusterRole cofferdam-evidence-metadata, bound in a namespace, allows it there.",
	"Environment variables, commands and annotations of workloads are part of their manifests and may contain secrets in clear text: treat this record as confidential.",
}

// gathering is the gathering of the surroundings of the pods of one namespace.
type gathering struct {
	*survey
	namespace string
	pods      []*corev1.Pod
	others    PolicyKinds
	labelSets []labels.Set
	refs      references
}

// GatherSurroundings reads what is around the pods of one namespace, once for all of them: the number of requests does not grow with the number of pods. Pods of other namespaces are disregarded.
//
// The reader has to read live, from no cache: pages are asked for with Limit and Continue, Secrets and ConfigMaps by their metadata, and what a cache holds is but a part. What the operator may not read, or
// the API server does not know, is named in the record; any other failure of the API server is an error, and there is no record.
func GatherSurroundings(ctx context.Context, reader client.Reader, namespace string, pods []*corev1.Pod, others PolicyKinds) (*SurroundingsRecord, error) {
	g := &gathering{survey: newSurvey(reader), namespace: namespace, others: others, refs: references{by: map[referenceKey]map[string]bool{}}}
	for _, pod := range pods {
		if pod.Namespace == namespace {
			g.pods = append(g.pods, pod)
		}
	}
	slices.SortFunc(g.pods, func(a, b *corev1.Pod) int {
		return compareKeys(client.ObjectKeyFromObject(a), client.ObjectKeyFromObject(b))
	})
	g.labelSets = labelSets(g.pods)
	// What an investigator needs most comes first: the room in the record may not do for everything.
	for _, gather := range []func(context.Context) error{g.workloads, g.network, g.rights, g.volumes, g.place, g.policies} {
		if err := gather(ctx); err != nil {
			return nil, err
		}
	}
	for _, pod := range g.pods {
		g.refs.addPod(pod)
	}
	g.leave("references", g.namespace, g.refs.over, "there are more references to Secrets and ConfigMaps than are kept")
	metadata, err := g.metadata(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.events(ctx); err != nil {
		return nil, err
	}
	out := g.document()
	out.Metadata = metadata
	return out, nil
}

func (g *gathering) document() *SurroundingsRecord {
	out := &SurroundingsRecord{Namespace: g.namespace, Pods: []SurroundedPod{}, References: g.refs.list(), Notes: surroundingsNotes}
	for _, pod := range g.pods {
		out.Pods = append(out.Pods, SurroundedPod{Name: pod.Name, UID: pod.UID, Node: pod.Spec.NodeName, ServiceAccount: accountOf(pod)})
	}
	for _, key := range slices.SortedFunc(maps.Keys(g.kept), objectKey.compare) {
		out.Objects = append(out.Objects, g.kept[key].raw)
	}
	for _, key := range slices.SortedFunc(maps.Keys(g.read), readKey.compare) {
		out.Read = append(out.Read, *g.read[key])
	}
	for _, key := range slices.SortedFunc(maps.Keys(g.notRead), objectKey.compare) {
		out.NotRead = append(out.NotRead, NotRead{APIVersion: key.apiVersion, Kind: key.kind, Namespace: key.namespace, Name: key.name, Why: g.notRead[key]})
	}
	for _, key := range slices.SortedFunc(maps.Keys(g.leftOut), readKey.compare) {
		out.LeftOut = append(out.LeftOut, *g.leftOut[key])
	}
	for _, key := range slices.SortedFunc(maps.Keys(g.own), objectKey.compare) {
		out.Own = append(out.Own, ObjectName{APIVersion: key.apiVersion, Kind: key.kind, Namespace: key.namespace, Name: key.name, UID: g.own[key]})
	}
	return out
}

// SurroundingsID is the ID of the surroundings item of a namespace.
func SurroundingsID(namespace string) string { return "surroundings-" + namespace }

// SurroundingsObjects packs surroundings for WriteSpool.
func SurroundingsObjects(inc *v1alpha1.Incident, operatorNamespace string, surroundings *SurroundingsRecord) ([]*corev1.ConfigMap, error) {
	document, err := Encode(surroundings)
	if err != nil {
		return nil, fmt.Errorf("encoding the surroundings in namespace %s: %w", surroundings.Namespace, err)
	}
	return SpoolObjects(inc, operatorNamespace, SurroundingsName(inc, surroundings.Namespace), SurroundingsMediaType, document)
}

// labelSets are the distinct labels of the pods, and those that they had before another Incident detached them.
func labelSets(pods []*corev1.Pod) []labels.Set {
	distinct := map[string]labels.Set{}
	for _, pod := range pods {
		sets := []labels.Set{pod.Labels}
		if original, err := measure.OriginalOf(pod); err == nil && original != nil {
			sets = append(sets, original.Labels)
		}
		for _, set := range sets {
			distinct[set.String()] = set
		}
	}
	out := make([]labels.Set, 0, len(distinct))
	for _, set := range distinct {
		out = append(out, set)
	}
	return out
}

// selects reports whether the selector selects one of the pods.
func (g *gathering) selects(selector labels.Selector) bool {
	return slices.ContainsFunc(g.labelSets, func(set labels.Set) bool { return selector.Matches(set) })
}

func accountOf(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

func kindIn(group, version, name string) kind {
	return kind{GroupVersionKind: schema.GroupVersionKind{Group: group, Version: version, Kind: name}}
}

// clusterKind is a kind outside of namespaces. All that are read have reached v1.
func clusterKind(group, name string) kind {
	k := kindIn(group, "v1", name)
	k.cluster = true
	return k
}

func guardedKind(group, version, name string) kind {
	k := kindIn(group, version, name)
	k.guarded = true
	return k
}
