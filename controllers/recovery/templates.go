package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// restoredAnnotation is on a pod template that was brought back as a whole. Its value is the digest of what was brought back.
const restoredAnnotation = "containment.cofferdam.dev/restored-template"

// restoreTemplates is rollBackImages that brings whole pod templates back.
type restoreTemplates struct{ rollBackImages }

// Choose decides from which revision each template comes back: people approve that very template, and not a rule.
func (restoreTemplates) Choose(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) ([]v1alpha1.StepChoice, string, error) {
	if x.Incident.Spec.SuspectedSince.IsZero() {
		return nil, "spec.suspectedSince of the Incident is not set: without it no revision is known to be older than the incident; set it to the earliest time at which the targets may have been compromised", nil
	}
	var choices []v1alpha1.StepChoice
	digests := x.Incident.Spec.CompromisedDigests
	for _, ref := range step.RollBackImages.Workloads {
		w, why, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, ref)
		if err != nil || w == nil {
			return nil, why, err
		}
		good := knownGood(x.Plan, string(ref.Kind), ref.Name)
		if good == nil {
			return nil, fmt.Sprintf("%s %s has no known-good images in the plan", ref.Kind, ref.Name), nil
		}
		if why := compromisedGood(*good, digests, x.Verified); why != "" {
			return nil, why, nil
		}
		if good.Choose == v1alpha1.ImagesOfNewestRevision {
			chosen, why, err := chooseImages(ctx, x, w)
			if err != nil || why != "" {
				return nil, why, err
			}
			good = &v1alpha1.KnownGoodImages{Workload: ref, Containers: listed(chosen.Images)}
		}
		revisions, err := history(ctx, x.Reader, w)
		if err != nil {
			return nil, "", err
		}
		r, why := newestWhole(x.Incident, revisions, *good)
		if why != "" {
			return nil, fmt.Sprintf("%s %s: %s", ref.Kind, ref.Name, why), nil
		}
		choices = append(choices, r.choice(step.Name, w, *good))
	}
	return choices, "", nil
}

func listed(images []v1alpha1.ChosenImage) []v1alpha1.ContainerImage {
	var out []v1alpha1.ContainerImage
	for _, i := range images {
		out = append(out, v1alpha1.ContainerImage{Name: i.Name, Image: i.Image})
	}
	return out
}

// changeTemplate is the patch that brings back the whole template that was chosen; it is empty when the workload has it.
func changeTemplate(ctx context.Context, x *Execution, step string, w *workload, good v1alpha1.KnownGoodImages) (patch []byte, detail, impossible string, err error) {
	choice := x.Choice(step, w.ref)
	if choice == nil {
		return nil, "", fmt.Sprintf("%s %s is not the one for which a revision was chosen: it was deleted or replaced since", w.ref.Kind, w.ref.Name), nil
	}
	marked := w.template.Annotations[v1alpha1.RecoveredByAnnotation] == string(x.Incident.UID) && imagesMatch(good, &w.template.Spec)
	now := formerClaims(x, w.ref, plain(w.template))
	if marked && digestOfTemplate(now) == choice.Digest {
		return nil, "", "", nil
	}
	source, err := readChosen(ctx, x.Reader, w, choice, good)
	if err != nil {
		return nil, "", "", err
	}
	if source == nil {
		return nil, "", fmt.Sprintf("%s %s, from which the template of %s was to come back, was deleted or changed since it was approved: declare another Incident, whose recovery chooses anew", choice.Source.Kind, choice.Source.Name, w.ref.Name), nil
	}
	if marked && w.template.Annotations[restoredAnnotation] == choice.Digest {
		return nil, "", fmt.Sprintf("%s %s was given its template back, and somebody has changed that since: %s; have it changed back, or undo the step and retry it", w.ref.Kind, w.ref.Name, differences(source, now)), nil
	}
	target := source.DeepCopy()
	if target.Annotations == nil {
		target.Annotations = map[string]string{}
	}
	target.Annotations[v1alpha1.RecoveredByAnnotation], target.Annotations[restoredAnnotation] = string(x.Incident.UID), choice.Digest
	patch, detail, err = w.replaceTemplate(x, target, fmt.Sprintf("as in %s %s", choice.Source.Kind, choice.Source.Name))
	return patch, detail, "", err
}

// replaceTemplate is the patch that gives the workload this whole template, but for claims that the recovery has exchanged for others. It is empty when the workload has it.
func (w *workload) replaceTemplate(x *Execution, template *corev1.PodTemplateSpec, how string) (patch []byte, detail string, err error) {
	target := formerClaims(x, w.ref, template)
	renameClaims(target, presentClaims(x, w))
	if equality.Semantic.DeepEqual(target, w.template) {
		return nil, "", nil
	}
	raw, err := json.Marshal(target)
	if err != nil {
		return nil, "", fmt.Errorf("encoding the template of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	var body map[string]any
	if err := json.Unmarshal(raw, &body); err != nil {
		return nil, "", fmt.Errorf("encoding the template of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	body["$patch"] = "replace"
	raw, err = json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.ref.UID, "resourceVersion": w.object.GetResourceVersion()},
		"spec":     map[string]any{"template": body},
	})
	if err != nil {
		return nil, "", fmt.Errorf("encoding the template of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	return raw, fmt.Sprintf("the whole pod template %s; it changes %s", how, differences(w.template, target)), nil
}

// presentClaims leads from the claims that a step of the recovery restores to those that the workload was made to name instead.
func presentClaims(x *Execution, w *workload) map[string]string {
	out := map[string]string{}
	now := templated{object: w.object, template: w.template}
	for former, present := range changedClaims(x, w.ref) {
		if now.names(present) {
			out[former] = present
		}
	}
	return out
}

// changedClaims leads from every claim that a step of the plan has the workload name no longer to the one in its place.
func changedClaims(x *Execution, ref v1alpha1.ObjectRef) map[string]string {
	out := map[string]string{}
	for _, step := range x.Plan.Steps {
		if step.RestoreVolumes == nil || !changesClaim(step) {
			continue
		}
		for _, c := range x.Choices {
			if c.Step == step.Name && slices.Contains(c.Consumers, ref) {
				out[c.Object.Name] = (&restoration{x: x, step: step, choice: c}).stagedName()
			}
		}
	}
	return out
}

// formerClaims is the template as it would be if no step had changed which claims it names.
func formerClaims(x *Execution, ref v1alpha1.ObjectRef, template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	out := template.DeepCopy()
	back := map[string]string{}
	for former, present := range changedClaims(x, ref) {
		back[present] = former
	}
	renameClaims(out, back)
	return out
}

func renameClaims(template *corev1.PodTemplateSpec, names map[string]string) {
	for i := range template.Spec.Volumes {
		if claim := template.Spec.Volumes[i].PersistentVolumeClaim; claim != nil && names[claim.ClaimName] != "" {
			claim.ClaimName = names[claim.ClaimName]
		}
	}
}

// plain is a template without what its controller and this operator have added.
func plain(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	out := template.DeepCopy()
	delete(out.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(out.Labels, appsv1.ControllerRevisionHashLabelKey)
	delete(out.Annotations, v1alpha1.RecoveredByAnnotation)
	delete(out.Annotations, restoredAnnotation)
	if len(out.Annotations) == 0 {
		out.Annotations = nil
	}
	return out
}

// withImages is a template with the images as the plan has them.
func withImages(template *corev1.PodTemplateSpec, good v1alpha1.KnownGoodImages) *corev1.PodTemplateSpec {
	out := template.DeepCopy()
	for _, want := range good.Containers {
		if c := container(&out.Spec, want.Name); c != nil {
			c.Image = want.Image
		}
	}
	return out
}

func digestOfTemplate(template *corev1.PodTemplateSpec) string {
	raw, err := json.Marshal(template)
	if err != nil {
		panic(fmt.Sprintf("API types always marshal: %v", err))
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// maxDifferences is how many fields are named in which two templates differ.
const maxDifferences = 12

// differences names the fields in which two templates differ.
func differences(a, b *corev1.PodTemplateSpec) string {
	one, other := fieldsOf(a), fieldsOf(b)
	var out []string
	for _, field := range slices.Sorted(maps.Keys(one)) {
		if other[field] != one[field] {
			out = append(out, field)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(other)) {
		if _, has := one[field]; !has {
			out = append(out, field)
		}
	}
	if len(out) == 0 {
		return "nothing"
	}
	slices.Sort(out)
	if n := len(out) - maxDifferences; n > 0 {
		out = append(out[:maxDifferences], fmt.Sprintf("and %d more fields", n))
	}
	return strings.Join(out, ", ")
}

// fieldsOf are the fields of a template, those of its containers by name, with their values.
func fieldsOf(template *corev1.PodTemplateSpec) map[string]string {
	out := map[string]string{}
	add := func(prefix string, object any, without ...string) {
		raw, err := json.Marshal(object)
		if err != nil {
			panic(fmt.Sprintf("API types always marshal: %v", err))
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(raw, &fields); err != nil {
			panic(fmt.Sprintf("API types are objects: %v", err))
		}
		for name, value := range fields {
			if !slices.Contains(without, name) {
				out[prefix+name] = string(value)
			}
		}
	}
	add("metadata.", map[string]any{"labels": template.Labels, "annotations": template.Annotations})
	add("spec.", template.Spec, "containers", "initContainers")
	for _, c := range template.Spec.Containers {
		add("spec.containers["+c.Name+"].", c, "name")
	}
	for _, c := range template.Spec.InitContainers {
		add("spec.initContainers["+c.Name+"].", c, "name")
	}
	return out
}
