package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func named(kind v1alpha1.TargetKind, name string) v1alpha1.Target {
	return v1alpha1.Target{Kind: kind, Name: name}
}

func podsOf(app string) v1alpha1.Target {
	return v1alpha1.Target{Kind: v1alpha1.TargetPod, Selector: selecting("app", app)}
}

func declare(recorded []v1alpha1.ResolvedTarget, targets ...v1alpha1.Target) *v1alpha1.Incident {
	inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "inc"}}
	inc.Spec.Targets, inc.Status.Targets = targets, recorded
	return inc
}

func entry(t v1alpha1.Target, ns, name, uid string) v1alpha1.ResolvedTarget {
	return v1alpha1.ResolvedTarget{Key: Key(t), Kind: t.Kind, Namespace: ns, Name: name, UID: uid}
}

func TestResolve(t *testing.T) {
	web, api := pod("web", "", bad, map[string]string{"app": "web"}), pod("api", "", bad, map[string]string{"app": "web"})
	elsewhere := pod("web", "", bad, map[string]string{"app": "web"})
	elsewhere.Namespace, elsewhere.UID = "other", "uid-elsewhere"
	objs := []client.Object{web, api, elsewhere, replicaSet("web", "rs", "", bad, 1), statefulSet("sts", bad, ""), daemonSet("ds", bad), cronJob("cron", bad), job("once", "", bad)}

	inOther := named(v1alpha1.TargetPod, "web")
	inOther.Namespace = "other"
	byName, bySelector := named(v1alpha1.TargetPod, "web"), podsOf("web")
	broken := v1alpha1.Target{Kind: v1alpha1.TargetPod, Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like"}}}}
	recorded := entry(byName, "shop", "web", "uid-of-an-earlier-web")

	cases := map[string]struct {
		inc    *v1alpha1.Incident
		want   []v1alpha1.ResolvedTarget
		reason string
		words  []string
	}{
		"by name":                         {inc: declare(nil, byName), want: []v1alpha1.ResolvedTarget{entry(byName, "shop", "web", "uid-web")}},
		"in another namespace":            {inc: declare(nil, inOther), want: []v1alpha1.ResolvedTarget{entry(inOther, "other", "web", "uid-elsewhere")}},
		"by selector, in one namespace":   {inc: declare(nil, bySelector), want: []v1alpha1.ResolvedTarget{entry(bySelector, "shop", "api", "uid-api"), entry(bySelector, "shop", "web", "uid-web")}},
		"the same entry twice":            {inc: declare(nil, byName, byName), want: []v1alpha1.ResolvedTarget{entry(byName, "shop", "web", "uid-web")}},
		"recorded ones keep their UID":    {inc: declare([]v1alpha1.ResolvedTarget{recorded}, byName), want: []v1alpha1.ResolvedTarget{recorded}},
		"recorded ones may be gone":       {inc: declare([]v1alpha1.ResolvedTarget{entry(named(v1alpha1.TargetPod, "gone"), "shop", "gone", "u")}, named(v1alpha1.TargetPod, "gone")), want: []v1alpha1.ResolvedTarget{entry(named(v1alpha1.TargetPod, "gone"), "shop", "gone", "u")}},
		"only new entries are looked up":  {inc: declare([]v1alpha1.ResolvedTarget{recorded}, byName, bySelector), want: []v1alpha1.ResolvedTarget{recorded, entry(bySelector, "shop", "api", "uid-api"), entry(bySelector, "shop", "web", "uid-web")}},
		"missing name":                    {inc: declare(nil, byName, named(v1alpha1.TargetPod, "nobody")), reason: v1alpha1.ReasonTargetNotFound, words: []string{"Pod shop/nobody"}},
		"name of an object of other kind": {inc: declare(nil, named(v1alpha1.TargetDeployment, "web")), reason: v1alpha1.ReasonTargetNotFound, words: []string{"Deployment shop/web"}},
		"selector that matches nothing":   {inc: declare(nil, byName, podsOf("nobody")), reason: v1alpha1.ReasonNothingSelected, words: []string{"spec.targets[1]", "app=nobody", "namespace shop"}},
		"selector that cannot be read":    {inc: declare(nil, broken), reason: v1alpha1.ReasonNothingSelected, words: []string{"cannot be read"}},
	}
	for kind, name := range map[v1alpha1.TargetKind]string{
		v1alpha1.TargetReplicaSet: "web", v1alpha1.TargetStatefulSet: "db", v1alpha1.TargetDaemonSet: "agent", v1alpha1.TargetCronJob: "nightly", v1alpha1.TargetJob: "once",
	} {
		uid := map[v1alpha1.TargetKind]string{"ReplicaSet": "rs", "StatefulSet": "sts", "DaemonSet": "ds", "CronJob": "cron", "Job": "uid-once"}[kind]
		cases["a "+string(kind)] = struct {
			inc    *v1alpha1.Incident
			want   []v1alpha1.ResolvedTarget
			reason string
			words  []string
		}{inc: declare(nil, named(kind, name)), want: []v1alpha1.ResolvedTarget{entry(named(kind, name), "shop", name, uid)}}
	}
	r := reader(objs...)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Resolve(context.Background(), r, tc.inc)
			wantProblem(t, err, tc.reason, tc.words...)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Resolve() (-want +got):\n%s", diff)
			}
		})
	}
}

func wantProblem(t *testing.T, err error, reason string, words ...string) {
	t.Helper()
	var p *Problem
	switch {
	case reason == "" && err != nil:
		t.Fatal(err)
	case reason == "":
		return
	case !errors.As(err, &p) || p.Reason != reason:
		t.Fatalf("error = %v, want a Problem with reason %s", err, reason)
	}
	for _, word := range words {
		if !strings.Contains(p.Message, word) {
			t.Errorf("message %q does not contain %q", p.Message, word)
		}
	}
}

// unreadable fails every request.
type unreadable struct{ client.Reader }

func (unreadable) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.New("the API server is away")
}

func (unreadable) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("the API server is away")
}

// What could not be read is not a problem of the Incident: nobody has to correct anything.
func TestResolveDoesNotBlameTheIncidentForTheServer(t *testing.T) {
	for name, tc := range map[string]v1alpha1.Target{"name": named(v1alpha1.TargetPod, "web"), "selector": podsOf("web")} {
		t.Run(name, func(t *testing.T) {
			var p *Problem
			if _, err := Resolve(context.Background(), unreadable{}, declare(nil, tc)); err == nil || errors.As(err, &p) {
				t.Errorf("error = %v, want one that is not a Problem", err)
			}
		})
	}
}

// The API bounds status.targets: what does not fit could never be recorded, so that the Incident would hang for good.
func TestResolveRefusesMoreThanStatusHolds(t *testing.T) {
	cases := map[string]struct {
		objects int
		reason  string
	}{
		"as many as fit": {objects: maxTargets},
		"one more":       {objects: maxTargets + 1, reason: v1alpha1.ReasonLimitExceeded},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var objs []client.Object
			for i := range tc.objects {
				objs = append(objs, pod(fmt.Sprintf("p%d", i), "", bad, map[string]string{"app": "web"}))
			}
			_, err := Resolve(context.Background(), reader(objs...), declare(nil, podsOf("web")))
			wantProblem(t, err, tc.reason)
		})
	}
}

func TestKey(t *testing.T) {
	a, b := named(v1alpha1.TargetPod, "a"), named(v1alpha1.TargetPod, "b")
	other := a
	other.Namespace = "other"
	if same := a; Key(a) != Key(same) || Key(a) == Key(b) || Key(a) == Key(other) {
		t.Errorf("keys %s, %s, %s: want the same for the same content only", Key(a), Key(b), Key(other))
	}
}

func TestNamespaces(t *testing.T) {
	other := named(v1alpha1.TargetPod, "x")
	other.Namespace = "other"
	got := Namespaces(declare(nil, other, named(v1alpha1.TargetPod, "a"), other, named(v1alpha1.TargetPod, "b")))
	if diff := cmp.Diff([]string{"other", "shop"}, got); diff != "" {
		t.Errorf("Namespaces() (-want +got):\n%s", diff)
	}
}

func pods(n int, ns string) []Pod {
	out := make([]Pod, 0, n)
	for i := range n {
		p := pod(fmt.Sprintf("%s-%d", ns, i), "", bad, nil)
		p.Namespace = ns
		out = append(out, Pod{Pod: p})
	}
	return out
}

func TestCheckProtected(t *testing.T) {
	dns := func(app string) []Pod {
		return []Pod{{Pod: pod("dns", "", bad, map[string]string{"k8s-app": app})}}
	}
	cases := map[string]struct {
		namespaces []string
		pods       []Pod
		word       string
	}{
		"ordinary":           {namespaces: []string{"shop", "bank"}, pods: dns("web")},
		"kube-system":        {namespaces: []string{"shop", "kube-system"}, word: "kube-system"},
		"a network plugin's": {namespaces: []string{"calico-system"}, word: "calico-system"},
		"the operator's own": {namespaces: []string{"cofferdam-elsewhere"}, word: "operator's own"},
		"by the policy":      {namespaces: []string{"vault"}, word: "ContainmentPolicy"},
		"kube-dns":           {namespaces: []string{"shop"}, pods: dns("kube-dns"), word: "DNS"},
		"coredns":            {namespaces: []string{"shop"}, pods: dns("coredns"), word: "DNS"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := CheckProtected(tc.namespaces, tc.pods, v1alpha1.ContainmentPolicySpec{ProtectedNamespaces: []string{"vault"}}, "cofferdam-elsewhere")
			reason := ""
			if tc.word != "" {
				reason = v1alpha1.ReasonProtected
			}
			wantProblem(t, err, reason, tc.word)
		})
	}
}

func TestCheckLimits(t *testing.T) {
	ended := func(phase corev1.PodPhase) Pod {
		p := pods(1, "shop")[0]
		p.Pod.UID, p.Pod.Status.Phase = "uid-ended", phase
		return p
	}
	cases := map[string]struct {
		namespaces []string
		targeted   []Pod
		others     []Pod
		limits     v1alpha1.Limits
		words      []string
	}{
		"nothing at all":                {limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 1, MaxNamespacePercent: 1}},
		"namespaces at the edge":        {namespaces: []string{"a", "b"}, limits: v1alpha1.Limits{MaxNamespaces: 2, MaxPods: 1, MaxNamespacePercent: 1}},
		"a namespace too many":          {namespaces: []string{"a", "b", "c"}, limits: v1alpha1.Limits{MaxNamespaces: 2, MaxPods: 9, MaxNamespacePercent: 100}, words: []string{"3 namespaces", "allows 2"}},
		"pods at the edge":              {namespaces: []string{"shop"}, targeted: pods(3, "shop"), limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 3, MaxNamespacePercent: 100}},
		"a pod too many":                {namespaces: []string{"shop"}, targeted: pods(4, "shop"), limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 3, MaxNamespacePercent: 100}, words: []string{"4 pods", "allows 3"}},
		"one of three at 33%":           {namespaces: []string{"shop"}, targeted: pods(1, "shop"), others: pods(3, "shop")[1:], limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 9, MaxNamespacePercent: 33}, words: []string{"1 of 3", "33%"}},
		"one of three at 34%":           {namespaces: []string{"shop"}, targeted: pods(1, "shop"), others: pods(3, "shop")[1:], limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 9, MaxNamespacePercent: 34}},
		"exactly half":                  {namespaces: []string{"shop"}, targeted: pods(2, "shop"), others: pods(4, "shop")[2:], limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 9, MaxNamespacePercent: 50}},
		"half, of the running ones":     {namespaces: []string{"shop"}, targeted: pods(1, "shop"), others: []Pod{ended(corev1.PodSucceeded)}, limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 9, MaxNamespacePercent: 50}, words: []string{"1 of 1"}},
		"failed ones do not run either": {namespaces: []string{"shop"}, targeted: pods(1, "shop"), others: []Pod{ended(corev1.PodFailed)}, limits: v1alpha1.Limits{MaxNamespaces: 1, MaxPods: 9, MaxNamespacePercent: 50}, words: []string{"1 of 1"}},
		"each namespace counts by itself": {
			namespaces: []string{"shop", "bank"}, targeted: append(pods(1, "shop"), pods(2, "bank")...), others: pods(9, "shop")[1:],
			limits: v1alpha1.Limits{MaxNamespaces: 2, MaxPods: 9, MaxNamespacePercent: 50}, words: []string{"2 of 2", "bank"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			all := map[string]*corev1.Pod{}
			for _, p := range append(append([]Pod(nil), tc.targeted...), tc.others...) {
				all[string(p.Pod.UID)] = p.Pod
			}
			reason := ""
			if len(tc.words) > 0 {
				reason = v1alpha1.ReasonLimitExceeded
			}
			wantProblem(t, CheckLimits(tc.namespaces, tc.targeted, all, tc.limits), reason, tc.words...)
		})
	}
}
