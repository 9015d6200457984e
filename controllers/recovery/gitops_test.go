package recovery

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/gitops"
)

// argo is an object of Argo CD in namespace "argocd" that an Application applies, if that has a name.
func argo(kind, name, by string, changes ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{}}}
	out.SetAPIVersion("argoproj.io/v1alpha1")
	out.SetKind(kind)
	out.SetNamespace("argocd")
	out.SetName(name)
	out.SetUID(types.UID(kind + name))
	if by != "" {
		out.SetAnnotations(map[string]string{"argocd.argoproj.io/tracking-id": by + ":argoproj.io/" + kind + ":argocd/" + name})
	}
	for _, change := range changes {
		change(out)
	}
	return out
}

func inNamespace(ns string) func(*unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) {
		u.SetNamespace(ns)
		u.SetUID(u.GetUID() + types.UID(ns))
	}
}

// lists lets an Application say that it manages a Deployment, and no other object.
func lists(deployment string) func(*unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) {
		u.Object["status"] = map[string]any{"resources": []any{map[string]any{"kind": "Deployment", "namespace": "shop", "name": deployment}}}
	}
}

func webBy(annotations, labels map[string]string) managed {
	return managed{kind: "Deployment", object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: annotations, Labels: labels}}}
}

func tracked(app string) managed {
	return webBy(map[string]string{"argocd.argoproj.io/tracking-id": app + ":apps/Deployment:shop/web"}, nil)
}

// serving reads the objects, from a server that serves the kinds of Argo CD, or none of them.
func serving(argoCD bool, objects ...*unstructured.Unstructured) *Execution {
	mapper := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "argoproj.io", Version: "v1alpha1"}})
	if argoCD {
		for _, kind := range []string{gitops.Application, gitops.ApplicationSet} {
			mapper.Add(schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: kind}, apimeta.RESTScopeNamespace)
		}
	}
	builder := fake.NewClientBuilder().WithScheme(runtime.NewScheme()).WithRESTMapper(mapper)
	app := &unstructured.Unstructured{}
	app.SetAPIVersion("argoproj.io/v1alpha1")
	app.SetKind("Application")
	builder = builder.WithIndex(app, "metadata.name", func(o client.Object) []string { return []string{o.GetName()} })
	for _, o := range objects {
		builder = builder.WithObjects(o)
	}
	reader := builder.Build()
	return &Execution{Reader: reader, Live: reader, Mapper: mapper, Incident: incident(nil)}
}

func TestManagersOf(t *testing.T) {
	owned := func(u *unstructured.Unstructured) {
		u.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "argoproj.io/v1alpha1", Kind: "ApplicationSet", Name: "tier", UID: "s"}})
	}
	cases := map[string]struct {
		object managed
		absent bool
		there  []*unstructured.Unstructured
		want   []string
		why    string
	}{
		"nothing":                       {object: webBy(nil, nil)},
		"an Application":                {object: tracked("web"), there: []*unstructured.Unstructured{argo("Application", "web", "")}, want: []string{"web"}},
		"an app of apps, the top first": {object: tracked("web"), there: []*unstructured.Unstructured{argo("Application", "web", "apps"), argo("Application", "apps", "root"), argo("Application", "root", "root")}, want: []string{"root", "apps", "web"}},
		"an ApplicationSet of an app of apps": {
			object: tracked("web"), there: []*unstructured.Unstructured{argo("Application", "web", "", owned), argo("ApplicationSet", "tier", "root"), argo("Application", "root", "")}, want: []string{"root", "tier for web", "web"},
		},
		"a circle": {
			object: tracked("a"), there: []*unstructured.Unstructured{argo("Application", "a", "b"), argo("Application", "b", "a")},
			why: "managers apply one another in a circle, and none of them is the top: Application argocd/a is applied by Application argocd/b is applied by Application argocd/a",
		},
		"one that is missing": {object: tracked("web"), why: "Deployment web says that Application web manages it, and there is none, or none that lists it: create it, or take the mark off"},
		"one of the same name that manages another": {
			object: tracked("web"), there: []*unstructured.Unstructured{argo("Application", "web", "", lists("other"))},
			why: "Deployment web says that Application web manages it, and there is none, or none that lists it: create it, or take the mark off",
		},
		"a missing one above":               {object: tracked("web"), there: []*unstructured.Unstructured{argo("Application", "web", "root")}, why: "Application web says that Application root manages it, and there is none, or none that lists it: create it, or take the mark off"},
		"one that this cluster cannot have": {object: tracked("web"), absent: true, why: "Deployment web says that Application web manages it, and this cluster does not serve its kind: pause it where it is, and have the step skipped"},
		"a label that a Helm release wrote": {object: webBy(nil, map[string]string{"app.kubernetes.io/instance": "web"}), there: []*unstructured.Unstructured{argo("Application", "web", "", lists("other"))}},
		"the same without Argo CD":          {object: webBy(nil, map[string]string{"app.kubernetes.io/instance": "web"}), absent: true},
		"a label that an Application has":   {object: webBy(nil, map[string]string{"app.kubernetes.io/instance": "web"}), there: []*unstructured.Unstructured{argo("Application", "web", "", lists("web"))}, want: []string{"web"}},
		"one of two of the same name":       {object: tracked("web"), there: []*unstructured.Unstructured{argo("Application", "web", "", lists("other")), argo("Application", "web", "", lists("web"), inNamespace("teams"))}, want: []string{"web"}},
		"two that both list it": {
			object: tracked("web"), there: []*unstructured.Unstructured{argo("Application", "web", "", lists("web")), argo("Application", "web", "", lists("web"), inNamespace("teams"))},
			why: "Deployment web says that Application web manages it, and there are several that list it: Application argocd/web, Application teams/web",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			found, free, why, err := managersOf(context.Background(), serving(!tc.absent, tc.there...), []managed{tc.object})
			if err != nil || why != tc.why {
				t.Fatalf("managersOf() says %q, %v, want %q", why, err, tc.why)
			}
			var got []string
			for _, m := range found {
				name := m.object.GetName()
				if m.child != "" {
					name += " for " + m.child
				}
				got = append(got, name)
			}
			if strings.Join(got, ", ") != strings.Join(tc.want, ", ") {
				t.Errorf("managersOf() = %v, want %v", got, tc.want)
			}
			if managesNothing := len(free) == 1; tc.why == "" && managesNothing != (len(tc.want) == 0) {
				t.Errorf("nothing manages %v", free)
			}
		})
	}
}

func TestBeyond(t *testing.T) {
	step := &v1alpha1.PauseGitOpsStep{ArgoCDNamespaces: []string{"argocd"}, FluxNamespaces: []string{"flux-system"}}
	for _, ref := range []v1alpha1.ObjectRef{{Kind: gitops.Application, Namespace: "argocd"}, {Kind: gitops.ApplicationSet, Namespace: "argocd"}, {Kind: gitops.Kustomization, Namespace: "flux-system"}} {
		if why := beyond(step, ref); why != "" {
			t.Errorf("beyond(%v) = %q", ref, why)
		}
	}
	for _, ref := range []v1alpha1.ObjectRef{{Kind: gitops.Application, Namespace: "flux-system"}, {Kind: gitops.HelmRelease, Namespace: "argocd"}, {Kind: gitops.Kustomization, Namespace: "shop"}} {
		if why := beyond(step, ref); !strings.Contains(why, "the step may not pause it") {
			t.Errorf("beyond(%v) = %q", ref, why)
		}
	}
}

// Others share what a step that is undone must not touch, and the declarer is asked before anything is written.
func TestNothingIsPausedInTheNameOfSomebodyWhoMayNot(t *testing.T) {
	app := argo("Application", "web", "")
	app.Object["spec"] = map[string]any{"syncPolicy": map[string]any{"automated": map[string]any{}}}
	x := serving(true, app)
	w := &writes{}
	inner, _ := execution(x.Incident, intended(v1alpha1.ActionPauseGitOps, managerRef(app)))
	x.Writer, x.Journal, x.Pauses = w, inner.Journal, &[]v1alpha1.GitOpsPause{{Object: managerRef(app), State: v1alpha1.GitOpsPausing}}
	var asked authorizationv1.ResourceAttributes
	x.May = func(_ context.Context, what authorizationv1.ResourceAttributes) (bool, error) {
		asked = what
		return false, nil
	}
	why, err := x.keepPaused(context.Background(), &(*x.Pauses)[0], app)
	if err != nil || !strings.Contains(why, "may not patch applications.argoproj.io in namespace argocd") || len(w.ops) > 0 {
		t.Errorf("keepPaused() = %q, %v, and writes %v", why, err, w.ops)
	}
	if want := (authorizationv1.ResourceAttributes{Namespace: "argocd", Name: "web", Verb: "patch", Group: "argoproj.io", Resource: "applications"}); asked != want {
		t.Errorf("asked whether the declarer may %v, want %v", asked, want)
	}
}

func paused(u *unstructured.Unstructured) {
	u.Object["spec"] = map[string]any{"syncPolicy": map[string]any{"automated": map[string]any{"enabled": false}}}
}

func syncing(u *unstructured.Unstructured) {
	u.Object["spec"] = map[string]any{"syncPolicy": map[string]any{"automated": map[string]any{}}}
}

func TestWatchPauses(t *testing.T) {
	app := managerRef(argo("Application", "web", ""))
	other := app
	other.UID = "before"
	type pause = v1alpha1.GitOpsPause
	cases := map[string]struct {
		steps   string
		was     pause
		manager *unstructured.Unstructured
		want    pause
		waits   string
	}{
		"all is well": {
			steps: "pause=Succeeded resume=Pending", was: pause{Object: app, State: v1alpha1.GitOpsPaused}, manager: argo("Application", "web", "", paused),
			want: pause{Object: app, State: v1alpha1.GitOpsPaused},
		},
		"somebody else's pause is ended": {
			steps: "pause=Succeeded resume=Pending", was: pause{Object: app, State: v1alpha1.GitOpsPaused, Borrowed: new(true)}, manager: argo("Application", "web", "", syncing),
			want: pause{Object: app, State: v1alpha1.GitOpsUndone, Undone: 1}, waits: "is about to be paused again",
		},
		"deleted and made anew": {
			steps: "pause=Succeeded resume=Pending", was: pause{Object: other, State: v1alpha1.GitOpsPaused}, manager: argo("Application", "web", "", syncing),
			want: pause{Object: app, State: v1alpha1.GitOpsUndone, Undone: 1}, waits: "it was deleted and made anew",
		},
		"gone": {
			steps: "pause=Succeeded resume=Pending", was: pause{Object: other, State: v1alpha1.GitOpsPaused},
			want: pause{Object: other, State: v1alpha1.GitOpsResumed},
		},
		"skipped before it came true": {
			steps: "pause=Skipped resume=Pending", was: pause{Object: app, State: v1alpha1.GitOpsPausing}, manager: argo("Application", "web", "", syncing),
			want: pause{Object: app, State: v1alpha1.GitOpsResumed},
		},
		"skipped after it did": {
			steps: "pause=Skipped resume=Pending", was: pause{Object: app, State: v1alpha1.GitOpsPausing}, manager: argo("Application", "web", "", paused),
			want: pause{Object: app, State: v1alpha1.GitOpsPaused},
		},
		"being resumed": {
			steps: "pause=Succeeded resume=Running", was: pause{Object: app, State: v1alpha1.GitOpsResuming}, manager: argo("Application", "web", "", paused),
			want: pause{Object: app, State: v1alpha1.GitOpsResuming},
		},
		"resuming is skipped half-way": {
			steps: "pause=Succeeded resume=Skipped", was: pause{Object: app, State: v1alpha1.GitOpsResuming}, manager: argo("Application", "web", "", paused),
			want: pause{Object: app, State: v1alpha1.GitOpsPaused},
		},
		"resuming is skipped when it is done": {
			steps: "pause=Succeeded resume=Skipped", was: pause{Object: app, State: v1alpha1.GitOpsResuming}, manager: argo("Application", "web", "", syncing),
			want: pause{Object: app, State: v1alpha1.GitOpsResumed},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var there []*unstructured.Unstructured
			if tc.manager != nil {
				there = append(there, tc.manager)
			}
			x := serving(true, there...)
			inner, _ := execution(x.Incident)
			x.Writer, x.Journal, x.Steps = inner.Writer, inner.Journal, states(strings.Fields(tc.steps)...)
			x.Plan.Steps = []v1alpha1.RecoveryStep{{Name: "pause", PauseGitOps: &v1alpha1.PauseGitOpsStep{}}, {Name: "resume", ResumeGitOps: &v1alpha1.ResumeGitOpsStep{}}}
			x.May = func(context.Context, authorizationv1.ResourceAttributes) (bool, error) { return true, nil }
			tc.was.Step, tc.want.Step = "pause", "pause"
			x.Pauses = &[]v1alpha1.GitOpsPause{tc.was}
			if err := WatchPauses(t.Context(), x); err != nil {
				t.Fatal(err)
			}
			got := (*x.Pauses)[0]
			if (x.Unpaused == "") != (tc.waits == "") || !strings.Contains(x.Unpaused, tc.waits) {
				t.Errorf("waits: %q, want %q", x.Unpaused, tc.waits)
			}
			got.Message, got.Before, got.Since = "", "", metav1.Time{}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// An ApplicationSet that is paused for several children keeps the mark until the last of them is resumed.
func TestTheMarkStaysUntilTheLastChildIsResumed(t *testing.T) {
	set := managerRef(argo("ApplicationSet", "tier", ""))
	x, _ := execution(incident(nil))
	x.Pauses = &[]v1alpha1.GitOpsPause{{Object: set, Child: "a", State: v1alpha1.GitOpsPaused}, {Object: set, Child: "b", State: v1alpha1.GitOpsResuming}}
	if !x.pausedForOthers((*x.Pauses)[1]) {
		t.Error("a is still paused")
	}
	(*x.Pauses)[0].State = v1alpha1.GitOpsResumed
	if x.pausedForOthers((*x.Pauses)[1]) {
		t.Error("nothing else is paused")
	}
}

func TestWhatWaitsForAPause(t *testing.T) {
	step := func(name string, dependsOn ...string) v1alpha1.RecoveryStep {
		return v1alpha1.RecoveryStep{Name: name, DependsOn: dependsOn, Verify: &v1alpha1.VerifyStep{}}
	}
	pause := v1alpha1.RecoveryStep{Name: "pause", PauseGitOps: &v1alpha1.PauseGitOpsStep{}}
	plan := []v1alpha1.RecoveryStep{pause, step("after", "pause"), step("long-after", "after", "beside"), step("beside"), {Name: "resume", DependsOn: []string{"after"}, ResumeGitOps: &v1alpha1.ResumeGitOpsStep{}}}
	x := &Execution{Plan: v1alpha1.RecoveryPlanSpec{Steps: plan}, Unpaused: "it is not paused"}
	for i, want := range []bool{false, true, true, false, false} {
		if got := x.heldBack(plan[i]) != ""; got != want {
			t.Errorf("step %s is held back: %t, want %t", plan[i].Name, got, want)
		}
	}
	resume := v1alpha1.RecoveryStep{Name: "resume", DependsOn: []string{"beside"}, ResumeGitOps: &v1alpha1.ResumeGitOpsStep{}}
	if why := unsound([]v1alpha1.RecoveryStep{pause, step("beside"), resume}); !strings.Contains(why, "depends on no pauseGitOps step") {
		t.Errorf("unsound() = %q", why)
	}
	if why := unsound([]v1alpha1.RecoveryStep{pause, {Name: "again", PauseGitOps: &v1alpha1.PauseGitOpsStep{}}}); !strings.Contains(why, "are both pauseGitOps") {
		t.Errorf("unsound() = %q", why)
	}
}

func TestOverride(t *testing.T) {
	plan := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{{Name: "look", Verify: &v1alpha1.VerifyStep{}}, {Name: "resume", ResumeGitOps: &v1alpha1.ResumeGitOpsStep{}}}}
	by := func(step string, actions ...v1alpha1.InterventionAction) []v1alpha1.Intervention {
		var out []v1alpha1.Intervention
		for _, a := range actions {
			out = append(out, v1alpha1.Intervention{Step: step, Action: a, Author: "ann", Reason: "I have looked at Git"})
		}
		return out
	}
	cases := map[string]struct {
		step, state string
		wish        []v1alpha1.InterventionAction
		override    string
		says        string
	}{
		"of a step that waits":               {"resume", "Running", []v1alpha1.InterventionAction{"Override"}, "Override by ann: I have looked at Git", "I have looked at Git"},
		"of one that waits for long":         {"resume", "Overdue", []v1alpha1.InterventionAction{"Override"}, "Override by ann: I have looked at Git", "I have looked at Git"},
		"counts for one try":                 {"resume", "Overdue", []v1alpha1.InterventionAction{"Override", "Retry"}, "", "Retry by ann"},
		"not of one that has failed":         {"resume", "Failed", []v1alpha1.InterventionAction{"Override"}, "", "a step that is Failed waits for nothing that could be overridden"},
		"not of a step that resumes nothing": {"look", "Running", []v1alpha1.InterventionAction{"Override"}, "", "only a resumeGitOps step is overridden"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Intervene(plan, states("look="+tc.state, "resume="+tc.state), by(tc.step, tc.wish...), metav1.Now())
			for _, s := range got {
				if s.Name == tc.step && (s.Override != tc.override || !strings.Contains(s.LastIntervention, tc.says)) {
					t.Errorf("override %q, says %q; want %q, %q", s.Override, s.LastIntervention, tc.override, tc.says)
				}
			}
		})
	}
}

// Whatever decides on the images of a workload is asked who applies it: the object that has the template, the Rollout that refers to it, and the owner that the plan changes.
func TestDecisiveObjects(t *testing.T) {
	owner := &unstructured.Unstructured{}
	owner.SetAPIVersion("example.com/v1")
	owner.SetKind("Database")
	owner.SetNamespace("shop")
	owner.SetName("main")
	owner.SetUID("main")
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "example.com/v1", Kind: "Database", Name: "main", UID: "main", Controller: new(true)},
	}}}
	rollout := &unstructured.Unstructured{}
	rollout.SetKind("Rollout")
	rollout.SetName("web")
	kept := v1alpha1.KnownGoodImages{Workload: v1alpha1.WorkloadRef{Kind: "StatefulSet", Name: "db"}, Owner: v1alpha1.WorkloadOwner{APIVersion: "example.com/v1", Kind: "Database", Name: "main"}}
	for name, tc := range map[string]struct {
		workload *workload
		want     []string
	}{
		"a Deployment": {&workload{ref: v1alpha1.ObjectRef{Kind: "Deployment", Namespace: "shop", Name: "web"}, object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}}}, []string{"Deployment web"}},
		"a Rollout that refers to a Deployment": {
			&workload{ref: v1alpha1.ObjectRef{Kind: "Rollout", Namespace: "shop", Name: "web"}, object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "template"}}, self: rollout},
			[]string{"Deployment template", "Rollout web"},
		},
		"a StatefulSet that an operator keeps": {&workload{ref: v1alpha1.ObjectRef{Kind: "StatefulSet", Namespace: "shop", Name: "db"}, object: set}, []string{"StatefulSet db", "Database main"}},
	} {
		t.Run(name, func(t *testing.T) {
			x, _ := execution(incident(nil))
			x.Reader = fake.NewClientBuilder().WithScheme(runtime.NewScheme()).WithObjects(owner).Build()
			x.Plan.Images = []v1alpha1.KnownGoodImages{kept}
			got, why, err := decisiveObjects(t.Context(), x, tc.workload)
			if err != nil || why != "" {
				t.Fatal(why, err)
			}
			var names []string
			for _, m := range got {
				names = append(names, m.String())
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("decisiveObjects() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTouchedNamesConsumers(t *testing.T) {
	choices := []v1alpha1.StepChoice{{Consumers: []v1alpha1.ObjectRef{{Kind: "Deployment", Name: "files"}, {Kind: "Deployment", Name: "files"}}}}
	got, _ := touched(v1alpha1.RecoveryPlanSpec{}, choices)
	if diff := cmp.Diff([]v1alpha1.WorkloadRef{{Kind: "Deployment", Name: "files"}}, got); diff != "" {
		t.Errorf("touched() (-want +got):\n%s", diff)
	}
}
