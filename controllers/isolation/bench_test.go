package isolation

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// crowd is a set with a namespace of 1,000 policies besides the operator's, and others with 20 each. Of the 1,000, one in ten selects every pod and allows nothing; the others select pods
// by a label, and with those of an even number one of the quarantined pod's labels is compared as well.
func crowd(unrelated int) *Set {
	set := NewSet(ReadNetworkPolicy(denyPolicy()))
	for i := range 1000 {
		set.Put(ReadNetworkPolicy(newPolicy(fmt.Sprint("p", i), crowdSpec(i))))
	}
	for n := range unrelated {
		name := fmt.Sprint("ns-", n)
		set.PutNamespace(name, labelSet{"team": fmt.Sprint(n % 7)})
		for i := range 20 {
			set.Put(ReadNetworkPolicy(in(newPolicy(fmt.Sprint("p", i), crowdSpec(i)), name)))
		}
	}
	return set
}

func crowdSpec(i int) spec {
	selector := labelled("app", fmt.Sprint("app-", i))
	switch {
	case i%10 == 0:
		return typed(spec{PodSelector: everything()}, typeIngress, typeEgress)
	case i%2 == 0:
		selector.MatchExpressions = []metav1.LabelSelectorRequirement{requires(quarantineKey, metav1.LabelSelectorOpDoesNotExist)}
	}
	return ingress(selector, peers(podsPeer(labelled("app", "client")), blockPeer("10.0.0.0/8", "10.1.0.0/16")), port(tcp, 8080))
}

// hostileCrowd is the worst case: every one of the 1,000 policies selects every pod and allows something.
func hostileCrowd() *Set {
	set := NewSet(ReadNetworkPolicy(denyPolicy()))
	for i := range 1000 {
		set.Put(ReadNetworkPolicy(newPolicy(fmt.Sprint("p", i), ingress(everything(), peers(podsPeer(labelled("app", fmt.Sprint("app-", i)))), port(tcp, 8080)))))
	}
	return set
}

// BenchmarkOnePod is one evaluation of one quarantined pod in a namespace with 1,000 policies, among 0, 10 and 1,000 other namespaces.
func BenchmarkOnePod(b *testing.B) {
	for _, unrelated := range []int{0, 10, 1000} {
		b.Run(fmt.Sprintf("unrelated=%d", unrelated), func(b *testing.B) {
			set, pod := crowd(unrelated), stripped()
			b.ReportAllocs()
			for b.Loop() {
				if leaks := Evaluate(pod, set, nil, nil); len(leaks) > 0 {
					b.Fatal(leaks)
				}
			}
		})
	}
	b.Run("hostile", func(b *testing.B) {
		set, pod := hostileCrowd(), stripped()
		b.ReportAllocs()
		for b.Loop() {
			if leaks := Evaluate(pod, set, nil, nil); len(leaks) != 1000 {
				b.Fatalf("%d leaks", len(leaks))
			}
		}
	})
}

// What an evaluation costs depends on the policies that it has to look at, and those do not depend on what there is in other namespaces.
func TestEvaluationLooksAtFewPolicies(t *testing.T) {
	got := map[int]int{}
	for _, unrelated := range []int{0, 10, 1000} {
		for range crowd(unrelated).candidates(stripped()) {
			got[unrelated]++
		}
	}
	const few = 101 // the operator's policy, and those that select every pod
	if diff := cmp.Diff(map[int]int{0: few, 10: few, 1000: few}, got); diff != "" {
		t.Errorf("policies looked at, by the number of other namespaces (-want +got):\n%s", diff)
	}
}
