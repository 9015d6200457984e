package recovery

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func claiming(claim string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Volumes: []corev1.Volume{
		{Name: "scratch"}, {Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}},
	}}}
}

func named(name string, owners ...metav1.OwnerReference) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), OwnerReferences: owners}
}

func keptBy(kind, name string) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "example.com/v1", Kind: kind, Name: name, UID: types.UID(name), Controller: new(true)}
}

func TestConsumers(t *testing.T) {
	web := &appsv1.Deployment{ObjectMeta: named("web"), Spec: appsv1.DeploymentSpec{Template: claiming("data")}}
	set := func(name string) *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{ObjectMeta: named(name, keptBy("Deployment", "web")), Spec: appsv1.ReplicaSetSpec{Template: claiming("data")}}
	}
	using := func(p *corev1.Pod) { p.Spec.Volumes = claiming("data").Spec.Volumes }
	held := heldPod("evidence")
	using(held)
	cases := map[string]struct {
		objects []runtime.Object
		pods    []*corev1.Pod
		want    []string
		why     string
	}{
		"a Deployment, its pods, evidence, and what has ended": {
			objects: []runtime.Object{web, set("rs-old"), &appsv1.Deployment{ObjectMeta: named("other"), Spec: appsv1.DeploymentSpec{Template: claiming("log")}}, &batchv1.Job{
				ObjectMeta: named("migration"), Spec: batchv1.JobSpec{Template: claiming("data")}, Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}},
			}},
			pods: []*corev1.Pod{pod("a", "rs-old", "old", using), held, pod("ended", "", "", using, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })},
			want: []string{"web"},
		},
		"a Deployment that an operator keeps": {
			objects: []runtime.Object{&appsv1.Deployment{ObjectMeta: named("web", keptBy("Shop", "main")), Spec: appsv1.DeploymentSpec{Template: claiming("data")}}},
			why:     "Deployment web, which uses PersistentVolumeClaim data, is kept by Shop main (example.com/v1)",
		},
		"a StatefulSet that makes it, without replicas": {
			objects: []runtime.Object{web, &appsv1.StatefulSet{ObjectMeta: named("a"), Spec: appsv1.StatefulSetSpec{VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: named("data")}}}}},
			want:    []string{"web"}, // the claim is "data", and the set's are "data-a-0"
		},
		"a CronJob":     {objects: []runtime.Object{&batchv1.CronJob{ObjectMeta: named("nightly"), Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: claiming("data")}}}}}, why: "CronJob nightly uses"},
		"a running Job": {objects: []runtime.Object{&batchv1.Job{ObjectMeta: named("import"), Spec: batchv1.JobSpec{Template: claiming("data")}}}, why: "Job import uses"},
		"a ReplicaSet of something else": {
			objects: []runtime.Object{&appsv1.ReplicaSet{ObjectMeta: named("canary", keptBy("Rollout", "web")), Spec: appsv1.ReplicaSetSpec{Template: claiming("data")}}}, why: "ReplicaSet canary uses",
		},
		"a bare pod": {objects: []runtime.Object{web}, pods: []*corev1.Pod{pod("shell", "", "", using, func(p *corev1.Pod) { p.OwnerReferences = nil })}, why: "Pod shell, which is of no Deployment"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := workloads{deploymentOf: map[string]string{}}
			for _, o := range tc.objects {
				w.add(o)
			}
			got, why := w.consumers("data", byUID(tc.pods...))
			var names []string
			for _, d := range got {
				names = append(names, d.Name)
			}
			if diff := cmp.Diff(tc.want, names); diff != "" || !strings.Contains(why, tc.why) || (tc.why == "") != (why == "") {
				t.Errorf("consumers() = %v, %q, want %q", names, why, tc.why)
			}
		})
	}
}

func TestNamesClaimsOfASet(t *testing.T) {
	set := &appsv1.StatefulSet{ObjectMeta: named("db"), Spec: appsv1.StatefulSetSpec{VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: named("data")}}}}
	w := templated{object: set, template: &set.Spec.Template}
	for claim, want := range map[string]bool{"data-db-0": true, "data-db-17": true, "data-db": false, "data-db-x": false, "data-dbx-0": false, "log-db-0": false} {
		if got := w.names(claim); got != want {
			t.Errorf("names(%s) = %v, want %v", claim, got, want)
		}
	}
}

// The claim that a Deployment is to name says which one it takes the place of, and never is too long a name.
func TestStagedName(t *testing.T) {
	step := v1alpha1.RecoveryStep{Name: "restore", RestoreVolumes: &v1alpha1.RestoreVolumesStep{CutOver: v1alpha1.CutOverChangeClaim}}
	for claim, prefix := range map[string]string{"data": "data-restored-", strings.Repeat("a", 230) + ".-" + strings.Repeat("b", 20): strings.Repeat("a", 230) + ".-" + "b"} {
		r := &restoration{x: &Execution{Incident: incident(nil)}, step: step, choice: v1alpha1.StepChoice{Object: v1alpha1.ObjectRef{Name: claim}}}
		if got := r.stagedName(); !strings.HasPrefix(got, prefix) || len(got) > 253 {
			t.Errorf("stagedName() of %s = %s", claim, got)
		}
	}
	r := &restoration{x: &Execution{Incident: incident(nil)}, step: step, choice: v1alpha1.StepChoice{Object: v1alpha1.ObjectRef{Name: strings.Repeat("a", 235) + "-." + strings.Repeat("b", 16)}}}
	if got, want := r.stagedName(), strings.Repeat("a", 235)+"-restored-"; !strings.HasPrefix(got, want) {
		t.Errorf("stagedName() = %s, want %s…", got, want)
	}
}
