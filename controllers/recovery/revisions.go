package recovery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// newestWhole is the newest revision, of those given the newest first, that is older than the incident and runs the known-good digests in every container. It says why there is none.
func newestWhole(inc *v1alpha1.Incident, revisions []*revision, good v1alpha1.KnownGoodImages) (*revision, string) {
	var passedOver []string
	for _, r := range revisions {
		why := r.unfitWhole(inc, good)
		if why == "" {
			return r, ""
		}
		passedOver = append(passedOver, fmt.Sprintf("%s %s", r.ref.Name, why))
	}
	if n := len(passedOver) - maxDifferences; n > 0 {
		passedOver = append(passedOver[:maxDifferences], fmt.Sprintf("and %d more", n))
	}
	return nil, fmt.Sprintf("no revision can come back as a whole: %s. Use restore Images, or correct spec.images", cmp.Or(strings.Join(passedOver, "; "), "none is kept"))
}

// unfitWhole says why the revision cannot come back as a whole, or "".
func (r *revision) unfitWhole(inc *v1alpha1.Incident, good v1alpha1.KnownGoodImages) string {
	if !r.created.Before(inc.Spec.SuspectedSince.Time) {
		return fmt.Sprintf("is of %s, and only what is older than %s is known to be older than the incident", r.created.UTC().Format(time.RFC3339), inc.Spec.SuspectedSince.UTC().Format(time.RFC3339))
	}
	if slices.ContainsFunc(inc.Status.Revisions, func(c v1alpha1.RevisionStatus) bool { return c.ID == r.ref.UID }) {
		return "is compromised"
	}
	if r.broken != "" {
		return r.broken
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
		if g.FoundIn != v1alpha1.InPods && container(&r.template.Spec, g.Name) == nil {
			return "has no container " + g.Name
		}
	}
	return ""
}

// choice says what people approve: this very template.
func (r *revision) choice(step string, w *workload, good v1alpha1.KnownGoodImages) v1alpha1.StepChoice {
	target := withImages(plain(&r.template), good)
	out := v1alpha1.StepChoice{
		Step: step, Object: w.ref, Source: r.ref, Digest: digestOfTemplate(target),
		Why: clipped(fmt.Sprintf("of %s, runs the known-good digests; it changes %s", r.created.UTC().Format(time.RFC3339), differences(plain(w.template), target))),
	}
	for _, c := range good.Containers {
		out.Images = append(out.Images, v1alpha1.ChosenImage{Name: c.Name, Image: c.Image})
	}
	return out
}

// readChosen is the template that was chosen, if its revision is still there and still has it; nil if not.
func readChosen(ctx context.Context, r client.Reader, w *workload, choice *v1alpha1.StepChoice, good v1alpha1.KnownGoodImages) (*corev1.PodTemplateSpec, error) {
	revisions, err := history(ctx, r, w)
	if err != nil {
		return nil, err
	}
	for _, rev := range revisions {
		if target := withImages(plain(&rev.template), good); rev.ref == choice.Source && digestOfTemplate(target) == choice.Digest {
			return target, nil
		}
	}
	return nil, nil
}
