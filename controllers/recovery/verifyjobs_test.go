package recovery

import (
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var probing = &v1alpha1.VerifyStep{TCP: []v1alpha1.TCPCheck{{Host: "db", Port: 5432}}, ProbeSeconds: 60}

// probed is a probe's Job, with the pod of it in the state.
func probed(x *Execution, kind batchv1.JobConditionType, state corev1.ContainerState, phase corev1.PodPhase) *batchv1.Job {
	job := jobOf(x, "look", "verify/probe", probing.ProbeSeconds+probeGrace, corev1.PodSpec{})
	if kind != "" {
		job.Status.Conditions = []batchv1.JobCondition{{Type: kind, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded"}}
	}
	pod := pod("probe", "job", "", func(p *corev1.Pod) {
		p.Labels = map[string]string{batchv1.JobNameLabel: job.Name, RecoveryJobLabel: "look"}
		p.Status = corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{Name: "probe", State: state}}}
	})
	x.All = byUID(pod)
	return job
}

func TestRunProbe(t *testing.T) {
	says := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: "dial tcp:\nno route to host"}}
	deny := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default-deny"}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
	}
	inward := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "inward"}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
	cases := map[string]struct {
		kind         batchv1.JobConditionType
		state        corev1.ContainerState
		phase        corev1.PodPhase
		none         bool
		policies     []client.Object
		done, failed bool
		says         []string
		not          string
	}{
		"not there yet":    {none: true, says: []string{"is about to run"}},
		"running":          {phase: corev1.PodRunning, says: []string{"waits for Job"}},
		"succeeded":        {kind: batchv1.JobComplete, phase: corev1.PodSucceeded, done: true, says: []string{"has succeeded"}},
		"no image":         {phase: corev1.PodPending, state: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}, says: []string{"does not run: ImagePullBackOff"}},
		"failed":           {kind: batchv1.JobFailed, state: says, phase: corev1.PodFailed, failed: true, says: []string{"dial tcp: no route to host"}, not: "NetworkPolicies"},
		"failed, denied":   {kind: batchv1.JobFailed, state: says, phase: corev1.PodFailed, policies: []client.Object{deny, inward}, failed: true, says: []string{"no route to host", "egress of the probe pod: default-deny."}},
		"failed, not seen": {kind: batchv1.JobFailed, phase: corev1.PodRunning, says: []string{"is about to be seen"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x, wrote := execution(incident(nil))
			x.ProbeImage, x.Steps = "operator", states("look=Running")
			objects := slices.Clone(tc.policies)
			if !tc.none {
				objects = append(objects, probed(x, tc.kind, tc.state, tc.phase))
			}
			x.Reader = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).Build()
			out, err := lookAt(t.Context(), x, "look", "verify", probing)
			if err != nil || out.Done != tc.done || out.Failed != tc.failed || tc.not != "" && strings.Contains(out.Message, tc.not) {
				t.Errorf("lookAt() = %+v, %v, want done %v, failed %v", out, err, tc.done, tc.failed)
			}
			for _, word := range tc.says {
				if !strings.Contains(out.Message, word) {
					t.Errorf("lookAt() says %q, want %q", out.Message, word)
				}
			}
			if tc.none != (len(wrote.ops) == 1) {
				t.Errorf("wrote %v", wrote.ops)
			}
		})
	}
}

// A Job that has succeeded has, also when somebody clears it away while the step waits for something else; one that had not is not run a second time.
func TestRunOnce(t *testing.T) {
	for name, end := range map[string]batchv1.JobConditionType{"after its success": batchv1.JobComplete, "before": ""} {
		t.Run(name, func(t *testing.T) {
			x, wrote := execution(incident(nil))
			x.ProbeImage, x.Steps = "operator", states("look=Running")
			job := probed(x, end, corev1.ContainerState{}, corev1.PodRunning)
			x.Reader = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(job).Build()
			if _, err := runOnce(t.Context(), x, "look", "verify/probe", job); err != nil {
				t.Fatal(err)
			}
			x.Reader = fake.NewClientBuilder().WithScheme(scheme.Scheme).Build()
			out, err := runOnce(t.Context(), x, "look", "verify/probe", job)
			if err != nil || out.Done != (end != "") || out.Failed != (end == "") || len(wrote.ops) > 0 {
				t.Errorf("runOnce() = %+v, %v, wrote %v", out, err, wrote.ops)
			}
		})
	}
}

// The jobs of one step are told apart, and nothing about the pod needs privileges.
func TestProbePod(t *testing.T) {
	x := &Execution{Incident: incident(nil), Steps: states("look=Running")}
	names := map[string]bool{}
	for _, purpose := range []string{"", "verify/probe", "verify/job", "gate/probe", "gate/job"} {
		names[jobOf(x, "look", purpose, 60, corev1.PodSpec{}).Name] = true
	}
	if len(names) != 5 {
		t.Errorf("names are %v", names)
	}
	spec, err := probePod("operator", probing)
	if err != nil {
		t.Fatal(err)
	}
	c := spec.Containers[0]
	if *spec.AutomountServiceAccountToken || *c.SecurityContext.AllowPrivilegeEscalation || !*spec.SecurityContext.RunAsNonRoot || c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
		t.Errorf("the pod is %+v", spec)
	}
	if len(c.Args) != 2 || c.Args[0] != "probe" || !strings.Contains(c.Args[1], `"host":"db"`) {
		t.Errorf("its arguments are %v", c.Args)
	}
}

// A gate whose check has failed fails the step: nobody waits for what will not come.
func TestGateFails(t *testing.T) {
	x, _ := execution(incident(nil))
	x.Steps = states("look=Running")
	x.Reader = fake.NewClientBuilder().WithScheme(scheme.Scheme).Build()
	step := v1alpha1.RecoveryStep{Name: "look", Verify: &v1alpha1.VerifyStep{}, Gate: probing}
	out, err := Run(t.Context(), x, step)
	if err != nil || !out.Failed || !strings.Contains(out.Message, "its gate has failed: the operator does not know") {
		t.Errorf("Run() = %+v, %v", out, err)
	}
}
