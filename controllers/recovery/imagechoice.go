package recovery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Choose decides with which images the workloads come back, and looks whether what comes of that is free of what is known to be compromised.
func (rollBackImages) Choose(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) ([]v1alpha1.StepChoice, string, error) {
	var choices []v1alpha1.StepChoice
	for _, ref := range step.RollBackImages.Workloads {
		good := knownGood(x.Plan, string(ref.Kind), ref.Name)
		w, why, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, ref)
		if err != nil {
			return nil, "", err
		}
		if good == nil || w == nil && good.Choose != v1alpha1.ImagesOfNewestRevision {
			continue // the step waits for that by itself
		}
		if w == nil {
			return nil, why, nil
		}
		if good.Choose == v1alpha1.ImagesOfNewestRevision {
			choice, why, err := chooseImages(ctx, x, w)
			if err != nil || why != "" {
				return nil, why, err
			}
			choice.Step = step.Name
			choices = append(choices, *choice)
			continue
		}
		if why := keepsCompromised(w, *good, x.Incident.Spec.CompromisedDigests); why != "" {
			return nil, why, nil
		}
	}
	return choices, "", nil
}

// WithChosen is the plan with the images that were chosen in place of the rules by which they were: everything that is done from then on, and the digest that people approve, is about these.
func WithChosen(plan v1alpha1.RecoveryPlanSpec, choices []v1alpha1.StepChoice) v1alpha1.RecoveryPlanSpec {
	out := *plan.DeepCopy()
	for i := range out.Images {
		good := &out.Images[i]
		if good.Choose != v1alpha1.ImagesOfNewestRevision {
			continue
		}
		for _, c := range choices {
			if len(c.Images) > 0 && c.Object.Kind == string(good.Workload.Kind) && c.Object.Name == good.Workload.Name {
				good.Choose, good.Containers = v1alpha1.ImagesListed, nil
				for _, image := range c.Images {
					good.Containers = append(good.Containers, v1alpha1.ContainerImage{Name: image.Name, Image: image.Image})
				}
				break
			}
		}
	}
	return out
}

// chooseImages finds the newest revision that does, or says why none does.
func chooseImages(ctx context.Context, x *Execution, w *workload) (*v1alpha1.StepChoice, string, error) {
	since := x.Incident.Spec.SuspectedSince
	if since.IsZero() {
		return nil, fmt.Sprintf("spec.suspectedSince of the Incident is not set: without it no revision of %s %s is known to be older than the incident; "+
			"set it to the earliest time at which the targets may have been compromised", w.ref.Kind, w.ref.Name), nil
	}
	revisions, err := history(ctx, x.Reader, w)
	if err != nil {
		return nil, "", err
	}
	var passedOver []string
	for _, r := range revisions {
		why := r.unfit(w, since.Time, x.Incident.Spec.CompromisedDigests)
		if why != "" {
			passedOver = append(passedOver, r.ref.Name+" "+why)
			continue
		}
		why, wait := x.unverified(r.images(w))
		if wait {
			return nil, fmt.Sprintf("revision %s of %s %s: %s", r.ref.Name, w.ref.Kind, w.ref.Name, why), nil
		}
		if why != "" {
			passedOver = append(passedOver, r.ref.Name+" "+why)
			continue
		}
		choice := &v1alpha1.StepChoice{Object: w.ref, Source: r.ref, Images: r.images(w), Why: clipped(fmt.Sprintf(
			"created at %s, before the incident is suspected to have begun%s", r.created.UTC().Format(time.RFC3339), among(passedOver)))}
		return choice, "", nil
	}
	return nil, noneOf(w, passedOver), nil
}

func noneOf(w *workload, passedOver []string) string {
	return fmt.Sprintf("no revision of %s %s can be chosen: %s; list its images in spec.images of the plan", w.ref.Kind, w.ref.Name, clipped(cmp.Or(strings.Join(passedOver, ", "), "it has none")))
}

func among(passedOver []string) string {
	if len(passedOver) == 0 {
		return ""
	}
	return "; passed over: " + strings.Join(passedOver, ", ")
}

// Bounds of what the API lets a choice be.
const (
	maxWhy    = 1024 // bytes of its reason
	maxImages = 32
	maxImage  = 512 // bytes of one image's name
)

func clipped(text string) string {
	if len(text) <= maxWhy {
		return text
	}
	const dots = "..."
	return strings.ToValidUTF8(text[:maxWhy-len(dots)], "") + dots
}

// unfit says why the workload cannot come back with the revision's images, or "".
func (r *revision) unfit(w *workload, since time.Time, digests []string) string {
	if !r.created.Before(since) {
		return fmt.Sprintf("was created at %s, and only what was created before %s is known to be older than the incident", r.created.UTC().Format(time.RFC3339), since.UTC().Format(time.RFC3339))
	}
	return r.unusable(w, digests)
}

// unusable says why the revision's images do not do whenever it was created, or "".
func (r *revision) unusable(w *workload, digests []string) string {
	if r.broken != "" {
		return r.broken
	}
	images := r.images(w)
	for _, c := range slices.Concat(w.template.Spec.InitContainers, w.template.Spec.Containers) {
		if !slices.ContainsFunc(images, func(i v1alpha1.ChosenImage) bool { return i.Name == c.Name }) {
			return fmt.Sprintf("does not have the container %s, which would keep its image", c.Name)
		}
	}
	if len(images) > maxImages {
		return fmt.Sprintf("has more than %d containers", maxImages)
	}
	for _, i := range images {
		switch {
		case len(i.Image) > maxImage:
			return fmt.Sprintf("names the image of container %s in more than %d characters", i.Name, maxImage)
		case !pinned.MatchString(i.Image):
			return fmt.Sprintf("gives the image of container %s by tag: %s", i.Name, i.Image)
		case compromised(i.Image, digests):
			return fmt.Sprintf("has a compromised digest in container %s: %s", i.Name, digestOf(i.Image))
		}
	}
	return ""
}
