package recovery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=apps,resources=replicasets;controllerrevisions,verbs=list

// pinned is what the API allows as a known-good image.
var pinned = regexp.MustCompile(`^[^@\s]+@sha256:[a-f0-9]{64}$`)

// revisionAnnotation is where the Deployment's controller numbers the ReplicaSets of a Deployment.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// revision is a template that a workload has had.
type revision struct {
	ref v1alpha1.ObjectRef
	// created is when it was first rolled out: a revision that was rolled back to keeps that time, though its number becomes the highest.
	created time.Time
	// number tells apart what was created in the same second.
	number   int64
	template corev1.PodTemplateSpec
	// broken says why it could not be read, or "".
	broken string
}

// history are the revisions of the workload that its controller has kept, the newest first.
func history(ctx context.Context, r client.Reader, w *workload) (out []*revision, err error) {
	if w.ref.Kind == "Deployment" {
		out, err = replicaSets(ctx, r, w)
	} else {
		out, err = controllerRevisions(ctx, r, w)
	}
	slices.SortFunc(out, func(a, b *revision) int {
		return cmp.Or(b.created.Compare(a.created), cmp.Compare(b.number, a.number), strings.Compare(a.ref.Name, b.ref.Name))
	})
	return out, err
}

func replicaSets(ctx context.Context, r client.Reader, w *workload) ([]*revision, error) {
	var list appsv1.ReplicaSetList
	if err := r.List(ctx, &list, client.InNamespace(w.ref.Namespace)); err != nil {
		return nil, fmt.Errorf("listing the ReplicaSets of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	var out []*revision
	for i := range list.Items {
		if set := &list.Items[i]; metav1.IsControlledBy(set, w.object) {
			number, err := strconv.ParseInt(set.Annotations[revisionAnnotation], 10, 64)
			if err != nil {
				number = 0
			}
			out = append(out, &revision{ref: revisionRef("ReplicaSet", set), created: set.CreationTimestamp.Time, number: number, template: set.Spec.Template})
		}
	}
	return out, nil
}

func controllerRevisions(ctx context.Context, r client.Reader, w *workload) ([]*revision, error) {
	var list appsv1.ControllerRevisionList
	if err := r.List(ctx, &list, client.InNamespace(w.ref.Namespace)); err != nil {
		return nil, fmt.Errorf("listing the ControllerRevisions of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	var out []*revision
	for i := range list.Items {
		kept := &list.Items[i]
		if !metav1.IsControlledBy(kept, w.object) {
			continue
		}
		one := &revision{ref: revisionRef("ControllerRevision", kept), created: kept.CreationTimestamp.Time, number: kept.Revision}
		// A revision is a patch that replaces the whole template.
		var patch struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		if err := json.Unmarshal(kept.Data.Raw, &patch); err != nil {
			one.broken = "cannot be read: " + err.Error()
		}
		one.template = patch.Spec.Template
		out = append(out, one)
	}
	return out, nil
}

func revisionRef(kind string, object client.Object) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())}
}

// images are the revision's images of the containers that the workload has now.
func (r *revision) images(w *workload) []v1alpha1.ChosenImage {
	var out []v1alpha1.ChosenImage
	for _, c := range slices.Concat(w.template.Spec.InitContainers, w.template.Spec.Containers) {
		if had := container(&r.template.Spec, c.Name); had != nil {
			out = append(out, v1alpha1.ChosenImage{Name: c.Name, Image: had.Image})
		}
	}
	return out
}

// NoRevision says which workload of the plan, whose images are to be chosen, has no revision to choose whatever the time, or "".
func NoRevision(ctx context.Context, r client.Reader, plan *v1alpha1.RecoveryPlan) (string, error) {
	for _, good := range plan.Spec.Images {
		if good.Choose != v1alpha1.ImagesOfNewestRevision {
			continue
		}
		w, why, err := readWorkload(ctx, r, plan.Namespace, good.Workload)
		if err != nil || w == nil {
			return why, err
		}
		revisions, err := history(ctx, r, w)
		if err != nil {
			return "", err
		}
		var useless []string
		for _, kept := range revisions {
			if why := kept.unusable(w, nil); why != "" {
				useless = append(useless, kept.ref.Name+" "+why)
			}
		}
		if len(useless) == len(revisions) {
			return noneOf(w, useless), nil
		}
	}
	return "", nil
}
