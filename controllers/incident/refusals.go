package incident

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// refusals is the list of what may not start, or nil when nothing is refused.
func (s *scope) refusals(revisions []v1alpha1.RevisionStatus) *corev1.ConfigMap {
	var digestsIn []string
	if !s.journal.Intended(v1alpha1.ActionLiftQuarantine, s.refusalsRef()) {
		digestsIn = append(s.namespaces(), s.incident.Namespace)
	}
	return measure.Refusals(s.incident, s.OperatorNamespace, revisions, s.policy.Isolation.Replacements, digestsIn)
}

// refusalsRef names the list of what may not start. Its name contains the Incident's UID, which makes it unique without its own.
func (s *scope) refusalsRef() v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "ConfigMap", Namespace: s.OperatorNamespace, Name: measure.RefusalsName(s.incident)}
}

// ensureRefusals keeps the list of what may not start, in the operator's namespace, as it should be.
func (s *scope) ensureRefusals(ctx context.Context) error {
	want := s.refusals(s.next.Revisions)
	released := slices.ContainsFunc(s.next.Revisions, func(r v1alpha1.RevisionStatus) bool { return r.State != v1alpha1.RevisionHeld })
	if want == nil && !released && len(s.incident.Spec.CompromisedDigests) == 0 {
		s.refusalsInForce = true
		return nil // nothing is refused, and nothing was released that could have been
	}
	ref := s.refusalsRef()
	var err error
	s.refusalsInForce, err = s.ensureList(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, want, "refuse at admission what may not start")
	return err
}

// liftRefusals ends the refusal of compromised digests, once the intent is durable. It says what it waits for, or "" when nothing is refused any more.
func (s *scope) liftRefusals() (waiting string) {
	ref := s.refusalsRef()
	if len(s.incident.Spec.CompromisedDigests) > 0 && !s.journal.Intend(v1alpha1.ActionLiftQuarantine, ref, "compromised digests are refused until the Incident is closed") {
		return "waits until compromised digests are no longer refused"
	}
	if !s.refusalsInForce || s.refusals(s.incident.Status.Revisions) != nil {
		return "waits until the list of refused revisions is removed"
	}
	s.journal.Done(v1alpha1.ActionLiftQuarantine, ref)
	return ""
}

// maxRunning is how many pods are named that run a compromised digest.
const maxRunning = 5

// runningCompromised names the pods in the targets' namespaces that report a compromised digest though the Incident does not hold them: their images were given by tag, or they ran before the digest was known.
func (s *scope) runningCompromised() string {
	if s.view == nil || len(s.incident.Spec.CompromisedDigests) == 0 {
		return ""
	}
	var found []string
	for _, pod := range s.view.All {
		if measure.Holds(pod, s.incident.UID) {
			continue
		}
		if container, digest := recovery.RunsCompromised(pod, s.incident.Spec.CompromisedDigests); container != "" {
			found = append(found, fmt.Sprintf("Pod %s/%s (container %s: %s)", pod.Namespace, pod.Name, container, digest))
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.SortFunc(found, cmp.Compare)
	more := ""
	if n := len(found) - maxRunning; n > 0 {
		found, more = found[:maxRunning], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("a compromised digest runs in what is not held: %s%s; add their workloads to spec.targets", strings.Join(found, ", "), more)
}
