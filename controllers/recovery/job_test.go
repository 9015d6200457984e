package recovery

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestJudgeJob(t *testing.T) {
	with := func(kind batchv1.JobConditionType, status corev1.ConditionStatus) batchv1.JobStatus {
		return batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: kind, Status: status, Reason: "Because", Message: "so"}}}
	}
	cases := map[string]struct {
		status       batchv1.JobStatus
		done, failed bool
		says         string
	}{
		"new":                 {says: "waits for Job shop/j, which has no pod: if that stays so, kubectl describe -n shop job/j says why"},
		"active":              {status: batchv1.JobStatus{Active: 1}, says: "1 pods are active"},
		"complete":            {status: with(batchv1.JobComplete, corev1.ConditionTrue), done: true, says: "has succeeded"},
		"failed":              {status: with(batchv1.JobFailed, corev1.ConditionTrue), failed: true, says: "has failed (Because: so); see kubectl logs -n shop job/j"},
		"not failed":          {status: with(batchv1.JobFailed, corev1.ConditionFalse), says: "waits for"},
		"about to fail":       {status: with(batchv1.JobFailureTarget, corev1.ConditionTrue), says: "waits for"},
		"pods have succeeded": {status: with(batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue), says: "waits for"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := judgeJob(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "j"}, Status: tc.status}, "Job shop/j")
			if got.Done != tc.done || got.Failed != tc.failed || !strings.Contains(got.Message, tc.says) {
				t.Errorf("judgeJob() = %+v, want done %v, failed %v, %q", got, tc.done, tc.failed, tc.says)
			}
		})
	}
}

// A step that is retried runs another Job; the same try is the same Job, whoever asks.
func TestJobNames(t *testing.T) {
	step := v1alpha1.RecoveryStep{Name: "a", RunJob: &v1alpha1.RunJobStep{Image: goodImage, Claims: []v1alpha1.JobClaim{{ClaimName: "data", MountPath: "/data"}}}}
	x := &Execution{Incident: incident(nil), Steps: states("a=Running")}
	first, again := jobFor(x, step), jobFor(x, step)
	x.Steps[0].Interventions = 1 // of which none was carried out
	refused := jobFor(x, step)
	x.Steps[0].Tries = 1
	retried := jobFor(x, step)
	if first.Name != again.Name || first.Name != refused.Name || first.Name == retried.Name {
		t.Errorf("names are %s, %s, after a refusal %s and, retried, %s", first.Name, again.Name, refused.Name, retried.Name)
	}
	spec := first.Spec.Template.Spec
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("the job has a token")
	}
	if !spec.Containers[0].VolumeMounts[0].ReadOnly {
		t.Error("a claim is writable that nobody asked to be")
	}
}
