package recovery

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/journal"
	"cofferdam.dev/cofferdam/controllers/measure"
)

func TestRandomValue(t *testing.T) {
	for charset, form := range map[v1alpha1.ValueCharset]string{
		"": "^[A-Za-z0-9]{32}$", v1alpha1.CharsetAlphanumeric: "^[A-Za-z0-9]{32}$", v1alpha1.CharsetHex: "^[0-9a-f]{32}$", v1alpha1.CharsetPrintable: "^[!-~]{32}$",
	} {
		seen, letters := map[string]bool{}, map[rune]bool{}
		for range 200 {
			value, err := randomValue(0, charset)
			if err != nil || !regexp.MustCompile(form).MatchString(value) || strings.ContainsAny(value, "'\"`\\") {
				t.Fatalf("randomValue(%q) = %q, %v", charset, value, err)
			}
			seen[value] = true
			for _, r := range value {
				letters[r] = true
			}
		}
		// 6400 characters: that one of 90 is missing happens once in 10^29 times.
		if want := len(charsets[charset]); len(seen) != 200 || charset != "" && len(letters) != want {
			t.Errorf("charset %q: %d values of 200, %d characters of %d", charset, len(seen), len(letters), want)
		}
	}
}

// Whatever the API server says, new values do not get into errors, which are logged and get into status.
func TestWithout(t *testing.T) {
	values := []string{"s3cret", "czNjcmV0"}
	quoting := apierrors.NewBadRequest("admission webhook denied: czNjcmV0 is weak")
	if got := without(quoting, values); got == nil || strings.Contains(got.Error(), "czNjcmV0") || !strings.Contains(got.Error(), "BadRequest") {
		t.Errorf("without() = %v", got)
	}
	plain := errors.New("no route to host")
	if got := without(plain, values); !errors.Is(got, plain) {
		t.Errorf("without() = %v", got)
	}
	if without(nil, values) != nil {
		t.Error("no error became one")
	}
}

func rotating(restart v1alpha1.RestartMode) *rotation {
	x, _ := execution(incident(nil))
	x.Steps, x.Now = states("rotate=Running"), metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	step := v1alpha1.RecoveryStep{Name: "rotate", RotateSecrets: &v1alpha1.RotateSecretsStep{
		Restart: restart, Generate: []v1alpha1.GeneratedSecret{{SecretName: "db"}},
	}}
	ref := v1alpha1.ObjectRef{Kind: secretKind, Namespace: "shop", Name: "db", UID: "secret"}
	x.Choices = []v1alpha1.StepChoice{{Step: "rotate", Object: ref}}
	r := newRotation(x, step)
	was, _, err := r.before(ref, rotated{Secret: "db"})
	if err == nil {
		err = r.renewed(v1alpha1.ActionRotateSecret, ref, was)
	}
	if err != nil {
		panic(err)
	}
	return r
}

func TestRotationID(t *testing.T) {
	r := rotating(v1alpha1.RestartNone)
	again := newRotation(r.x, r.step)
	r.x.Steps[0].Tries++
	if retried := newRotation(r.x, r.step); again.id != r.id || retried.id == r.id {
		t.Errorf("ids are %s, %s and, retried, %s", r.id, again.id, retried.id)
	}
}

// A record of an earlier try says how things were then; this try has its own.
func TestBefore(t *testing.T) {
	r := rotating(v1alpha1.RestartNone)
	ref := v1alpha1.ObjectRef{Kind: certificateKind, Namespace: "shop", Name: "tls", UID: "tls"}
	for _, step := range []struct {
		tries, revision int32
		want            int64
		fresh           bool
	}{{0, 1, 1, true}, {0, 2, 1, false}, {1, 2, 2, true}, {1, 3, 2, false}} {
		r.x.Steps[0].Tries = step.tries
		was, fresh, err := r.before(ref, rotated{Revision: int64(step.revision)})
		if err != nil || was.Revision != step.want || fresh != step.fresh {
			t.Errorf("before() in try %d at revision %d = %+v, %v, %v", step.tries, step.revision, was, fresh, err)
		}
	}
}

func TestOverlooked(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	user := func(name string, created time.Time, changes ...func(*corev1.Pod)) *corev1.Pod {
		return pod(name, "rs", "", append([]func(*corev1.Pod){func(p *corev1.Pod) {
			p.CreationTimestamp = metav1.NewTime(created)
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}},
			}}}}}
		}}, changes...)...)
	}
	id := rotating(v1alpha1.RestartConsumers).id
	cases := map[string]struct {
		pod  *corev1.Pod
		mode v1alpha1.RestartMode
		left bool
	}{
		"older":                {pod: user("old", at.Add(-time.Hour)), left: true},
		"of the same second":   {pod: user("same", at), left: true},
		"younger":              {pod: user("new", at.Add(time.Second))},
		"restarted":            {pod: user("restarted", at, func(p *corev1.Pod) { p.Annotations = map[string]string{v1alpha1.RotationAnnotation: id} })},
		"restarted before":     {pod: user("before", at, func(p *corev1.Pod) { p.Annotations = map[string]string{v1alpha1.RotationAnnotation: "other"} }), left: true},
		"ended":                {pod: user("ended", at, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })},
		"evidence":             {pod: user("held", at, func(p *corev1.Pod) { p.Labels[measure.QuarantineLabel(incidentUID)] = v1alpha1.QuarantineLabelValue })},
		"evidence of others":   {pod: user("others", at, func(p *corev1.Pod) { p.Labels[measure.QuarantineLabel("another")] = v1alpha1.QuarantineLabelValue })},
		"without the secret":   {pod: user("other", at, func(p *corev1.Pod) { p.Spec.Volumes = nil })},
		"elsewhere":            {pod: user("far", at, func(p *corev1.Pod) { p.Namespace = "far" })},
		"listed workloads are": {pod: user("old", at), mode: v1alpha1.RestartListed},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			mode := tc.mode
			if mode == "" {
				mode = v1alpha1.RestartConsumers
			}
			r := rotating(mode)
			r.x.All = byUID(tc.pod)
			if got := r.overlooked(); (got != "") != tc.left || tc.left && !strings.Contains(got, tc.pod.Name) {
				t.Errorf("overlooked() = %q, want something: %v", got, tc.left)
			}
		})
	}
}

// A restart of a compromised workload would make a revision that no policy selects yet.
func TestUnrecovered(t *testing.T) {
	plan := v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{good("main")}}
	held := v1alpha1.RevisionStatus{Workload: v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}, State: v1alpha1.RevisionHeld}
	free := held
	free.State = v1alpha1.RevisionReleased
	marked := func(image string) *workload {
		w := deployment()
		w.template.Annotations = map[string]string{v1alpha1.RecoveredByAnnotation: incidentUID}
		w.template.Spec = podSpec(image)
		return w
	}
	cases := map[string]struct {
		w         *workload
		revisions []v1alpha1.RevisionStatus
		waits     bool
	}{
		"not of the Incident":        {w: deployment()},
		"held":                       {w: deployment(), revisions: []v1alpha1.RevisionStatus{held}, waits: true},
		"rolled back":                {w: marked(goodImage), revisions: []v1alpha1.RevisionStatus{held}},
		"marked by somebody else":    {w: marked(badImage), revisions: []v1alpha1.RevisionStatus{held}, waits: true},
		"released as it turned out":  {w: deployment(), revisions: []v1alpha1.RevisionStatus{free}},
		"one revision is still held": {w: deployment(), revisions: []v1alpha1.RevisionStatus{free, held}, waits: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := rotating(v1alpha1.RestartConsumers)
			r.x.Incident = incident(&plan)
			r.x.Incident.Status.Revisions = tc.revisions
			if got := r.unrecovered(tc.w); (got != "") != tc.waits {
				t.Errorf("unrecovered() = %q, want it to wait: %v", got, tc.waits)
			}
		})
	}
}

func TestRolledOut(t *testing.T) {
	notReady := func(p *corev1.Pod) { p.Status.Conditions = nil }
	cases := map[string]struct {
		change func(*workload)
		pods   []*corev1.Pod
		done   bool
		says   string
	}{
		"ready":                {pods: []*corev1.Pod{pod("a", "rs-new", "new")}, done: true, says: "its 1 pods are ready"},
		"one of each":          {pods: []*corev1.Pod{pod("a", "rs-new", "new"), pod("b", "rs-old", "old")}, says: "pods from before the restart still run: b"},
		"not ready":            {pods: []*corev1.Pod{pod("a", "rs-new", "new", notReady)}, says: "not ready: a"},
		"too few":              {says: "0 of 1 pods are ready"},
		"paused":               {change: func(w *workload) { w.paused = true }, says: "is paused"},
		"not observed":         {change: func(w *workload) { w.observed = false }, says: "has not yet seen the change"},
		"left by its strategy": {change: func(w *workload) { w.onDelete = true }, pods: []*corev1.Pod{pod("b", "rs-old", "old")}, says: "delete them: b"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r, w := rotating(v1alpha1.RestartConsumers), deployment()
			if tc.change != nil {
				tc.change(w)
			}
			r.x.All = byUID(tc.pods...)
			if got := r.rolledOut(w); got.Done != tc.done || !strings.Contains(got.Message, tc.says) {
				t.Errorf("rolledOut() = %+v, want %v, %q", got, tc.done, tc.says)
			}
		})
	}
}

func TestOwnersSay(t *testing.T) {
	u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "payments"}, "spec": map[string]any{"refreshPolicy": "OnChange"}}}
	if got := neverSynced(u); got != "" || targetOf(u) != "payments" {
		t.Errorf("neverSynced() = %q, target %s", got, targetOf(u))
	}
	u.Object["spec"] = map[string]any{"refreshPolicy": "CreatedOnce", "target": map[string]any{"name": "key"}}
	if got := neverSynced(u); !strings.Contains(got, "delete its Secret key by hand") {
		t.Errorf("neverSynced() = %q", got)
	}
	since := metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	for at, want := range map[string]bool{"": false, "nonsense": false, "2026-01-01T11:00:00Z": false, "2026-01-01T12:00:01Z": true} {
		u.Object["status"] = map[string]any{"lastFailureTime": at}
		if got := failedSince(u, since); got != want {
			t.Errorf("failedSince(%q) = %v", at, got)
		}
	}
}

// A request that is refused for want of the role says which, and how to bind it.
func TestRefusedHow(t *testing.T) {
	r := rotating(v1alpha1.RestartNone)
	gvr := corev1.Resource("secrets")
	for _, tc := range []struct {
		err  error
		says string
	}{
		{apierrors.NewForbidden(gvr, "db", errors.New("no")), "bind the ClusterRole cofferdam-secret-rotation for it in namespace shop"},
		{fmt.Errorf("asking: %w", apierrors.NewForbidden(gvr, "db", errors.New("no"))), "--clusterrole=cofferdam-secret-rotation"},
		{apierrors.NewNotFound(gvr, "db"), "does not exist"},
		{errors.New("no route to host"), ""},
		{nil, ""},
	} {
		if got := r.refusedHow(tc.err, "patch Secret shop/db"); (got == "") != (tc.says == "") || !strings.Contains(got, tc.says) {
			t.Errorf("refusedHow(%v) = %q", tc.err, got)
		}
	}
}

// A workload that was made anew is restarted all the same if it is older than the last of the new values.
func TestYounger(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		values []string
		made   time.Time
		want   bool
	}{
		"after the only one":      {[]string{"db"}, at.Add(time.Second), true},
		"before it":               {[]string{"db"}, at.Add(-time.Second), false},
		"in the same second":      {[]string{"db"}, at, false},
		"between two":             {[]string{"db", "mail"}, at.Add(time.Second), false},
		"nothing has a new value": {nil, at.Add(time.Second), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := rotating("")
			r.x.Choices = nil
			for i, secret := range tc.values {
				ref := v1alpha1.ObjectRef{Kind: secretKind, Namespace: "shop", Name: secret}
				r.x.Choices = append(r.x.Choices, v1alpha1.StepChoice{Step: r.step.Name, Object: ref})
				if err := r.note(ref, rotated{Secret: secret, At: metav1.NewTime(at.Add(time.Duration(i) * time.Minute))}); err != nil {
					t.Fatal(err)
				}
			}
			w := deployment()
			w.object = &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", CreationTimestamp: metav1.NewTime(tc.made)}}
			if got := r.younger(w); got != tc.want {
				t.Errorf("younger() = %t", got)
			}
		})
	}
}

// What keeps a workload may take a restart back. It is not restarted again and again.
func TestRestarted(t *testing.T) {
	began := metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	entry := func(state v1alpha1.JournalState, at time.Duration) v1alpha1.JournalEntry {
		return v1alpha1.JournalEntry{Number: 1, Action: v1alpha1.ActionRestart, Object: deployment().ref, State: state, IntendedAt: metav1.NewTime(began.Add(at))}
	}
	for name, tc := range map[string]struct {
		journal []v1alpha1.JournalEntry
		want    bool
	}{
		"never":             {nil, false},
		"about to be":       {[]v1alpha1.JournalEntry{entry(v1alpha1.JournalIntended, time.Minute)}, false},
		"in an earlier try": {[]v1alpha1.JournalEntry{entry(v1alpha1.JournalDone, -time.Minute)}, false},
		"in this try":       {[]v1alpha1.JournalEntry{entry(v1alpha1.JournalDone, time.Minute)}, true},
	} {
		r := rotating("")
		r.x.Steps[0].StartedAt = began
		r.x.Journal = journal.New(tc.journal, began, false)
		if got := r.restarted(deployment()); got != tc.want {
			t.Errorf("%s: restarted() = %t", name, got)
		}
	}
}
