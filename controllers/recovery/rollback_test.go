package recovery

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestChange(t *testing.T) {
	marked := func(image string) *corev1.PodTemplateSpec {
		return &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.RecoveredByAnnotation: incidentUID}}, Spec: podSpec(image)}
	}
	withInit := &corev1.PodTemplateSpec{Spec: podSpec(badImage)}
	withInit.Spec.InitContainers = []corev1.Container{{Name: "init", Image: badImage}}
	mark := `"metadata":{"annotations":{"containment.cofferdam.dev/recovered-by":"inc-uid"}}`
	mainImage := `"containers":[{"name":"main","image":"` + goodImage + `"}]`
	initImage := `"initContainers":[{"name":"init","image":"` + goodImage + `"}]`

	cases := map[string]struct {
		template   *corev1.PodTemplateSpec
		path       []string
		good       v1alpha1.KnownGoodImages
		want       string
		detail     string
		impossible string
	}{
		"Deployment, StatefulSet, DaemonSet": {
			template: &corev1.PodTemplateSpec{Spec: podSpec(badImage)}, path: []string{"spec", "template"}, good: good("main"),
			want:   `{"metadata":{"uid":"dep"},"spec":{"template":{` + mark + `,"spec":{` + mainImage + `}}}}`,
			detail: "main: registry/web:bad -> " + goodImage,
		},
		"CronJob": {
			template: &corev1.PodTemplateSpec{Spec: podSpec(badImage)}, path: []string{"spec", "jobTemplate", "spec", "template"}, good: good("main"),
			want:   `{"metadata":{"uid":"dep"},"spec":{"jobTemplate":{"spec":{"template":{` + mark + `,"spec":{` + mainImage + `}}}}}}`,
			detail: "main: registry/web:bad -> " + goodImage,
		},
		"init containers too": {
			template: withInit, path: []string{"spec", "template"}, good: good("main", "init"),
			want:   `{"metadata":{"uid":"dep"},"spec":{"template":{` + mark + `,"spec":{` + mainImage + `,` + initImage + `}}}}`,
			detail: "main: registry/web:bad -> " + goodImage + "; init: registry/web:bad -> " + goodImage,
		},
		"good images without the mark are no recovered revision": {
			template: &corev1.PodTemplateSpec{Spec: podSpec(goodImage)}, path: []string{"spec", "template"}, good: good("main"),
			want:   `{"metadata":{"uid":"dep"},"spec":{"template":{` + mark + `,"spec":{` + mainImage + `}}}}`,
			detail: "main: " + goodImage + " -> " + goodImage,
		},
		"the mark without good images neither": {
			template: marked(badImage), path: []string{"spec", "template"}, good: good("main"),
			want:   `{"metadata":{"uid":"dep"},"spec":{"template":{` + mark + `,"spec":{` + mainImage + `}}}}`,
			detail: "main: registry/web:bad -> " + goodImage,
		},
		"there already":     {template: marked(goodImage), path: []string{"spec", "template"}, good: good("main")},
		"unknown container": {template: marked(goodImage), path: []string{"spec", "template"}, good: good("main", "sidecar"), impossible: "no container sidecar"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := deployment()
			w.template, w.path = tc.template, tc.path
			patch, detail, impossible := w.change(tc.good, incidentUID)
			if diff := cmp.Diff(decoded(t, []byte(tc.want)), decoded(t, patch)); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
			if detail != tc.detail {
				t.Errorf("detail = %q, want %q", detail, tc.detail)
			}
			if (impossible == "") != (tc.impossible == "") || !strings.Contains(impossible, tc.impossible) {
				t.Errorf("impossible = %q, want %q", impossible, tc.impossible)
			}
		})
	}
}

func decoded(t *testing.T, raw []byte) any {
	t.Helper()
	if len(raw) == 0 {
		return nil
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestJudge(t *testing.T) {
	notReady := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	noConditions := func(p *corev1.Pod) { p.Status.Conditions = nil }
	wrongDigest := func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ImageID = "registry/web@" + badDigest }
	noImageID := func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ImageID = "" }
	noStatus := func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }
	failed := func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed; notReady(p) }
	otherMirror := func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].ImageID = "docker-pullable://mirror/web@" + goodDigest
	}
	elsewhere := func(p *corev1.Pod) { p.Namespace = "bank" }
	fresh, old := pod("new", "rs-new", "new"), pod("old", "rs-old", "old")

	cases := map[string]struct {
		change func(*workload)
		pods   []*corev1.Pod
		want   string
		done   bool
	}{
		"recovered":                          {pods: []*corev1.Pod{fresh}, done: true, want: "1 pods run revision new"},
		"the digest counts, not the name":    {pods: []*corev1.Pod{pod("new", "rs-new", "new", otherMirror)}, done: true},
		"none wanted":                        {change: func(w *workload) { w.wanted = 0 }, done: true, want: "0 pods"},
		"others' pods do not count":          {pods: []*corev1.Pod{fresh, pod("x", "rs-other", "old"), pod("y", "rs-old", "old", elsewhere)}, done: true},
		"an old pod runs":                    {pods: []*corev1.Pod{fresh, old}, want: "old revision still run: old"},
		"an old pod without the label":       {pods: []*corev1.Pod{fresh, pod("odd", "rs-new", "")}, want: "old revision still run: odd"},
		"an old pod is being deleted":        {pods: []*corev1.Pod{fresh, pod("old", "rs-old", "old", deleted)}, want: "old revision still run"},
		"an old pod has failed for good":     {pods: []*corev1.Pod{fresh, pod("old", "rs-old", "old", failed)}, done: true},
		"a new pod has failed, and replaced": {pods: []*corev1.Pod{fresh, pod("evicted", "rs-new", "new", failed)}, done: true},
		"the only new pod has failed":        {pods: []*corev1.Pod{pod("evicted", "rs-new", "new", failed)}, want: "0 of 1 pods"},
		"not ready":                          {pods: []*corev1.Pod{pod("new", "rs-new", "new", notReady)}, want: "new is not ready"},
		"never told to be ready":             {pods: []*corev1.Pod{pod("new", "rs-new", "new", noConditions)}, want: "new is not ready"},
		"being deleted":                      {pods: []*corev1.Pod{pod("new", "rs-new", "new", deleted)}, want: "new is being deleted"},
		"one ready, one not":                 {pods: []*corev1.Pod{fresh, pod("new2", "rs-new", "new", notReady)}, want: "new2 is not ready"},
		"reports another digest":             {pods: []*corev1.Pod{pod("new", "rs-new", "new", wrongDigest)}, want: badDigest},
		"reports no digest":                  {pods: []*corev1.Pod{pod("new", "rs-new", "new", noImageID)}, want: `digest ""`},
		"reports nothing":                    {pods: []*corev1.Pod{pod("new", "rs-new", "new", noStatus)}, want: "no status of container main"},
		"too few":                            {change: func(w *workload) { w.wanted = 2 }, pods: []*corev1.Pod{fresh}, want: "1 of 2 pods"},
		"paused":                             {change: func(w *workload) { w.paused = true }, pods: []*corev1.Pod{fresh}, want: "is paused"},
		"unobserved":                         {change: func(w *workload) { w.observed = false }, pods: []*corev1.Pod{fresh}, want: "not yet seen"},
		"no hash yet":                        {change: func(w *workload) { w.hash = "" }, pods: []*corev1.Pod{fresh}, want: "not yet seen"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := deployment()
			if tc.change != nil {
				tc.change(w)
			}
			got := judge(&Execution{Incident: incident(nil), All: byUID(tc.pods...)}, w, good("main"))
			if got.Done != tc.done || !strings.Contains(got.Message, tc.want) {
				t.Errorf("judge() = %+v, want done: %v, %q", got, tc.done, tc.want)
			}
		})
	}
}

func TestJudgeLooksAtInitContainers(t *testing.T) {
	p := pod("new", "rs-new", "new", func(p *corev1.Pod) {
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", ImageID: "registry/web@" + badDigest}}
	})
	if got := judge(&Execution{Incident: incident(nil), All: byUID(p)}, deployment(), good("main", "init")); got.Done || !strings.Contains(got.Message, badDigest) {
		t.Errorf("judge() = %+v, want it to wait for the init container's digest", got)
	}
}

func stateful() *workload {
	w := deployment()
	w.ref = v1alpha1.ObjectRef{Kind: "StatefulSet", Namespace: "shop", Name: "db", UID: "sts"}
	w.owners, w.hashLabel = []string{"sts"}, appsv1.ControllerRevisionHashLabelKey
	w.names = []string{"db-0"}
	return w
}

func entryOf(p *corev1.Pod, ownerUID string) v1alpha1.PodStatus {
	return v1alpha1.PodStatus{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Owner: v1alpha1.ObjectRef{UID: ownerUID}}
}

func TestBlockers(t *testing.T) {
	held, attached, free := heldPod("db-0"), heldPod("db-1"), heldPod("db-2")
	attached.OwnerReferences = pod("x", "sts", "").OwnerReferences
	free.Labels = nil
	cases := map[string]struct {
		workload *workload
		pods     []*corev1.Pod
		owner    string
		want     string
	}{
		"detached evidence holds the name":            {workload: stateful(), pods: []*corev1.Pod{held}, owner: "sts", want: "db-0"},
		"of another workload":                         {workload: stateful(), pods: []*corev1.Pod{held}, owner: "sts2"},
		"a Deployment's pods have names of their own": {workload: deployment(), pods: []*corev1.Pod{held}, owner: "dep"},
		"attached to its owner":                       {workload: stateful(), pods: []*corev1.Pod{attached}, owner: "sts"},
		"held by nobody":                              {workload: stateful(), pods: []*corev1.Pod{free}, owner: "sts"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := &Execution{Incident: incident(nil), All: byUID(tc.pods...)}
			for _, p := range tc.pods {
				x.Pods = append(x.Pods, entryOf(p, tc.owner))
			}
			got := judge(x, tc.workload, good("main"))
			if got.Done || strings.Contains(got.Message, "hold the names") != (tc.want != "") || !strings.Contains(got.Message, tc.want) {
				t.Errorf("judge() = %+v, want blockers %q", got, tc.want)
			}
		})
	}
}

func TestUnblock(t *testing.T) {
	item := func(state v1alpha1.EvidenceState) v1alpha1.EvidenceItem {
		return v1alpha1.EvidenceItem{ID: string(state), Pods: []string{"uid-db-0"}, State: state}
	}
	ofAnother := v1alpha1.EvidenceItem{ID: "x", Pods: []string{"uid-db-9"}, State: v1alpha1.EvidenceCollected}
	ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "db-0", UID: "uid-db-0"}
	deleting := heldPod("db-0")
	deleting.DeletionTimestamp = new(metav1.Now())
	durable := []v1alpha1.JournalEntry{intended(v1alpha1.ActionDeletePod, ref)}
	cases := map[string]struct {
		how       v1alpha1.BlockedReplacement
		pod       *corev1.Pod
		evidence  []v1alpha1.EvidenceItem
		journal   []v1alpha1.JournalEntry
		want      []string
		intention bool
	}{
		"evidence complete: intended first":      {pod: heldPod("db-0"), evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected)}, intention: true},
		"evidence complete: then deleted":        {pod: heldPod("db-0"), evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected)}, journal: durable, want: []string{"delete Pod db-0"}, intention: true},
		"a gap":                                  {pod: heldPod("db-0"), evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected), item(v1alpha1.EvidenceGap)}},
		"an item is pending":                     {pod: heldPod("db-0"), evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected), item(v1alpha1.EvidencePending)}},
		"nothing was kept of it":                 {pod: heldPod("db-0"), evidence: []v1alpha1.EvidenceItem{ofAnother}},
		"another Incident holds it as well":      {pod: heldPod("db-0", "other"), evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected)}, journal: nil},
		"it is being deleted":                    {pod: deleting, evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected)}},
		"a person deletes":                       {how: v1alpha1.BlockedReplacementWait, pod: heldPod("db-0"), evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected)}},
		"intended, but another Incident came in": {pod: heldPod("db-0", "other"), evidence: []v1alpha1.EvidenceItem{item(v1alpha1.EvidenceCollected)}, journal: durable, intention: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x, w := execution(incident(nil), tc.journal...)
			x.All, x.Evidence, x.Pods = byUID(tc.pod), tc.evidence, []v1alpha1.PodStatus{entryOf(tc.pod, "sts")}
			how := tc.how
			if how == "" {
				how = v1alpha1.BlockedReplacementDeletePod
			}
			if err := unblock(context.Background(), x, stateful(), how); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, w.ops); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if got := x.Journal.Intended(v1alpha1.ActionDeletePod, ref); got != tc.intention {
				t.Errorf("intended = %v, want %v", got, tc.intention)
			}
		})
	}
}

func TestUnsettled(t *testing.T) {
	for name, tc := range map[string]struct {
		states []v1alpha1.EvidenceState
		want   string
	}{
		"nothing": {},
		"settled": {states: []v1alpha1.EvidenceState{v1alpha1.EvidenceCollected, v1alpha1.EvidenceGap}},
		"pending": {states: []v1alpha1.EvidenceState{v1alpha1.EvidenceCollected, v1alpha1.EvidencePending}, want: "1 evidence items"},
	} {
		t.Run(name, func(t *testing.T) {
			x := &Execution{}
			for _, s := range tc.states {
				x.Evidence = append(x.Evidence, v1alpha1.EvidenceItem{State: s})
			}
			if got := unsettled(x); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("unsettled() = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestApplyChangeIntendsFirst(t *testing.T) {
	x, w := execution(incident(nil))
	for range 2 {
		if _, err := applyChange(context.Background(), x, deployment(), []byte(`{}`), "images"); err != nil || len(w.ops) != 0 {
			t.Fatalf("writes = %v, %v, want none before the intent is durable", w.ops, err)
		}
	}
	x, w = execution(incident(nil), x.Journal.Entries()...)
	if out, err := applyChange(context.Background(), x, deployment(), []byte(`{}`), "images"); err != nil || out.Done || len(w.ops) != 1 {
		t.Errorf("applyChange() = %+v, %v, writes %v, want one write and no claim to be done", out, err, w.ops)
	}
}

func TestRecoveredBy(t *testing.T) {
	plan := &v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{good("main")}}
	ref := v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web", UID: "dep"}
	of := func(change func(*v1alpha1.ObjectRef)) v1alpha1.ObjectRef {
		out := ref
		change(&out)
		return out
	}
	mark := map[string]string{v1alpha1.RecoveredByAnnotation: incidentUID}
	cases := map[string]struct {
		inc         *v1alpha1.Incident
		workload    v1alpha1.ObjectRef
		annotations map[string]string
		image       string
		want        bool
	}{
		"mark and images":          {inc: incident(plan), workload: ref, annotations: mark, image: goodImage, want: true},
		"the mark alone":           {inc: incident(plan), workload: ref, annotations: mark, image: badImage},
		"the images alone":         {inc: incident(plan), workload: ref, image: goodImage},
		"another Incident's mark":  {inc: incident(plan), workload: ref, annotations: map[string]string{v1alpha1.RecoveredByAnnotation: "other"}, image: goodImage},
		"no plan is under way":     {inc: incident(nil), workload: ref, annotations: mark, image: goodImage},
		"not in the plan, by name": {inc: incident(plan), workload: of(func(r *v1alpha1.ObjectRef) { r.Name = "api" }), annotations: mark, image: goodImage},
		"not in the plan, by kind": {inc: incident(plan), workload: of(func(r *v1alpha1.ObjectRef) { r.Kind = "StatefulSet" }), annotations: mark, image: goodImage},
		"another namespace":        {inc: incident(plan), workload: of(func(r *v1alpha1.ObjectRef) { r.Namespace = "bank" }), annotations: mark, image: goodImage},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			spec := podSpec(tc.image)
			if got := RecoveredBy(tc.inc)(tc.workload, tc.annotations, &spec); got != tc.want {
				t.Errorf("RecoveredBy() = %v, want %v", got, tc.want)
			}
		})
	}
}

// Every container that the plan lists has to have its image, wherever it stands.
func TestRecoveredByLooksAtEveryListedContainer(t *testing.T) {
	plan := &v1alpha1.RecoveryPlanSpec{Images: []v1alpha1.KnownGoodImages{good("main", "init")}}
	ref := v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}
	for name, tc := range map[string]struct {
		init *corev1.Container
		want bool
	}{
		"missing": {}, "bad": {init: &corev1.Container{Name: "init", Image: badImage}}, "good": {init: &corev1.Container{Name: "init", Image: goodImage}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			spec := podSpec(goodImage)
			if tc.init != nil {
				spec.InitContainers = []corev1.Container{*tc.init}
			}
			if got := RecoveredBy(incident(plan))(ref, map[string]string{v1alpha1.RecoveredByAnnotation: incidentUID}, &spec); got != tc.want {
				t.Errorf("RecoveredBy() = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestRolledBack(t *testing.T) {
	plan := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{
		{Name: "go", Approve: &v1alpha1.ApproveStep{Required: 1}},
		{Name: "images", RollBackImages: &v1alpha1.RollBackImagesStep{Workloads: []v1alpha1.WorkloadRef{{Kind: "Deployment", Name: "web"}}}},
	}}
	for name, tc := range map[string]struct {
		ref  v1alpha1.ObjectRef
		want bool
	}{
		"in a step":    {ref: v1alpha1.ObjectRef{Kind: "Deployment", Name: "web"}, want: true},
		"another name": {ref: v1alpha1.ObjectRef{Kind: "Deployment", Name: "api"}},
		"another kind": {ref: v1alpha1.ObjectRef{Kind: "StatefulSet", Name: "web"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := RolledBack(plan, tc.ref); got != tc.want {
				t.Errorf("RolledBack() = %v, want %v", got, tc.want)
			}
		})
	}
}

// The Deployment's revision is the ReplicaSet that its controller made from the template as it is now.
func TestSameTemplate(t *testing.T) {
	template := func(change func(*corev1.PodTemplateSpec)) *corev1.PodTemplateSpec {
		out := &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}, Annotations: map[string]string{v1alpha1.RecoveredByAnnotation: incidentUID}}, Spec: podSpec(goodImage),
		}
		change(out)
		return out
	}
	hashed := func(t *corev1.PodTemplateSpec) { t.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "new" }
	cases := map[string]struct {
		change func(*corev1.PodTemplateSpec)
		want   bool
	}{
		"the same but for the hash": {change: hashed, want: true},
		"another image":             {change: func(t *corev1.PodTemplateSpec) { hashed(t); t.Spec.Containers[0].Image = badImage }},
		"without the mark":          {change: func(t *corev1.PodTemplateSpec) { hashed(t); t.Annotations = nil }},
		"a change that came after it": {change: func(t *corev1.PodTemplateSpec) {
			hashed(t)
			t.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
		}},
		"an init container that is new": {change: func(t *corev1.PodTemplateSpec) { hashed(t); t.Spec.InitContainers = []corev1.Container{{Name: "init"}} }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			current := template(func(*corev1.PodTemplateSpec) {})
			if got := sameTemplate(template(tc.change), current); got != tc.want {
				t.Errorf("sameTemplate() = %v, want %v", got, tc.want)
			}
			if _, has := current.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; has {
				t.Error("the template was changed")
			}
		})
	}
}
