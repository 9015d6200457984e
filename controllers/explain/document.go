package explain

import (
	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// APIVersion and Kind are those of every [PodExplanation]. Within a version fields are added, but never removed, renamed or given another meaning.
const (
	APIVersion = "explain.cofferdam.dev/v1alpha1"
	Kind       = "PodExplanation"
)

// Exit codes of a command that prints an explanation.
const (
	// ExitIsolated says that nothing is allowed but declared exceptions: no leak, nothing undecided, and policies can isolate the pod.
	ExitIsolated = 0
	// ExitLeaking says that something is allowed for certain, or that no policy applies to the pod because it uses its node's network.
	ExitLeaking = 1
	// ExitUnknown says that it is not known whether the pod is isolated, or that the question could not be answered.
	ExitUnknown = 2
)

// PodExplanation is the answer for one pod. Every string in it is one line of printable characters, of 2048 at most. Lists have at most 500 items, maps 256; of leaks and policies it is counted what was left out.
type PodExplanation struct {
	// APIVersion is [APIVersion], Kind is [Kind].
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Verdict is Isolated, Leaking, NotEnforceable or Unknown, with the same meaning as in the status of an Incident.
	Verdict v1alpha1.Verdict `json:"verdict"`
	// Message is the verdict in one line.
	Message string `json:"message"`
	// ExitCode is what the command exits with: 0 isolated, 1 leaking, 2 unknown.
	ExitCode int `json:"exitCode"`
	// Source says where the facts come from.
	Source Source `json:"source"`
	// Pod says which pod it is.
	Pod PodIdentity `json:"pod"`
	// NotEnforceable says why policies cannot isolate the pod; not set if they can.
	NotEnforceable *NotEnforceable `json:"notEnforceable,omitempty"`
	// Quarantine says who holds the pod; not set if nobody does and nothing was taken from it.
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	// Ingress is what may reach the pod, Egress what the pod may reach.
	Ingress Direction `json:"ingress"`
	Egress  Direction `json:"egress"`
	// LatentWithin says which pods were looked at to tell active leaks from latent ones.
	LatentWithin Scope `json:"latentWithin"`
	// Exceptions are those that the Incidents which hold the pod declare in its namespace.
	Exceptions []Exception `json:"exceptions,omitempty"`
	// Policies are all that select the pod, or may select it, those included that only deny. MorePolicies counts those that are not listed.
	Policies     []PolicyEffect `json:"policies,omitempty"`
	MorePolicies int            `json:"morePolicies,omitempty"`
	// Routes are what leads to the pod now. RoutesBefore led to it by the labels that it had before its quarantine, and do not now.
	Routes       []Route `json:"routes,omitempty"`
	RoutesBefore []Route `json:"routesBefore,omitempty"`
	// Residuals are ways in and out that policies do not govern, or that nobody has probed. They do not count against the verdict.
	Residuals []Residual `json:"residuals,omitempty"`
	// Notes are remarks for people.
	Notes []string `json:"notes,omitempty"`
	// NotLookedAt names what could not be read.
	NotLookedAt []Gap `json:"notLookedAt,omitempty"`
}

// Source says where facts come from.
type Source string

// Sources.
const (
	SourceCluster Source = "Cluster"
	SourceFiles   Source = "Files"
)

// Scope is a set of pods.
type Scope string

const (
	// ScopeCluster are all pods of the cluster.
	ScopeCluster Scope = "Cluster"
	// ScopeNamespace are the pods of the explained pod's namespace. Pods of other namespaces were not looked at, so that a leak that counts as latent may be used by one of them.
	ScopeNamespace Scope = "Namespace"
	// ScopeFiles are the pods that the files hold.
	ScopeFiles Scope = "Files"
	// ScopeNone are no pods: none could be read, and every leak counts as active, or there is no leak, and nobody had to be looked at.
	ScopeNone Scope = "None"
)

// PodIdentity says which pod it is.
type PodIdentity struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	UID       string            `json:"uid,omitempty"`
	Node      string            `json:"node,omitempty"`
	IPs       []string          `json:"ips,omitempty"`
	Phase     string            `json:"phase,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// NotEnforceable says why policies cannot isolate a pod.
type NotEnforceable struct {
	// Reason is HostNetwork, MirrorPod or SecondaryInterface.
	Reason string `json:"reason"`
	// Message is for people.
	Message string `json:"message"`
}

// Quarantine says who holds a pod, and what it was before.
type Quarantine struct {
	// Incidents are those whose quarantine label the pod carries, sorted by UID.
	Incidents []HoldingIncident `json:"incidents,omitempty"`
	// Detached says that the pod's own labels were taken off and are kept in an annotation.
	Detached bool `json:"detached"`
	// LabelsBefore are the labels without quarantine.
	LabelsBefore map[string]string `json:"labelsBefore,omitempty"`
	// OwnerBefore is the controller that a detached pod had, as "ReplicaSet web-5d4f".
	OwnerBefore string `json:"ownerBefore,omitempty"`
}

// HoldingIncident is an Incident that holds the pod.
type HoldingIncident struct {
	UID string `json:"uid"`
	// Namespace, Name and Title are not set if the Incident could not be read.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Title     string `json:"title,omitempty"`
	// Verdict is what the Incident's own status says of the pod, if it speaks of it.
	Verdict v1alpha1.Verdict `json:"verdict,omitempty"`
	// Problem says why nothing more is known of the Incident.
	Problem string `json:"problem,omitempty"`
}

// Direction is what policies allow in one direction.
type Direction struct {
	// Allowed is everything that the policies that were read allow, or may allow, now, exceptions included: "nothing", "any peer on TCP/80; …".
	Allowed string `json:"allowed"`
	// Before is what the policies that exist now, without those of Incidents, would allow to the labels that the pod had before its quarantine. Not set if it is not quarantined.
	Before string `json:"before,omitempty"`
	// Wider says that more is allowed now than before.
	Wider bool `json:"wider,omitempty"`
	// Leaks are what is allowed though no exception declares it, those that are certain and active first. MoreLeaks counts those that are not listed.
	Leaks     []Leak `json:"leaks,omitempty"`
	MoreLeaks int    `json:"moreLeaks,omitempty"`
}

// Leak is one set of flows that is, or may be, allowed though no exception declares it.
type Leak struct {
	// Peer is the other end and Ports are the destination ports, both in words.
	Peer  string `json:"peer"`
	Ports string `json:"ports"`
	// Policy is the policy that allows it; not set if it is allowed because no policy restricts the direction.
	Policy *PolicyRef `json:"policy,omitempty"`
	// Rule is the index of the rule, counted from 0, in List of the policy, or in its list for the direction if List is not set. It is -1 if no single rule is the cause.
	Rule int    `json:"rule"`
	List string `json:"list,omitempty"`
	// Reason is AllowRule, NotSelected, InvalidSelector, InvalidCIDR, InvalidPeer or InvalidPort.
	Reason string `json:"reason"`
	// State is Active if somebody can use the leak now, Latent if none of the pods that were looked at matches.
	State v1alpha1.LeakState `json:"state"`
	// Undecided says why it is not certain that the flows are allowed. Not set for a certain leak.
	Undecided string `json:"undecided,omitempty"`
	// Remedy is the edit that closes the leak.
	Remedy string `json:"remedy"`
}

// PolicyRef names a policy, and the state of it that was evaluated.
type PolicyRef struct {
	Group      string `json:"group"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
	Generation int64  `json:"generation,omitempty"`
}

// PolicyEffect is what one policy would leave open to the pod if it were the only one.
type PolicyEffect struct {
	PolicyRef
	// Ingress and Egress are "nothing", "not restricted", or what is left open, in words.
	Ingress string `json:"ingress"`
	Egress  string `json:"egress"`
	// Undecided says why it is not certain that the policy selects the pod, or is in effect.
	Undecided string `json:"undecided,omitempty"`
	// IncidentUID is that of the Incident that the policy says it was written for.
	IncidentUID string `json:"incidentUID,omitempty"`
}

// Exception is a flow that the standing orders of an Incident declare.
type Exception struct {
	// Incident is the Incident as namespace/name.
	Incident  string                    `json:"incident"`
	Name      string                    `json:"name"`
	Direction v1alpha1.TrafficDirection `json:"direction"`
	// State is Open or Withheld, or not set if the Incident does not say. Only what is open counts as declared.
	State v1alpha1.ExceptionState `json:"state,omitempty"`
	// Flows are the peer and the ports, in words.
	Flows string `json:"flows"`
}

// Route is an object that leads to the pod. That it does says nothing of whether policies let the traffic through.
type Route struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Via is the object through which it leads to the pod, as "Service web"; not set if it leads there directly.
	Via string `json:"via,omitempty"`
	// Detail says how: ports, hosts, readiness.
	Detail string `json:"detail,omitempty"`
}

// Residual is a way in or out that the verdict does not speak of.
type Residual struct {
	// Name is the word that the status of an Incident has for it.
	Name string `json:"name"`
	// Meaning is for people.
	Meaning string `json:"meaning"`
}

// Gap is something that could not be read, or that nobody can evaluate.
type Gap struct {
	// What is not known.
	What string `json:"what"`
	// Why it is not known, and what to do about it.
	Why string `json:"why"`
	// Decisive says that it may change the verdict, which is Unknown therefore.
	Decisive bool `json:"decisive"`
}
