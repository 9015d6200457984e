package recovery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/probe"
	"cofferdam.dev/cofferdam/controllers/target"
)

// probeGrace is how many seconds a probe pod has to be scheduled and to get its image, besides the time in which it probes.
const probeGrace = 300

// probes reports whether a probe pod looks at something.
func probes(what *v1alpha1.VerifyStep) bool { return what != nil && len(what.HTTP)+len(what.TCP) > 0 }

// runsJobs reports whether looking takes jobs, which run once for each try.
func runsJobs(what *v1alpha1.VerifyStep) bool {
	return what != nil && (probes(what) || what.Job.Image != "")
}

// runChecks runs what runs once: the probe pod and then the job.
func runChecks(ctx context.Context, x *Execution, step, as string, what *v1alpha1.VerifyStep) (Outcome, error) {
	var messages []string
	if probes(what) {
		out, err := runProbe(ctx, x, step, as, what)
		if err != nil || !out.Done {
			return out, err
		}
		messages = append(messages, out.Message)
	}
	if what.Job.Image != "" {
		job := jobOf(x, step, as+"/job", what.Job.TimeoutSeconds, jobPod(&what.Job))
		out, err := runOnce(ctx, x, step, as+"/job", job)
		if err != nil || !out.Done {
			return out, err
		}
		messages = append(messages, out.Message)
	}
	return done("%s", strings.Join(messages, "; ")), nil
}

func runProbe(ctx context.Context, x *Execution, step, as string, what *v1alpha1.VerifyStep) (Outcome, error) {
	if x.ProbeImage == "" {
		return failed("%s", lackingProbeImage), nil
	}
	pod, err := probePod(x.ProbeImage, what)
	if err != nil {
		return Outcome{}, err
	}
	job := jobOf(x, step, as+"/probe", what.ProbeSeconds+probeGrace, pod)
	out, err := runOnce(ctx, x, step, as+"/probe", job)
	if err != nil || out.Done {
		return out, err
	}
	return explainProbe(ctx, x, job, out)
}

const lackingProbeImage = "the operator does not know with which image to probe: start it with --probe-image, or with the variable POD_NAME as config/manager does"

// probePod makes the requests and ends. What it says about them comes back as its termination message. It has no token, and no privileges that the strictest Pod Security Standard would refuse.
func probePod(image string, what *v1alpha1.VerifyStep) (corev1.PodSpec, error) {
	arg, err := probe.Checks{HTTP: what.HTTP, TCP: what.TCP, Seconds: what.ProbeSeconds}.Encode()
	if err != nil {
		return corev1.PodSpec{}, fmt.Errorf("encoding the checks of a probe pod: %w", err)
	}
	little := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
	return corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), RunAsGroup: new(int64(65532)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: "probe", Image: image, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{"probe", strings.ReplaceAll(arg, "$", "$$")}, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			Resources: corev1.ResourceRequirements{Requests: little, Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}, nil
}

// explainProbe adds to the outcome what the pod has said, or why it does not run, and which policies of others it is subject to.
func explainProbe(ctx context.Context, x *Execution, job *batchv1.Job, out Outcome) (Outcome, error) {
	pod := podOfJob(x.All, job)
	if pod == nil {
		return out, nil
	}
	if !out.Failed {
		if why := notStarted(pod); why != "" {
			out.Message += "; Pod " + pod.Name + " does not run: " + why
		}
		return out, nil
	}
	if !target.Ended(pod) {
		return waiting("Job %s/%s has failed; what its pod has said is about to be seen", job.Namespace, job.Name), nil
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Terminated != nil && s.State.Terminated.Message != "" {
			out.Message += ": " + strings.Join(strings.Fields(s.State.Terminated.Message), " ")
		}
	}
	selecting, err := egressPolicies(ctx, x.Reader, pod)
	if err != nil {
		return Outcome{}, err
	}
	if len(selecting) > 0 {
		out.Message += fmt.Sprintf(". NetworkPolicies apply to the egress of the probe pod: %s. If they do not allow what it is to reach, allow it for pods with the label %s, and have the step retried",
			strings.Join(selecting, ", "), RecoveryJobLabel)
	}
	return out, nil
}

func podOfJob(all map[string]*corev1.Pod, job *batchv1.Job) *corev1.Pod {
	for _, p := range all {
		if p.Namespace == job.Namespace && p.Labels[batchv1.JobNameLabel] == job.Name && metav1.GetControllerOf(p) != nil {
			return p
		}
	}
	return nil
}

// notStarted says what keeps a pod's container from running, or "".
func notStarted(pod *corev1.Pod) string {
	for _, s := range pod.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" {
			return strings.TrimSpace(w.Reason + " " + w.Message)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason + " " + c.Message
		}
	}
	return ""
}

// egressPolicies are the names of the NetworkPolicies that limit what the pod can reach.
func egressPolicies(ctx context.Context, r client.Reader, pod *corev1.Pod) ([]string, error) {
	var list networkingv1.NetworkPolicyList
	if err := r.List(ctx, &list, client.InNamespace(pod.Namespace)); err != nil {
		return nil, fmt.Errorf("listing NetworkPolicies in namespace %s: %w", pod.Namespace, err)
	}
	var names []string
	for i := range list.Items {
		p := &list.Items[i]
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if len(p.Spec.Egress) > 0 || slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}
