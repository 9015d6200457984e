// Package target finds out what an Incident's targets stand for: objects by UID, their pods and their compromised revisions.
package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets;daemonsets;replicasets;controllerrevisions,verbs=get;list
// +kubebuilder:rbac:groups=batch,resources=jobs;cronjobs,verbs=get;list

// Problem is a reason, for the Accepted condition, why targets cannot be contained. Only a person can help.
type Problem struct {
	// Reason is a reason of the Accepted condition.
	Reason string
	// Message names the object and the next thing to do.
	Message string
}

// Error returns the message.
func (p *Problem) Error() string { return p.Message }

// maxTargets is how many objects status.targets holds.
const maxTargets = 400

// Key identifies an entry of spec.targets by its content.
func Key(t v1alpha1.Target) string {
	raw, err := json.Marshal(t)
	if err != nil {
		panic(fmt.Sprintf("a Target always marshals: %v", err))
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// Namespace is the namespace of a target of the Incident.
func Namespace(inc *v1alpha1.Incident, t v1alpha1.Target) string {
	if t.Namespace != "" {
		return t.Namespace
	}
	return inc.Namespace
}

// Namespaces are the distinct namespaces of the Incident's targets, in the order of the spec.
func Namespaces(inc *v1alpha1.Incident) []string {
	seen := map[string]bool{}
	var out []string
	for _, t := range inc.Spec.Targets {
		if ns := Namespace(inc, t); !seen[ns] {
			seen[ns] = true
			out = append(out, ns)
		}
	}
	return out
}

// Resolve returns the objects that the Incident's targets stand for. Entries that were resolved before stay as they were recorded; only new
// entries are looked up. A *Problem is returned when an entry stands for nothing.
func Resolve(ctx context.Context, r client.Reader, inc *v1alpha1.Incident) ([]v1alpha1.ResolvedTarget, error) {
	known := map[string]bool{}
	out := append([]v1alpha1.ResolvedTarget(nil), inc.Status.Targets...)
	for _, t := range out {
		known[t.Key] = true
	}
	for i, t := range inc.Spec.Targets {
		k := Key(t)
		if known[k] {
			continue
		}
		known[k] = true
		objs, err := lookUp(ctx, r, Namespace(inc, t), t)
		if err != nil {
			return nil, err
		}
		if len(objs) == 0 {
			return nil, &Problem{Reason: v1alpha1.ReasonNothingSelected, Message: fmt.Sprintf(
				"spec.targets[%d]: the selector %s matches no %s in namespace %s; correct the selector", i, metav1.FormatLabelSelector(t.Selector), t.Kind, Namespace(inc, t))}
		}
		for _, o := range objs {
			out = append(out, v1alpha1.ResolvedTarget{
				Key: k, Kind: t.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()),
			})
		}
	}
	if len(out) > maxTargets {
		return nil, exceeded("the targets are %d objects, an Incident holds at most %d; narrow the selectors or declare several Incidents", len(out), maxTargets)
	}
	return out, nil
}

func lookUp(ctx context.Context, r client.Reader, ns string, t v1alpha1.Target) ([]client.Object, error) {
	if t.Name != "" {
		obj, err := newObject(t.Kind)
		if err != nil {
			return nil, err
		}
		err = r.Get(ctx, client.ObjectKey{Namespace: ns, Name: t.Name}, obj)
		if apierrors.IsNotFound(err) {
			return nil, &Problem{Reason: v1alpha1.ReasonTargetNotFound, Message: fmt.Sprintf(
				"%s %s/%s does not exist; correct spec.targets", t.Kind, ns, t.Name)}
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s %s/%s: %w", t.Kind, ns, t.Name, err)
		}
		return []client.Object{obj}, nil
	}
	sel, err := metav1.LabelSelectorAsSelector(t.Selector)
	if err != nil {
		return nil, &Problem{Reason: v1alpha1.ReasonNothingSelected, Message: fmt.Sprintf("the selector of a %s target cannot be read: %v", t.Kind, err)}
	}
	list, err := newList(t.Kind)
	if err != nil {
		return nil, err
	}
	if err := r.List(ctx, list, client.InNamespace(ns), client.MatchingLabelsSelector{Selector: sel}); err != nil {
		return nil, fmt.Errorf("listing %ss in namespace %s: %w", t.Kind, ns, err)
	}
	var out []client.Object
	err = apimeta.EachListItem(list, func(o runtime.Object) error {
		out = append(out, o.(client.Object))
		return nil
	})
	return out, err
}

var groupVersions = map[v1alpha1.TargetKind]schema.GroupVersion{
	v1alpha1.TargetDeployment:  appsv1.SchemeGroupVersion,
	v1alpha1.TargetStatefulSet: appsv1.SchemeGroupVersion,
	v1alpha1.TargetDaemonSet:   appsv1.SchemeGroupVersion,
	v1alpha1.TargetReplicaSet:  appsv1.SchemeGroupVersion,
	v1alpha1.TargetJob:         batchv1.SchemeGroupVersion,
	v1alpha1.TargetCronJob:     batchv1.SchemeGroupVersion,
	v1alpha1.TargetPod:         corev1.SchemeGroupVersion,
}

// newObject returns an empty object of the kind.
func newObject(kind v1alpha1.TargetKind) (client.Object, error) {
	obj, err := scheme.Scheme.New(groupVersions[kind].WithKind(string(kind)))
	if err != nil {
		return nil, fmt.Errorf("target kind %q: %w", kind, err)
	}
	return obj.(client.Object), nil
}

// newList returns an empty list of the kind.
func newList(kind v1alpha1.TargetKind) (client.ObjectList, error) {
	list, err := scheme.Scheme.New(groupVersions[kind].WithKind(string(kind) + "List"))
	if err != nil {
		return nil, fmt.Errorf("target kind %q: %w", kind, err)
	}
	return list.(client.ObjectList), nil
}
