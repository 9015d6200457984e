package recovery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=apps,resources=replicasets;controllerrevisions,verbs=list

// revision is what a workload's controller keeps of an earlier template.
type revision struct {
	ref      v1alpha1.ObjectRef
	created  time.Time
	template *corev1.PodTemplateSpec
}

// readRevisions are the revisions of a workload that its controller keeps, in no order.
func readRevisions(ctx context.Context, r client.Reader, w *workload) ([]revision, error) {
	if w.ref.Kind == "Deployment" {
		return replicaSetsOf(ctx, r, w)
	}
	var list appsv1.ControllerRevisionList
	if err := r.List(ctx, &list, client.InNamespace(w.ref.Namespace)); err != nil {
		return nil, fmt.Errorf("listing the revisions of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	var out []revision
	for i := range list.Items {
		rev := &list.Items[i]
		var data struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		// What cannot be read is no revision that anything could come back from.
		if !ownedBy(rev, w) || json.Unmarshal(rev.Data.Raw, &data) != nil {
			continue
		}
		out = append(out, revisionOf("ControllerRevision", rev, &data.Spec.Template))
	}
	return out, nil
}

func replicaSetsOf(ctx context.Context, r client.Reader, w *workload) ([]revision, error) {
	var list appsv1.ReplicaSetList
	if err := r.List(ctx, &list, client.InNamespace(w.ref.Namespace)); err != nil {
		return nil, fmt.Errorf("listing the revisions of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	var out []revision
	for i := range list.Items {
		if rs := &list.Items[i]; ownedBy(rs, w) {
			out = append(out, revisionOf("ReplicaSet", rs, &rs.Spec.Template))
		}
	}
	return out, nil
}

func revisionOf(kind string, object client.Object, template *corev1.PodTemplateSpec) revision {
	return revision{
		ref:     v1alpha1.ObjectRef{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())},
		created: object.GetCreationTimestamp().Time, template: plain(template),
	}
}

func ownedBy(object metav1.Object, w *workload) bool {
	owner := metav1.GetControllerOf(object)
	return owner != nil && string(owner.UID) == w.ref.UID
}

// newestGood is the newest revision that is older than the incident and runs the known-good digests in every container. It says why there is none.
func newestGood(inc *v1alpha1.Incident, revisions []revision, good v1alpha1.KnownGoodImages) (revision, string) {
	slices.SortFunc(revisions, func(a, b revision) int {
		return cmp.Or(b.created.Compare(a.created), strings.Compare(a.ref.Name, b.ref.Name))
	})
	var refused []string
	for _, r := range revisions {
		why := r.unfit(inc, good)
		if why == "" {
			return r, ""
		}
		refused = append(refused, fmt.Sprintf("%s %s", r.ref.Name, why))
	}
	if n := len(refused) - maxDifferences; n > 0 {
		refused = append(refused[:maxDifferences], fmt.Sprintf("and %d more", n))
	}
	return revision{}, fmt.Sprintf("no revision can come back as a whole: %s. Use restore Images, or correct spec.images", cmp.Or(strings.Join(refused, "; "), "none is kept"))
}

// unfit says why the revision cannot come back, or "".
func (r *revision) unfit(inc *v1alpha1.Incident, good v1alpha1.KnownGoodImages) string {
	if !r.created.Before(inc.Spec.SuspectedSince.Time) {
		return fmt.Sprintf("is of %s, and only what is older than %s is known to be older than the incident", r.created.UTC().Format(time.RFC3339), inc.Spec.SuspectedSince.UTC().Format(time.RFC3339))
	}
	if slices.ContainsFunc(inc.Status.Revisions, func(c v1alpha1.RevisionStatus) bool { return c.ID == r.ref.UID }) {
		return "is compromised"
	}
	for _, c := range slices.Concat(r.template.Spec.InitContainers, r.template.Spec.Containers) {
		i := slices.IndexFunc(good.Containers, func(g v1alpha1.ContainerImage) bool { return g.Name == c.Name })
		if i < 0 {
			return fmt.Sprintf("has a container %s, which spec.images does not list", c.Name)
		}
		if digestOf(c.Image) != digestOf(good.Containers[i].Image) {
			return fmt.Sprintf("runs %s in container %s", c.Image, c.Name)
		}
	}
	for _, g := range good.Containers {
		if container(&r.template.Spec, g.Name) == nil {
			return "has no container " + g.Name
		}
	}
	return ""
}

// choice says what people approve: this very template.
func (r *revision) choice(step string, w *workload, good v1alpha1.KnownGoodImages) (v1alpha1.StepChoice, error) {
	target := withImages(r.template, good)
	out := v1alpha1.StepChoice{
		Step: step, Object: w.ref, Source: r.ref, Digest: digestOfTemplate(target),
		Why: clipped(fmt.Sprintf("of %s, runs the known-good digests; it changes %s", r.created.UTC().Format(time.RFC3339), differences(plain(w.template), target))),
	}
	for _, c := range good.Containers {
		out.Images = append(out.Images, v1alpha1.ChosenImage{Name: c.Name, Image: c.Image})
	}
	return out, nil
}

// maxWhy is the bound of why something was chosen, in characters.
const maxWhy = 1024

func clipped(text string) string {
	if runes := []rune(text); len(runes) > maxWhy {
		return string(runes[:maxWhy-1]) + "…"
	}
	return text
}

// readChosen is the template that was chosen, if its revision is still there and still has it; nil if not.
func readChosen(ctx context.Context, r client.Reader, w *workload, choice *v1alpha1.StepChoice, good v1alpha1.KnownGoodImages) (*corev1.PodTemplateSpec, error) {
	revisions, err := readRevisions(ctx, r, w)
	if err != nil {
		return nil, err
	}
	for _, rev := range revisions {
		if target := withImages(rev.template, good); rev.ref == choice.Source && digestOfTemplate(target) == choice.Digest {
			return target, nil
		}
	}
	return nil, nil
}
