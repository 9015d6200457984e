package isolation

import (
	"fmt"
	"runtime"
	"testing"
)

// fleet is an index with quarantined pods of 50 Incidents, spread over 50 namespaces, among many policies of others: some select by label, some select every pod of their namespace and
// deny only, so that they have to be looked at for every pod.
func fleet(pods, policies int) *Index {
	const namespaces = 50
	x := NewIndex()
	name := func(i int) string { return fmt.Sprintf("ns-%d", i%namespaces) }
	for i := range namespaces {
		x.PutNamespace(name(i), labelSet{"team": fmt.Sprint(i % 7)})
		x.PutPolicy(ReadNetworkPolicy(in(denyPolicy(), name(i))))
	}
	for i := range policies {
		p := newPolicy(fmt.Sprintf("p%d", i), ingress(labelled("app", fmt.Sprintf("app-%d", i)), peers(podsPeer(labelled("app", "client"))), port(tcp, 8080)))
		if i%10 == 0 {
			p.Spec = typed(spec{PodSelector: everything()}, typeIngress, typeEgress)
		}
		x.PutPolicy(ReadNetworkPolicy(in(p, name(i))))
	}
	for i := range pods {
		pod := podOf(name(i), fmt.Sprintf("pod-%d", i), labelSet{quarantineKey: "", "pod": fmt.Sprint(i)})
		x.PutPod(pod)
		x.Hold(fmt.Sprintf("inc-%d", i%namespaces), pod, nil)
	}
	return x
}

func (x *Index) askAll() {
	for uid := range x.held {
		x.Leaks(uid)
	}
}

// BenchmarkOneEdit is one edit of a policy among 2,000 while 5,000 pods are held, with every verdict asked for again. "narrow" selects one pod, "namespace" the 100 pods of its namespace, "every" all
// pods of the cluster by a cluster-scoped deny; "heap-MB" is what the whole index takes.
func BenchmarkOneEdit(b *testing.B) {
	cases := map[string]func(generation int64) *Policy{
		"narrow": func(g int64) *Policy {
			p := newPolicy("edited", ingress(labelled("pod", "50"), nil))
			p.Generation = g
			return ReadNetworkPolicy(in(p, "ns-0"))
		},
		"namespace": func(g int64) *Policy {
			p := newPolicy("edited", ingress(everything(), nil))
			p.Generation = g
			return ReadNetworkPolicy(in(p, "ns-0"))
		},
		"every": func(g int64) *Policy {
			return &Policy{
				Ref: Ref{Group: "test", Kind: "Deny", Name: "edited", Generation: g}, reported: true, subject: subject{parts: []constraint{nil}},
				ingress: []*section{{tier: tier{order: orderAdmin}, rules: []rule{{action: deny, peers: []box{podPeers(nil, "")}, ports: allPorts()}}}},
			}
		},
	}
	for name, edit := range cases {
		b.Run(name, func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			x := fleet(5000, 2000)
			x.askAll()
			generation := int64(0)
			for b.Loop() {
				generation++
				x.PutPolicy(edit(generation))
				x.askAll()
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "heap-MB")
			runtime.KeepAlive(x)
		})
	}
}
