package recovery

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// compromised reports whether an image, or an imageID, carries one of the digests. One that is given by tag alone carries none.
func compromised(image string, digests []string) bool {
	return slices.Contains(digests, digestOf(image))
}

// RunsCompromised is the first container of the pod that reports one of the digests, with that digest, or "".
func RunsCompromised(pod *corev1.Pod, digests []string) (container, digest string) {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if compromised(s.ImageID, digests) {
			return s.Name, digestOf(s.ImageID)
		}
	}
	return "", ""
}

// CompromisedImage says which image of the plan carries one of the digests, or "" when none does.
func CompromisedImage(plan v1alpha1.RecoveryPlanSpec, digests []string) string {
	for _, good := range plan.Images {
		if why := compromisedGood(good, digests, nil); why != "" {
			return why
		}
	}
	for _, step := range plan.Steps {
		for _, image := range jobImages(step) {
			if compromised(image, digests) {
				return fmt.Sprintf("step %s runs the image %s, whose digest is in spec.compromisedDigests of the Incident: correct the plan", step.Name, image)
			}
		}
	}
	return ""
}

// compromisedGood says which known-good image carries one of the digests, or contains a manifest or a configuration that does as far as was found out, or "". What is found later to be compromised is mostly known by
// what nodes have reported, which may be a part of what the plan names.
func compromisedGood(good v1alpha1.KnownGoodImages, digests []string, found []v1alpha1.VerifiedImage) string {
	for _, c := range good.Containers {
		parts := slices.DeleteFunc(slices.Clone(found), func(v v1alpha1.VerifiedImage) bool { return v.Image != c.Image })
		if why := CompromisedPart(parts, digests); why != "" {
			return why
		}
		if compromised(c.Image, digests) {
			return fmt.Sprintf("the known-good image %s of container %s of %s %s is compromised, its digest is in spec.compromisedDigests of the Incident: name another one in spec.images",
				c.Image, c.Name, good.Workload.Kind, good.Workload.Name)
		}
	}
	return ""
}

// CompromisedByNow reports whether the plan that is executed brings the workload back with an image that has become known to be compromised since: it is not recovered then, whatever it runs.
func CompromisedByNow(inc *v1alpha1.Incident, workload v1alpha1.ObjectRef) bool {
	rec := inc.Status.Recovery
	if rec == nil || workload.Namespace != inc.Namespace {
		return false
	}
	good := knownGood(rec.Plan, workload.Kind, workload.Name)
	return good != nil && compromisedGood(*good, inc.Spec.CompromisedDigests, rec.Images) != ""
}

// CompromisedPart says which of the images that were found has a manifest or a configuration with one of the digests, or "".
func CompromisedPart(found []v1alpha1.VerifiedImage, digests []string) string {
	for _, v := range found {
		for _, part := range v.Digests {
			if slices.Contains(digests, part) {
				return fmt.Sprintf("the image %s contains %s, which is in spec.compromisedDigests of the Incident: name another one in spec.images", v.Image, part)
			}
		}
	}
	return ""
}

// compromisedWave says which workload that the release step releases has come back with an image that is known to be compromised by now, or "".
func compromisedWave(x *Execution, step v1alpha1.RecoveryStep) string {
	for _, w := range Wave(x.Plan, step) {
		if good := knownGood(x.Plan, string(w.Kind), w.Name); good != nil {
			if why := compromisedGood(*good, x.Incident.Spec.CompromisedDigests, x.Verified); why != "" {
				return why
			}
		}
	}
	return ""
}

// keepsCompromised says which container of the workload would keep an image with one of the digests, because the plan does not list it, or "". Admission would refuse every pod of what comes of that.
func keepsCompromised(w *workload, good v1alpha1.KnownGoodImages, digests []string) string {
	for _, c := range slices.Concat(w.template.Spec.InitContainers, w.template.Spec.Containers) {
		listed := slices.ContainsFunc(good.Containers, func(g v1alpha1.ContainerImage) bool { return g.Name == c.Name })
		if !listed && compromised(c.Image, digests) {
			return fmt.Sprintf("container %s of %s %s would keep the image %s, whose digest is in spec.compromisedDigests of the Incident: list it in spec.images", c.Name, w.ref.Kind, w.ref.Name, c.Image)
		}
	}
	for _, v := range w.template.Spec.Volumes {
		if v.Image != nil && compromised(v.Image.Reference, digests) {
			return fmt.Sprintf("volume %s of %s %s would keep the image %s, whose digest is in spec.compromisedDigests of the Incident: change it by hand, as a plan changes the images of containers", v.Name, w.ref.Kind, w.ref.Name, v.Image.Reference)
		}
	}
	return ""
}
