package isolation

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// podOf is a pod that the index is told of.
func podOf(namespace, name string, labels labelSet) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name), Labels: labels}}
}

// indexed is an index in which holder "inc" holds quarantined pods v0, v1, … in each of the namespaces, all of them isolated.
func indexed(t *testing.T, perNamespace int, namespaces ...string) *Index {
	t.Helper()
	x := NewIndex()
	for _, ns := range namespaces {
		x.PutNamespace(ns, nil)
		x.PutPolicy(ReadNetworkPolicy(in(denyPolicy(), ns)))
		for i := range perNamespace {
			pod := podOf(ns, fmt.Sprintf("v%d", i), labelSet{quarantineKey: "", "ordinal": fmt.Sprint(i)})
			x.PutPod(pod)
			x.Hold("inc", pod, nil)
			if leaks, held := x.Leaks(pod.UID); !held || len(leaks) > 0 {
				t.Fatalf("pod %s: held %v, leaks %v", pod.Name, held, leaks)
			}
		}
	}
	return x
}

// evaluationsOf counts the evaluations that a change costs, once every held pod was asked for, and returns who was woken.
func evaluationsOf(x *Index, change func() []string) (int, []string) {
	before := x.Evaluations()
	woken := change()
	for uid := range x.held {
		x.Leaks(uid)
	}
	return x.Evaluations() - before, woken
}

func TestAChangeTouchesOnlyThePodsItCanMatterTo(t *testing.T) {
	rule := func(name string, selector metav1.LabelSelector) *Policy {
		return ReadNetworkPolicy(newPolicy(name, ingress(selector, peers(namespacesPeer(labelled("team", "sec"))))))
	}
	cases := map[string]struct {
		prepare func(*Index)
		change  func(*Index) []string
		want    int
		woken   []string
	}{
		"a policy that selects nothing that is held": {
			change: func(x *Index) []string { return x.PutPolicy(rule("a", labelled("app", "web"))) },
		},
		"a policy that selects one pod": {
			change: func(x *Index) []string { return x.PutPolicy(rule("a", labelled("ordinal", "3"))) },
			want:   1, woken: []string{"inc"},
		},
		"a policy that selects every pod of its namespace": {
			change: func(x *Index) []string { return x.PutPolicy(rule("a", everything())) },
			want:   10, woken: []string{"inc"},
		},
		"the same policy again": {
			prepare: func(x *Index) { x.PutPolicy(rule("a", everything())) },
			change:  func(x *Index) []string { return x.PutPolicy(rule("a", everything())) },
		},
		"an edit that selects another pod touches both": {
			prepare: func(x *Index) { x.PutPolicy(rule("a", labelled("ordinal", "3"))) },
			change: func(x *Index) []string {
				p := newPolicy("a", ingress(labelled("ordinal", "4"), nil))
				p.Generation++
				return x.PutPolicy(ReadNetworkPolicy(p))
			},
			want: 2, woken: []string{"inc"},
		},
		"a policy that goes": {
			prepare: func(x *Index) { x.PutPolicy(rule("a", labelled("ordinal", "3"))) },
			change:  func(x *Index) []string { return x.RemovePolicy(rule("a", everything()).Ref) },
			want:    1, woken: []string{"inc"},
		},
		"a policy that was never there goes": {
			change: func(x *Index) []string { return x.RemovePolicy(rule("a", everything()).Ref) },
		},
		"a policy whose selector cannot be read": {
			change: func(x *Index) []string { return x.PutPolicy(rule("a", expression("app", "Sideways"))) },
			want:   10, woken: []string{"inc"},
		},
		"the labels of the namespace": {
			change: func(x *Index) []string { return x.PutNamespace(namespace, labelSet{"env": "prod"}) },
			want:   10, woken: []string{"inc"},
		},
		"the labels of another namespace, while nothing leaks": {
			change: func(x *Index) []string { return x.PutNamespace("sec", labelSet{"team": "sec"}) },
		},
		"case 15: a namespace gets the label that a latent leak waits for": {
			prepare: func(x *Index) {
				x.PutNamespace("sec", nil)
				x.PutPod(podOf("sec", "peer", nil))
				x.PutPolicy(rule("a", labelled("ordinal", "3")))
			},
			change: func(x *Index) []string { return x.PutNamespace("sec", labelSet{"team": "sec"}) },
			want:   1, woken: []string{"inc"},
		},
		"a new pod that a latent leak names": {
			prepare: func(x *Index) {
				x.PutNamespace("sec", labelSet{"team": "sec"})
				x.PutPolicy(rule("a", labelled("ordinal", "3")))
			},
			change: func(x *Index) []string { return x.PutPod(podOf("sec", "peer", nil)) },
			want:   1, woken: []string{"inc"},
		},
		"a new pod that no leak names": {
			prepare: func(x *Index) { x.PutPolicy(rule("a", labelled("ordinal", "3"))) },
			change:  func(x *Index) []string { return x.PutPod(podOf("sec", "peer", nil)) },
		},
		"a held pod's own labels": {
			change: func(x *Index) []string {
				return x.PutPod(podOf(namespace, "v3", labelSet{quarantineKey: "", "app": "web"}))
			},
			want: 1, woken: []string{"inc"},
		},
		"a held pod that is seen again as it was": {
			change: func(x *Index) []string {
				return x.PutPod(podOf(namespace, "v3", labelSet{quarantineKey: "", "ordinal": "3"}))
			},
		},
		"a tier that no policy is in": {
			change: func(x *Index) []string { return x.PutTier(Tier{Name: "security", Order: 10}) },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := indexed(t, 10, namespace, "other")
			if tc.prepare != nil {
				tc.prepare(x)
				evaluationsOf(x, func() []string { return nil })
			}
			got, woken := evaluationsOf(x, func() []string { return tc.change(x) })
			if got != tc.want {
				t.Errorf("%d pods were evaluated anew, want %d", got, tc.want)
			}
			if diff := cmp.Diff(tc.woken, woken); diff != "" && len(tc.woken)+len(woken) > 0 {
				t.Errorf("woken (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever happens in whatever order, the index says what an evaluation from scratch says.
func TestIndexAgreesWithEvaluate(t *testing.T) {
	for seed := range uint64(300) {
		g := newGenerator(seed, false)
		x := NewIndex()
		pods := map[types.UID]*corev1.Pod{}
		namespaces := map[string]labelSet{}
		policies := map[Ref]*Policy{}
		exceptions := g.exceptions()
		for range 60 {
			switch g.IntN(6) {
			case 0, 1:
				for _, p := range g.policies(exceptions) {
					p.Name, p.Generation = fmt.Sprint(g.IntN(4)), g.Int64()
					read := ReadNetworkPolicy(p)
					policies[read.Ref.key()] = read
					x.PutPolicy(read)
				}
			case 2:
				for key, p := range policies {
					x.RemovePolicy(p.Ref)
					delete(policies, key)
					break
				}
			case 3:
				name := pick(g, namespace, "other")
				namespaces[name] = pick(g, nil, labelSet{"team": "a"}, labelSet{"team": "b"})
				x.PutNamespace(name, namespaces[name])
			case 4:
				subject := g.subject()
				pod := podOf(pick(g, namespace, "other"), fmt.Sprint(g.IntN(3)), subject.Labels)
				pods[pod.UID] = pod
				x.PutPod(pod)
				if pod.Namespace == namespace {
					x.Hold("inc", pod, exceptions)
				}
			case 5:
				for uid := range pods {
					x.RemovePod(uid)
					delete(pods, uid)
					x.Release("inc", keysOf(pods))
					break
				}
			}
			// Asking now and then, and not always, leaves some results stale for longer.
			if g.IntN(3) == 0 {
				compareWithScratch(t, seed, x, pods, namespaces, policies, exceptions)
			}
		}
	}
}

func keysOf(pods map[types.UID]*corev1.Pod) map[types.UID]bool {
	out := map[types.UID]bool{}
	for uid := range pods {
		out[uid] = true
	}
	return out
}

func compareWithScratch(
	t *testing.T, seed uint64, x *Index, pods map[types.UID]*corev1.Pod, namespaces map[string]labelSet, policies map[Ref]*Policy, exceptions []Exception,
) {
	t.Helper()
	set, everybody := NewSet(), &Peers{}
	for name, labels := range namespaces {
		set.PutNamespace(name, labels)
	}
	for _, p := range policies {
		set.Put(p)
	}
	for _, pod := range pods {
		everybody.Put(pod, set.namespaceLabels(pod.Namespace))
	}
	for uid, pod := range pods {
		got, held := x.Leaks(uid)
		if held != (pod.Namespace == namespace) {
			t.Fatalf("seed %d: pod %s: held %v", seed, uid, held)
		}
		if !held {
			continue
		}
		if want := Evaluate(pod, set, exceptions, everybody); !slices.Equal(want, got) {
			t.Fatalf("seed %d: pod %s: (-from scratch +index):\n%s", seed, uid, cmp.Diff(want, got))
		}
	}
}

func TestExceptionsOfAllHoldersCount(t *testing.T) {
	collector := Exception{Direction: DirectionEgress, Peer: blockPeer("198.51.100.7/32"), Ports: []npPort{port(tcp, 443)}}
	x := NewIndex()
	pod := stripped()
	pod.UID = "v"
	x.PutPolicy(ReadNetworkPolicy(denyPolicy(collector)))
	x.Hold("one", pod, nil)
	if leaks, _ := x.Leaks("v"); len(leaks) != 1 {
		t.Errorf("undeclared: leaks %v, want one", leaks)
	}
	x.Hold("two", pod, []Exception{collector})
	if leaks, _ := x.Leaks("v"); len(leaks) != 0 {
		t.Errorf("declared by another holder: leaks %v, want none", leaks)
	}
	x.Release("two", nil)
	if leaks, _ := x.Leaks("v"); len(leaks) != 1 {
		t.Errorf("no longer declared: leaks %v, want one", leaks)
	}
	x.Release("one", nil)
	if _, held := x.Leaks("v"); held {
		t.Error("nobody holds the pod, and its leaks are kept")
	}
}
