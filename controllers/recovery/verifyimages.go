package recovery

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/image"
)

// LookAtImage returns what is known of an image, and whether that is recent.
type LookAtImage func(name string) (verdict image.Verdict, recent bool)

// imagesOf are the images that a plan names, each once, in the order of the plan.
func imagesOf(plan v1alpha1.RecoveryPlanSpec) []string {
	var out []string
	add := func(name string) {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, good := range plan.Images {
		for _, c := range good.Containers {
			add(c.Image)
		}
	}
	for _, step := range plan.Steps {
		for _, name := range jobImages(step) {
			add(name)
		}
	}
	return out
}

// jobImages are the images that a step runs in jobs: as its action, to check volumes, and to look at what it waits for or observes.
func jobImages(step v1alpha1.RecoveryStep) []string {
	var out []string
	if step.RunJob != nil {
		out = append(out, step.RunJob.Image)
	}
	if step.RestoreVolumes != nil {
		out = append(out, step.RestoreVolumes.Check.Image)
	}
	looks := []*v1alpha1.VerifyStep{step.Verify, step.Gate}
	if step.Release != nil {
		looks = append(looks, &step.Release.Watched)
	}
	for _, l := range looks {
		if l != nil {
			out = append(out, l.Job.Image)
		}
	}
	return out
}

// VerifyImages finds out about every image of the plan. It says which is not what the plan asks for, or not yet known to be, with a reason of the plan's Ready condition. With lasting, what was known before counts until it is
// known anew.
func VerifyImages(plan v1alpha1.RecoveryPlanSpec, look LookAtImage, lasting bool) (verified []v1alpha1.VerifiedImage, reason, why string) {
	images := imagesOf(plan)
	if len(images) > v1alpha1.MaxVerifiedImages {
		return nil, v1alpha1.ReasonInvalidVerification, fmt.Sprintf("the plan names %d images, and at most %d can be verified: split it", len(images), v1alpha1.MaxVerifiedImages)
	}
	var unknown, bad []string
	for _, name := range images { // all of them are asked for before any is waited for
		verdict, recent := look(name)
		text := "the image " + name + " " + verdict.Why
		switch {
		case verdict.State == image.Unknown || !recent && !lasting:
			unknown = append(unknown, notYet(name, verdict))
		case verdict.State == image.Missing:
			reason, bad = v1alpha1.ReasonImageMissing, append(bad, text)
		case verdict.State == image.Unverified:
			reason, bad = cmp.Or(reason, v1alpha1.ReasonImageUnverified), append(bad, text)
		default:
			verified = append(verified, v1alpha1.VerifiedImage{Image: name, Digests: verdict.Digests, Signer: verdict.Signer})
		}
	}
	switch {
	case len(bad) > 0:
		return nil, reason, clipped(strings.Join(bad, "; "))
	case len(unknown) > 0:
		return nil, v1alpha1.ReasonImagesUnknown, clipped(strings.Join(unknown, "; "))
	}
	return verified, "", ""
}

func notYet(name string, verdict image.Verdict) string {
	return "the image " + name + " " + cmp.Or(verdict.Why, "is being looked up anew")
}

// accepted are the digests by which a node may say that it runs the image: its own, and those that were found to belong to it when the recovery began.
func (x *Execution) accepted(name string) []string {
	out := []string{digestOf(name)}
	for _, v := range x.Verified {
		if v.Image == name {
			out = append(out, v.Digests...)
		}
	}
	return out
}

// unverified says why the images of a revision are not what the plan asks for, or "". Nothing is known yet where wait is set: an older revision is not chosen because a registry is slow.
func (x *Execution) unverified(images []v1alpha1.ChosenImage) (why string, wait bool) {
	if x.Look == nil {
		return "", false
	}
	for _, i := range images {
		verdict, recent := x.Look(i.Image)
		switch {
		case verdict.State == image.Unknown || !recent:
			return notYet(i.Image, verdict), true
		case verdict.State != image.Good:
			return fmt.Sprintf("has an image in container %s that %s", i.Name, verdict.Why), false
		}
		for _, part := range verdict.Digests {
			if slices.Contains(x.Incident.Spec.CompromisedDigests, part) {
				return fmt.Sprintf("has an image in container %s that contains the compromised digest %s", i.Name, part), false
			}
		}
	}
	return "", false
}
