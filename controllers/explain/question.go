package explain

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/measure"
)

// question is the facts as package isolation wants them.
type question struct {
	*Facts
	// pod is the pod, with a UID.
	pod *corev1.Pod
	// set holds the policies, base what it takes to evaluate any one of them.
	set, base *isolation.Set
	policies  []*isolation.Policy
	// writtenFor are the UIDs of the Incidents that policies say they were written for.
	writtenFor map[isolation.Ref]string
	// holders are the UIDs of the Incidents that hold the pod, sorted.
	holders []string
}

func ask(f *Facts) *question {
	q := &question{
		Facts: f, pod: identified(f.Pod), set: isolation.NewSet(), base: isolation.NewSet(), writtenFor: map[isolation.Ref]string{}, holders: holders(f.Pod),
	}
	for _, ns := range f.Namespaces {
		q.set.PutNamespace(ns.Name, ns.Labels)
		if ns.Name == f.Pod.Namespace {
			q.base.PutNamespace(ns.Name, ns.Labels)
		}
	}
	for _, np := range f.NetworkPolicies {
		q.put(isolation.ReadNetworkPolicy(np), np.Labels)
	}
	for _, u := range f.Others {
		policy, tier := isolation.Read(u)
		if policy != nil {
			q.put(policy, u.GetLabels())
		}
		if tier != nil {
			q.set.PutTier(*tier)
			q.base.PutTier(*tier)
		}
	}
	return q
}

func (q *question) put(p *isolation.Policy, labels map[string]string) {
	q.set.Put(p)
	q.policies = append(q.policies, p)
	if uid, labelled := labels[v1alpha1.IncidentUIDLabel]; labelled {
		q.writtenFor[p.Ref] = uid
	}
}

// identified is the pod with a UID, which tells it from others. A manifest has none.
func identified(pod *corev1.Pod) *corev1.Pod {
	if pod.UID != "" {
		return pod
	}
	out := *pod
	out.UID = types.UID(fmt.Sprintf("of %s/%s", pod.Namespace, cmp.Or(pod.Name, pod.GenerateName)))
	return &out
}

// holders are the UIDs of the Incidents that hold the pod, sorted.
func holders(pod *corev1.Pod) []string {
	uids := measure.HeldByOthers(pod, "")
	uids = slices.DeleteFunc(uids, func(uid string) bool { return !measure.Holds(pod, types.UID(uid)) })
	slices.Sort(uids)
	return uids
}

// incident is the Incident with the UID; nil if it was not read.
func (q *question) incident(uid string) *v1alpha1.Incident {
	for _, inc := range q.Incidents {
		if string(inc.UID) == uid {
			return inc
		}
	}
	return nil
}

// exceptions are the declared exceptions that are open in the pod's namespace. What an Incident does not say to be open is not.
func (q *question) exceptions() []isolation.Exception {
	var out []isolation.Exception
	for _, uid := range q.holders {
		for _, e := range declaredBy(q.incident(uid)) {
			if stateOf(q.incident(uid), q.pod.Namespace, e.Name) == v1alpha1.ExceptionOpen {
				out = append(out, measure.Exceptions([]v1alpha1.EvidenceException{e})...)
			}
		}
	}
	return out
}

// declaredBy are the exceptions of the standing orders that govern the Incident, which may be nil.
func declaredBy(inc *v1alpha1.Incident) []v1alpha1.EvidenceException {
	if inc == nil || inc.Status.Policy == nil {
		return nil
	}
	return inc.Status.Policy.Spec.Isolation.Exceptions
}

func stateOf(inc *v1alpha1.Incident, ns, exception string) v1alpha1.ExceptionState {
	for _, st := range inc.Status.Exceptions {
		if st.Namespace == ns && st.Name == exception {
			return st.State
		}
	}
	return ""
}

// peers are the pods to tell active leaks from latent ones by; nil if there are none to go by.
func (q *question) peers() *isolation.Peers {
	if q.PodsWithin == ScopeNone {
		return nil
	}
	labels := map[string]map[string]string{}
	for _, ns := range q.Namespaces {
		labels[ns.Name] = ns.Labels
	}
	out := &isolation.Peers{}
	for i, pod := range q.Pods {
		peer := *identified(pod)
		if pod.UID == "" && pod.Name == "" {
			peer.UID = types.UID(fmt.Sprintf("%s %d", peer.UID, i)) // templates by generateName share everything else
		}
		out.Put(&peer, withName(labels[pod.Namespace], pod.Namespace))
	}
	return out
}

// withName adds the label with the namespace's name, which the API server keeps on every namespace.
func withName(labels map[string]string, name string) map[string]string {
	out := map[string]string{corev1.LabelMetadataName: name}
	for key, value := range labels {
		if key != corev1.LabelMetadataName {
			out[key] = value
		}
	}
	return out
}

// leaks are what is allowed though no exception declares it. Whether an Incident that could not be read declares what its own policies allow is not known.
func (q *question) leaks() []isolation.Leak {
	if q.outsidePolicies() {
		return nil
	}
	leaks := isolation.Evaluate(q.pod, q.set, q.exceptions(), q.peers())
	for i, l := range leaks {
		if l.Undecided == "" && q.mayBeDeclared(l) {
			leaks[i].Undecided = fmt.Sprintf("Incident %s, which holds the pod and may declare it as an exception, was not read: %s", q.writtenFor[l.Source], q.IncidentsUnread)
		}
	}
	slices.SortStableFunc(leaks, compareLeaks)
	return leaks
}

// mayBeDeclared says whether the leak is by a policy of an Incident that holds the pod and was not read.
func (q *question) mayBeDeclared(l isolation.Leak) bool {
	uid, written := q.writtenFor[l.Source]
	return written && q.IncidentsUnread != "" && slices.Contains(q.holders, uid) && q.incident(uid) == nil
}

// outsidePolicies says that no policy applies to the pod, whatever it selects.
func (q *question) outsidePolicies() bool { return q.pod.Spec.HostNetwork }
