// Package builder makes objects for tests: valid by themselves, and changed by what the test is about.
package builder

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
)

// GoodImage is an image that is pinned by digest.
const GoodImage = "registry.k8s.io/pause@sha256:7031c1b283388d2c2e09b57badb803c05ebed362dc88d84b480cc47f72a21097"

// Incident makes an Incident of severity High that targets the Deployment "web" in its own namespace.
func Incident(namespace, name string, changes ...func(*containmentv1alpha1.Incident)) *containmentv1alpha1.Incident {
	return change(&containmentv1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: containmentv1alpha1.IncidentSpec{
			Title:    "crypto miner in the web tier",
			Severity: containmentv1alpha1.SeverityHigh,
			Targets:  []containmentv1alpha1.Target{Target(containmentv1alpha1.TargetDeployment, "", "web")},
		},
	}, changes)
}

// Target names one object; an empty namespace is the Incident's own.
func Target(kind containmentv1alpha1.TargetKind, namespace, name string) containmentv1alpha1.Target {
	return containmentv1alpha1.Target{Kind: kind, Namespace: namespace, Name: name}
}

// Selected selects objects by labels, given as key and value in turn; an empty namespace is the Incident's own.
func Selected(kind containmentv1alpha1.TargetKind, namespace string, labels ...string) containmentv1alpha1.Target {
	return containmentv1alpha1.Target{Kind: kind, Namespace: namespace, Selector: &metav1.LabelSelector{MatchLabels: pairs(labels)}}
}

// Targets replaces the targets of an Incident.
func Targets(targets ...containmentv1alpha1.Target) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) { incident.Spec.Targets = targets }
}

// Goal sets the goal of an Incident.
func Goal(goal containmentv1alpha1.Goal) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) { incident.Spec.Goal = goal }
}

// Mode sets the mode of an Incident.
func Mode(mode containmentv1alpha1.Mode) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) { incident.Spec.Mode = mode }
}

// Severity sets the severity of an Incident.
func Severity(severity containmentv1alpha1.Severity) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) { incident.Spec.Severity = severity }
}

// DetectedAgo sets detectedAt; a negative duration lies in the future.
func DetectedAgo(ago time.Duration) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) {
		incident.Spec.DetectedAt = metav1.NewTime(time.Now().Add(-ago))
	}
}

// SuspectedAgo sets suspectedSince; a negative duration lies in the future.
func SuspectedAgo(ago time.Duration) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) {
		incident.Spec.SuspectedSince = metav1.NewTime(time.Now().Add(-ago))
	}
}

// SuspectedSince says when the incident may have begun.
func SuspectedSince(since time.Time) func(*containmentv1alpha1.Incident) {
	return func(i *containmentv1alpha1.Incident) { i.Spec.SuspectedSince = metav1.NewTime(since) }
}

// Compromised replaces the compromised digests of an Incident.
func Compromised(digests ...string) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) { incident.Spec.CompromisedDigests = digests }
}

// UsePolicy names the ContainmentPolicy of an Incident.
func UsePolicy(name string) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) {
		incident.Spec.PolicyRef = containmentv1alpha1.ObjectName{Name: name}
	}
}

// UsePlan names the RecoveryPlan of an Incident.
func UsePlan(name string) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) {
		incident.Spec.RecoveryPlanRef = containmentv1alpha1.ObjectName{Name: name}
	}
}

// DeclaredBy fills in what admission stamps on a server.
func DeclaredBy(username string, groups ...string) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) {
		incident.Spec.DeclaredBy = containmentv1alpha1.Declarer{Username: username, Groups: groups}
	}
}

// Approval adds an approval.
func Approval(step, author, digest string) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) {
		incident.Spec.Approvals = append(incident.Spec.Approvals, containmentv1alpha1.Approval{Step: step, Author: author, Digest: digest})
	}
}

// Intervention adds an intervention.
func Intervention(step string, action containmentv1alpha1.InterventionAction, author string) func(*containmentv1alpha1.Incident) {
	return func(incident *containmentv1alpha1.Incident) {
		incident.Spec.Interventions = append(incident.Spec.Interventions,
			containmentv1alpha1.Intervention{Step: step, Action: action, Author: author, Reason: "as agreed on the bridge"})
	}
}

// Policy makes a ContainmentPolicy that governs every Incident and leaves everything at its default.
func Policy(name string, changes ...func(*containmentv1alpha1.ContainmentPolicy)) *containmentv1alpha1.ContainmentPolicy {
	return change(&containmentv1alpha1.ContainmentPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}, changes)
}

// Exception adds an exception for an evidence path.
func Exception(exception containmentv1alpha1.EvidenceException) func(*containmentv1alpha1.ContainmentPolicy) {
	return func(policy *containmentv1alpha1.ContainmentPolicy) {
		policy.Spec.Isolation.Exceptions = append(policy.Spec.Isolation.Exceptions, exception)
	}
}

// Plan makes a RecoveryPlan of the given steps.
func Plan(namespace, name string, steps ...containmentv1alpha1.RecoveryStep) *containmentv1alpha1.RecoveryPlan {
	return &containmentv1alpha1.RecoveryPlan{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       containmentv1alpha1.RecoveryPlanSpec{Steps: steps},
	}
}

// KnownGood are the known-good images of a workload, given as container and image in turn.
func KnownGood(kind containmentv1alpha1.RecoverableKind, name string, containers ...string) containmentv1alpha1.KnownGoodImages {
	images := containmentv1alpha1.KnownGoodImages{Workload: containmentv1alpha1.WorkloadRef{Kind: kind, Name: name}}
	for i := 0; i+1 < len(containers); i += 2 {
		images.Containers = append(images.Containers, containmentv1alpha1.ContainerImage{Name: containers[i], Image: containers[i+1]})
	}
	return images
}

// ChosenImages are the known-good images of a workload that are to be chosen from its revisions.
func ChosenImages(kind containmentv1alpha1.RecoverableKind, name string) containmentv1alpha1.KnownGoodImages {
	return containmentv1alpha1.KnownGoodImages{
		Workload: containmentv1alpha1.WorkloadRef{Kind: kind, Name: name}, Choose: containmentv1alpha1.ImagesOfNewestRevision,
	}
}

// RollBack makes a step that rolls workloads back.
func RollBack(name string, workloads ...containmentv1alpha1.WorkloadRef) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, RollBackImages: &containmentv1alpha1.RollBackImagesStep{Workloads: workloads}}
}

// Verify makes a step that looks at one object; expression may be empty.
func Verify(name, apiVersion, kind, object, expression string, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, Verify: &containmentv1alpha1.VerifyStep{
		Objects: []containmentv1alpha1.VerifiedObject{{APIVersion: apiVersion, Kind: kind, Name: object, Expression: expression}},
	}}
}

// Approve makes a step that waits for one person.
func Approve(name string, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, Approve: &containmentv1alpha1.ApproveStep{Required: 1}}
}

// RunJob makes a step that runs a job with the image.
func RunJob(name, image string, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, RunJob: &containmentv1alpha1.RunJobStep{Image: image}}
}

// Scale makes a step that scales a Deployment.
func Scale(name, deployment string, to containmentv1alpha1.ScaleTo, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, Scale: &containmentv1alpha1.ScaleStep{
		Workloads: []containmentv1alpha1.ScaledWorkload{{Kind: "Deployment", Name: deployment}}, To: to,
	}}
}

// ScaleSet makes a step that scales a StatefulSet.
func ScaleSet(name, set string, to containmentv1alpha1.ScaleTo, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, Scale: &containmentv1alpha1.ScaleStep{
		Workloads: []containmentv1alpha1.ScaledWorkload{{Kind: "StatefulSet", Name: set}}, To: to,
	}}
}

// RestoreVolumes makes a step that restores claims after the steps that it depends on.
func RestoreVolumes(name string, dependsOn []string, claims ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, RestoreVolumes: &containmentv1alpha1.RestoreVolumesStep{Claims: claims}}
}

// PauseGitOps makes a step that pauses managers in the given namespaces.
func PauseGitOps(name string, argoCD, flux []string, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, PauseGitOps: &containmentv1alpha1.PauseGitOpsStep{ArgoCDNamespaces: argoCD, FluxNamespaces: flux}}
}

// ResumeGitOps makes a step that resumes them.
func ResumeGitOps(name string, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, ResumeGitOps: &containmentv1alpha1.ResumeGitOpsStep{}}
}

// Rotate makes a step that gives entries of a Secret new values, and restarts those that use it.
func Rotate(name, secret string, dependsOn []string, keys ...string) containmentv1alpha1.RecoveryStep {
	generated := containmentv1alpha1.GeneratedSecret{SecretName: secret}
	for _, key := range keys {
		generated.Keys = append(generated.Keys, containmentv1alpha1.GeneratedKey{Name: key})
	}
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, RotateSecrets: &containmentv1alpha1.RotateSecretsStep{Generate: []containmentv1alpha1.GeneratedSecret{generated}}}
}

// Notify makes a step that notifies routes.
func Notify(name, message string, dependsOn []string, routes ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, Notify: &containmentv1alpha1.NotifyStep{Message: message, Routes: routes}}
}

// Release makes a step that lifts quarantine and leaves everything at its default.
func Release(name string, dependsOn ...string) containmentv1alpha1.RecoveryStep {
	return containmentv1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, Release: &containmentv1alpha1.ReleaseStep{}}
}

// Deployment makes a Deployment with one container "app"; its pods carry the label app=<name>.
func Deployment(namespace, name, image string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: pairs([]string{"app", name})},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: pairs([]string{"app", name})},
			Template: template(name, image),
		},
	}
}

// StatefulSet makes a StatefulSet with one container "app"; its pods carry the label app=<name>.
func StatefulSet(namespace, name, image string, replicas int32) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: pairs([]string{"app", name})},
		Spec: appsv1.StatefulSetSpec{
			Replicas:    &replicas,
			ServiceName: name,
			Selector:    &metav1.LabelSelector{MatchLabels: pairs([]string{"app", name})},
			Template:    template(name, image),
		},
	}
}

// Pod makes a pod with one container "app"; labels are given as key and value in turn.
func Pod(namespace, name string, labels ...string) *corev1.Pod {
	pod := template(name, GoodImage)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: pairs(labels)},
		Spec:       pod.Spec,
	}
}

// Long makes a string of n characters.
func Long(n int) string {
	return strings.Repeat("x", n)
}

func template(name, image string) corev1.PodTemplateSpec {
	automount := false
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: pairs([]string{"app", name})},
		Spec: corev1.PodSpec{
			// Control planes without the service account controller have no token to mount.
			AutomountServiceAccountToken: &automount,
			Containers:                   []corev1.Container{{Name: "app", Image: image}},
		},
	}
}

func pairs(list []string) map[string]string {
	if len(list) < 2 {
		return nil
	}
	result := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		result[list[i]] = list[i+1]
	}
	return result
}

func change[T any](object *T, changes []func(*T)) *T {
	for _, c := range changes {
		c(object)
	}
	return object
}
