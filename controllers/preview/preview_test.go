package preview

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/test/builder"
)

func TestDifferences(t *testing.T) {
	before := builder.Deployment("shop", "web", "bad", 2)
	after := before.DeepCopy()
	after.ResourceVersion, after.Generation, after.Status.Replicas = "2", 7, 3
	if got := differences(before, after); len(got) != 0 {
		t.Errorf("what every change changes is told: %v", got)
	}
	after.Spec.Template.Spec.Containers[0].Image = "good"
	after.Spec.Template.Annotations = map[string]string{"mark": "1"}
	after.Spec.Paused = true
	want := []string{
		`spec.paused: (not set) -> true`,
		`spec.template.metadata.annotations: (not set) -> {"mark":"1"}`,
		`spec.template.spec.containers[0].image: "bad" -> "good"`,
	}
	if diff := cmp.Diff(want, differences(before, after)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i := range 40 {
		after.Labels[string(rune('a'+i%26))+string(rune('a'+i/26))] = "x"
	}
	if got := differences(before, after); len(got) != maxFields+1 || got[maxFields] != "and 27 more" {
		t.Errorf("%d fields, the last %q", len(got), got[len(got)-1])
	}
}

// shopFacts are a web tier of two pods, which take 10 s to start and 5 s to end, and a database of three, one after the other.
func shopFacts() *facts {
	of := func(kind, name string, replicas int32, oneByOne bool) *workload {
		d := builder.Deployment("shop", name, "bad", replicas)
		d.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(5))
		return &workload{
			ref: v1alpha1.ObjectRef{Kind: kind, Namespace: "shop", Name: name}, template: &d.Spec.Template, replicas: replicas, oneByOne: oneByOne, starts: 10 * time.Second,
		}
	}
	return &facts{workloads: map[v1alpha1.WorkloadRef]*workload{
		{Kind: "Deployment", Name: "web"}: of("Deployment", "web", 2, false), {Kind: "StatefulSet", Name: "db"}: of("StatefulSet", "db", 3, true),
	}}
}

func TestEstimate(t *testing.T) {
	db, web := v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: "db"}, v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}
	back := builder.RollBack("back", db)
	back.DependsOn = []string{"stop"}
	watch := builder.Release("free", "ask")
	watch.Release.ObserveSeconds = 60
	plan := v1alpha1.RecoveryPlanSpec{
		Images: []v1alpha1.KnownGoodImages{builder.KnownGood("StatefulSet", "db", "app", builder.GoodImage)},
		Steps: []v1alpha1.RecoveryStep{
			builder.Scale("stop", "web", v1alpha1.ScaleToZero), back, builder.Scale("start", "web", v1alpha1.ScaleToOriginal, "back"), builder.Approve("ask", "start"), watch,
		},
	}
	inc := builder.Incident("shop", "miner")
	inc.Status.Revisions = []v1alpha1.RevisionStatus{{Workload: v1alpha1.ObjectRef{Kind: "StatefulSet", Namespace: "shop", Name: "db"}, State: v1alpha1.RevisionHeld}}
	x := &recovery.Execution{Incident: inc, Plan: plan}
	seconds := func(n int) metav1.Duration { return metav1.Duration{Duration: time.Duration(n) * time.Second} }
	want := Estimate{
		Total: seconds(5 + 45 + 10 + 60), Approvals: 1,
		Downtime: []Downtime{
			{Workload: db, For: seconds(50), Why: "quarantined until it runs its known-good revision"},
			{Workload: web, For: seconds(60), Why: "from step stop until it has its replicas again"},
		},
	}
	if diff := cmp.Diff(want, shopFacts().estimate(x)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	inc.Status.Recovery = &v1alpha1.RecoveryStatus{Steps: []v1alpha1.StepStatus{{Name: "stop", State: v1alpha1.StepSucceeded}, {Name: "back", State: v1alpha1.StepRunning}}}
	if got := shopFacts().estimate(x).Total; got != seconds(45+10+60) {
		t.Errorf("what is over is counted: %s", got.Duration)
	}
}

func TestObstacles(t *testing.T) {
	f := shopFacts()
	f.workloads[v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}].paused = true
	f.workloads[v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}].history = new(int32(0))
	f.claims = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", Finalizers: []string{"kubernetes.io/pvc-protection", "example.com/backup"}}}}
	status := func(used string) corev1.ResourceQuotaStatus {
		return corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("3")}, Used: corev1.ResourceList{corev1.ResourcePods: resource.MustParse(used)}}
	}
	f.quotas = []corev1.ResourceQuota{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "full"}, Status: status("3")}, {ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "roomy"}, Status: status("2")},
	}
	x := &recovery.Execution{Incident: builder.Incident("shop", "miner"), Plan: v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{
		builder.RollBack("back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}), builder.RestoreVolumes("restore", nil, "data"),
	}}}
	want := []string{
		"true Deployment web: step back: its rollout is paused: resume it (kubectl rollout resume)",
		"false Deployment web: it keeps no history (revisionHistoryLimit 0): what it runs now is in the evidence alone once it is rolled back",
		"true PersistentVolumeClaim data: step restore: the finalizer example.com/backup keeps it from being exchanged: see what it waits for",
		"true ResourceQuota full: there is no room for one pod more (3 of 3): quarantined pods count, and a rollout that starts new pods first would wait",
	}
	var got []string
	for _, o := range f.obstacles(x) {
		weight := "false "
		if o.Blocks {
			weight = "true "
		}
		got = append(got, weight+o.Object.Kind+" "+o.Object.Name+": "+o.Says)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What the rights of whoever asks do not allow says nothing about what the operator may; what a quota or admission refuses is refused.
func TestMayNot(t *testing.T) {
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"RBAC":       {apierrors.NewForbidden(deployments, "web", errors.New(`User "jane" cannot patch resource "deployments" in API group "apps" in the namespace "shop"`)), true},
		"a quota":    {apierrors.NewForbidden(deployments, "web", errors.New("exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4")), false},
		"admission":  {apierrors.NewForbidden(deployments, "web", errors.New(`violates PodSecurity "restricted:latest"`)), false},
		"a conflict": {apierrors.NewConflict(deployments, "web", errors.New("it was changed")), false},
	} {
		if got := mayNot(tc.err); got != tc.want {
			t.Errorf("%s: mayNot() = %t", name, got)
		}
	}
	p := &Preview{Steps: []Step{{Changes: []Change{{Tried: notTried}, {Tried: accepted}}}}}
	if p.Untried() {
		t.Error("what is none of the cluster's cannot be tried, and that is no lack of rights")
	}
	p.Steps[0].Changes[0].Why = "you may not do it"
	if !p.Untried() {
		t.Error("nothing is said to be left untried")
	}
}
