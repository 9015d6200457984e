package recovery

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var noon = metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

func later(by time.Duration) metav1.Time { return metav1.NewTime(noon.Add(by)) }

// What was released counts as observed only while it is looked at.
func TestLoseSight(t *testing.T) {
	observing := func(change func(*v1alpha1.StepStatus)) v1alpha1.StepStatus {
		s := v1alpha1.StepStatus{Name: "out", State: v1alpha1.StepRunning, ObservedSince: noon}
		if change != nil {
			change(&s)
		}
		return s
	}
	cases := map[string]struct {
		was         v1alpha1.StepStatus
		neverLooked bool
		looks       bool
		want        v1alpha1.StepStatus
	}{
		"looked at in every pass": {was: observing(nil), looks: true, want: observing(nil)},
		"not looked at":           {was: observing(nil), want: observing(func(s *v1alpha1.StepStatus) { s.NotObservedSince = later(time.Minute) })},
		"still not": {
			was:  observing(func(s *v1alpha1.StepStatus) { s.NotObservedSince = later(time.Second) }),
			want: observing(func(s *v1alpha1.StepStatus) { s.NotObservedSince = later(time.Second) }),
		},
		"looked at again": {
			was:   observing(func(s *v1alpha1.StepStatus) { s.NotObservedSince, s.NotObservedSeconds = later(20*time.Second), 5 }),
			looks: true, want: observing(func(s *v1alpha1.StepStatus) { s.NotObservedSeconds = 45 }),
		},
		"by an operator that has just started": {was: observing(nil), neverLooked: true, looks: true, want: observing(func(s *v1alpha1.StepStatus) { s.NotObservedSeconds = 60 })},
		"finished":                             {was: observing(func(s *v1alpha1.StepStatus) { s.State = v1alpha1.StepSucceeded }), neverLooked: true, want: observing(func(s *v1alpha1.StepStatus) { s.State = v1alpha1.StepSucceeded })},
		"not released yet":                     {was: v1alpha1.StepStatus{State: v1alpha1.StepRunning}, want: v1alpha1.StepStatus{State: v1alpha1.StepRunning}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := []v1alpha1.StepStatus{tc.was}
			LoseSight(got, later(time.Minute), tc.neverLooked)
			if tc.looks {
				seenAgain(&got[0], later(time.Minute))
			}
			if diff := cmp.Diff(tc.want, got[0]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// waves is a plan whose step "out" releases Deployment web and StatefulSet db.
func waves() v1alpha1.RecoveryPlanSpec {
	return v1alpha1.RecoveryPlanSpec{
		Images: []v1alpha1.KnownGoodImages{good("main")},
		Steps: []v1alpha1.RecoveryStep{{Name: "out", Release: &v1alpha1.ReleaseStep{
			Workloads: []v1alpha1.WorkloadRef{{Kind: "Deployment", Name: "web"}, {Kind: "StatefulSet", Name: "db"}}, ObserveSeconds: 60,
		}}},
	}
}

// A wave of which a part is out is quarantined again also before the rest of it is, and before it is observed.
func TestRelapsedOnTheWay(t *testing.T) {
	web := v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}
	enforced := func(change func(*v1alpha1.Incident)) *v1alpha1.Incident {
		inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "sec", Name: "other", CreationTimestamp: later(time.Minute)}, Spec: v1alpha1.IncidentSpec{Mode: v1alpha1.ModeEnforce}}
		if change != nil {
			change(inc)
		}
		return inc
	}
	namesPod := func(inc *v1alpha1.Incident) {
		inc.Status.Pods = []v1alpha1.PodStatus{{Namespace: "shop", Name: "db-0", Owner: v1alpha1.ObjectRef{Kind: "StatefulSet", Namespace: "shop", Name: "db"}}}
	}
	cases := map[string]struct {
		out         v1alpha1.RevisionState
		compromised []string
		other       *v1alpha1.Incident
		relapsed    bool
		want        string
	}{
		"nothing has happened":          {out: v1alpha1.RevisionReleased},
		"nothing is out yet":            {out: v1alpha1.RevisionHeld, compromised: []string{goodDigest}},
		"the image is compromised":      {out: v1alpha1.RevisionReleased, compromised: []string{goodDigest}, want: "compromised"},
		"it is quarantined already":     {out: v1alpha1.RevisionReleased, compromised: []string{goodDigest}, relapsed: true},
		"another Incident holds a pod":  {out: v1alpha1.RevisionReleased, other: enforced(namesPod), want: "Incident sec/other, declared since, names Pod db-0 of db"},
		"another Incident is elsewhere": {out: v1alpha1.RevisionReleased, other: enforced(nil)},
		"another Incident was there before": {out: v1alpha1.RevisionReleased, other: enforced(func(inc *v1alpha1.Incident) {
			namesPod(inc)
			inc.CreationTimestamp = later(-time.Minute)
		})},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			plan := waves()
			inc := incident(&plan)
			inc.Spec.CompromisedDigests = tc.compromised
			inc.Status.Revisions = []v1alpha1.RevisionStatus{{ID: "r", Workload: web, State: tc.out}}
			if tc.relapsed {
				inc.Status.Recovery.Relapses = []v1alpha1.Relapse{{Workload: web, Step: "out"}}
			}
			x, _ := execution(inc)
			x.Plan, x.Others = plan, func(context.Context) ([]v1alpha1.Incident, error) {
				if tc.other == nil {
					return nil, nil
				}
				return []v1alpha1.Incident{*tc.other}, nil
			}
			got, err := relapsedOnTheWay(t.Context(), x, plan.Steps[0], &v1alpha1.StepStatus{Name: "out", State: v1alpha1.StepRunning, StartedAt: noon})
			if err != nil || (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("relapsedOnTheWay() = %q, %v, want %q in it", got, err, tc.want)
			}
		})
	}
}

// What a step has begun is not begun a second time beside it when people skip the step, or undo it, and have it retried.
func TestJobOfAnEarlierTryIsWaitedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		end  batchv1.JobConditionType
		uid  string
		want bool
	}{
		"it runs":         {uid: incidentUID, want: true},
		"it has ended":    {uid: incidentUID, end: batchv1.JobFailed},
		"somebody else's": {uid: "other"},
	} {
		t.Run(name, func(t *testing.T) {
			x, wrote := execution(incident(nil))
			x.Steps = states("run=Running")
			first := jobOf(x, "run", "", 60, podSpec("job"))
			first.Labels[v1alpha1.IncidentUIDLabel] = tc.uid
			if tc.end != "" {
				first.Status.Conditions = []batchv1.JobCondition{{Type: tc.end, Status: corev1.ConditionTrue}}
			}
			x.Reader = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(first).Build()
			x.Steps[0].Tries = 1
			out, err := runOnce(t.Context(), x, "run", "", jobOf(x, "run", "", 60, podSpec("job")))
			if err != nil || out.Done || out.Failed || (len(wrote.ops) == 0) != tc.want || tc.want && !strings.Contains(out.Message, first.Name) {
				t.Errorf("runOnce() = %+v, %v, wrote %v", out, err, wrote.ops)
			}
		})
	}
}

// What an Incident could not hold is refused before anything is changed, not when its status cannot be written any more.
func TestBoundsOfWhatAnIncidentHolds(t *testing.T) {
	x, _ := execution(incident(nil))
	x.Steps = states("a=Running", "b=Running")
	data := []byte(strings.Repeat("x", maxRecord))
	ref := func(n int) v1alpha1.ObjectRef { return v1alpha1.ObjectRef{Kind: "Pod", Name: string(rune('a' + n))} }
	n := 0
	for ; x.unrecordable("b", ref(n), data) == ""; n++ {
		x.Record("b", v1alpha1.StepRecord{Object: ref(n), Data: string(data)})
	}
	if n != maxRecorded/maxRecord {
		t.Errorf("%d records of %d bytes are held", n, maxRecord)
	}
	if why := x.unrecordable("a", ref(0), []byte("x")); !strings.Contains(why, "has room for") {
		t.Errorf("unrecordable() = %q", why)
	}
	if why := x.unrecordable("b", ref(0), data); why != "" {
		t.Errorf("what is recorded already cannot be recorded: %q", why)
	}
	big := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{{Name: "tell", Notify: &v1alpha1.NotifyStep{Message: strings.Repeat("x", maxPlan)}}}}
	if _, why := Unusable(big); !strings.Contains(why, "divide it") {
		t.Errorf("Unusable() = %q", why)
	}
}

func TestDigestOf(t *testing.T) {
	hex := strings.Repeat("c", 64)
	for image, want := range map[string]string{
		"registry/web@sha256:" + hex:                   "sha256:" + hex,
		"docker-pullable://registry/web@sha256:" + hex: "sha256:" + hex,
		"sha256:" + hex:                                "sha256:" + hex, // containerd
		"docker://sha256:" + hex:                       "sha256:" + hex, // cri-dockerd
		hex:                                            "sha256:" + hex, // CRI-O
		"registry/web:1":                               "registry/web:1",
	} {
		if got := digestOf(image); got != want {
			t.Errorf("digestOf(%s) = %s", image, got)
		}
	}
}

func TestASecretIsRotatedOnce(t *testing.T) {
	rotate := func(name string, secrets ...string) v1alpha1.RecoveryStep {
		step := v1alpha1.RecoveryStep{Name: name, RotateSecrets: &v1alpha1.RotateSecretsStep{}}
		for _, s := range secrets {
			step.RotateSecrets.Generate = append(step.RotateSecrets.Generate, v1alpha1.GeneratedSecret{SecretName: s})
		}
		return step
	}
	if _, why := Unusable(v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{rotate("a", "db"), rotate("b", "mail")}}); why != "" {
		t.Errorf("Unusable() = %q", why)
	}
	if _, why := Unusable(v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{rotate("a", "db"), rotate("b", "mail", "db")}}); !strings.Contains(why, "Secret db is rotated by step a and again by step b") {
		t.Errorf("Unusable() = %q", why)
	}
}

// Time in which nothing could be seen is made up for before the step succeeds.
func TestReleaseObservesForAsLongAsItSays(t *testing.T) {
	for name, tc := range map[string]struct {
		blindFor time.Duration
		done     bool
	}{"seen all the time": {0, true}, "not seen for half of it": {30 * time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			plan := waves()
			x, _ := execution(incident(&plan))
			x.Plan, x.Now, x.Steps = plan, later(time.Minute), states("out=Running")
			x.Steps[0].StartedAt, x.Steps[0].ObservedSince = noon, noon
			if tc.blindFor > 0 {
				x.Steps[0].NotObservedSince = later(time.Minute - tc.blindFor)
			}
			x.Others = func(context.Context) ([]v1alpha1.Incident, error) { return nil, nil }
			out, err := release{}.Run(t.Context(), x, plan.Steps[0])
			if err != nil || out.Done != tc.done || x.Steps[0].NotObservedSeconds != int32(tc.blindFor.Seconds()) || !x.Steps[0].NotObservedSince.IsZero() {
				t.Errorf("Run() = %+v, %v, with status %+v", out, err, x.Steps[0])
			}
		})
	}
}
