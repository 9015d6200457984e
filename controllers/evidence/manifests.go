// Package evidence keeps what an investigator needs, before anything that would lose it happens.
package evidence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=configmaps,verbs=get;create

// manifestsKey is the key of the record in its ConfigMap.
const manifestsKey = "manifests.json.gz"

// maxRecord keeps a record below the 1 MiB that a ConfigMap may hold, in bytes, after compression.
const maxRecord = 900 << 10

// maxOwners bounds the walk up the owners; Kubernetes' own kinds have at most three levels.
const maxOwners = 8

// Record is what is kept of one pod: server-side state, before the operator changed anything about it.
type Record struct {
	// Pod is the pod with everything the API server knew, managedFields included: they say who changed what.
	Pod *corev1.Pod `json:"pod"`
	// Owners are the controllers of the pod, nearest first. An owner of a kind that the operator may not read is named, without content.
	Owners []json.RawMessage `json:"owners,omitempty"`
	// Events are the events about the pod.
	Events []corev1.Event `json:"events,omitempty"`
	// NetworkPolicies are the policies of the pod's namespace that were in force.
	NetworkPolicies []*networkingv1.NetworkPolicy `json:"networkPolicies,omitempty"`
}

// Gather reads the record of a pod. policies are the NetworkPolicies that selected it, as observed in the same pass.
func Gather(ctx context.Context, r client.Reader, pod *corev1.Pod, policies []*networkingv1.NetworkPolicy) (*Record, error) {
	owners, err := gatherOwners(ctx, r, pod)
	if err != nil {
		return nil, err
	}
	var events corev1.EventList
	byUID := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID))}
	if err := r.List(ctx, &events, client.InNamespace(pod.Namespace), byUID); err != nil {
		return nil, fmt.Errorf("listing the events of Pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return &Record{Pod: pod, Owners: owners, Events: events.Items, NetworkPolicies: policies}, nil
}

func gatherOwners(ctx context.Context, r client.Reader, pod *corev1.Pod) ([]json.RawMessage, error) {
	var out []json.RawMessage
	owner := metav1.GetControllerOf(pod)
	for i := 0; owner != nil && i < maxOwners; i++ {
		obj := ownerObject(owner)
		err := r.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: owner.Name}, obj)
		if unreadable(ctx, owner.APIVersion, err) {
			raw, merr := json.Marshal(map[string]any{"ownerReference": owner, "notRead": oneLine(err.Error())})
			return append(out, raw), merr
		}
		if err != nil {
			return nil, fmt.Errorf("reading owner %s %s/%s: %w", owner.Kind, pod.Namespace, owner.Name, err)
		}
		withoutData(obj)
		raw, err := json.Marshal(obj)
		if err != nil {
			return nil, fmt.Errorf("encoding owner %s %s/%s: %w", owner.Kind, pod.Namespace, owner.Name, err)
		}
		out = append(out, raw)
		owner = metav1.GetControllerOf(obj)
	}
	return out, nil
}

// ownerObject is what an owner is read into. Whoever makes a pod chooses what it says its owner is, so that a Secret must not come into the evidence as one: of kinds that hold data only the metadata is read.
func ownerObject(owner *metav1.OwnerReference) client.Object {
	gvk := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind)
	if holdsData(gvk) {
		obj := &metav1.PartialObjectMetadata{}
		obj.SetGroupVersionKind(gvk)
		return obj
	}
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(gvk)
	return obj
}

// holdsData reports whether objects of the kind hold data that are not for the evidence.
func holdsData(gvk schema.GroupVersionKind) bool {
	return gvk.Group == "" && (gvk.Kind == "Secret" || gvk.Kind == "ConfigMap")
}

// unreadable reports whether an object is to be named as not read rather than asked for again: it does not exist, or the operator may not read it, or whatever else the reason is, it is of an API that
// Kubernetes does not have of itself. Whoever makes a pod chooses what it says its owner is, and must not delay containment by naming an API whose server is down.
func unreadable(ctx context.Context, apiVersion string, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	group := schema.FromAPIVersionAndKind(apiVersion, "").Group
	return apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apimeta.IsNoMatchError(err) || !ownGroup(group)
}

// RecordName is the name of the ConfigMap that keeps a pod's record.
func RecordName(inc *v1alpha1.Incident, podUID string) string {
	return fmt.Sprintf("evidence-%s-%s", inc.UID, shortHash(podUID))
}

// ManifestsID is the ID of the manifests item of a pod.
func ManifestsID(podUID string) string { return "manifests-" + podUID }

// GapItem is an item that could not be had.
func GapItem(id string, kind v1alpha1.EvidenceType, subject v1alpha1.ObjectRef, pods []string, message string) v1alpha1.EvidenceItem {
	return v1alpha1.EvidenceItem{ID: id, Type: kind, Subject: subject, Pods: pods, State: v1alpha1.EvidenceGap, Message: message}
}

func shortHash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}
