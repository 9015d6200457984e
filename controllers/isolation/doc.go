// Package isolation proves, or refutes, that NetworkPolicies isolate a pod.
//
// It is pure: it reads no cluster, no clock and no global state, so a verdict can be replayed from the objects it was
// computed from. It answers with sets and not with probes: in each direction the pod is isolated if at least one policy
// selects it there and the union of the allow rules of all policies that select it there lies within the declared
// exceptions. Which peers exist at present does not matter, so a rule that matches nobody yet is a leak too.
//
// Policies are judged by content only. The operator's own deny policy (see [DenySpec]) gets no special treatment: it
// is clean because its rules are the exceptions, and it leaks as soon as somebody adds another rule to it.
//
// The rules come from the documentation of networking.k8s.io/v1 NetworkPolicy. Where that leaves something to the
// implementation, or where an object could not have passed API validation, the package assumes that more is allowed.
// It never assumes that less is.
package isolation
