package incident

import (
	"context"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/recovery"
)

// Bounds of what is kept about relapses.
const (
	maxRelapses         = 128
	maxRelapseRevisions = 16
)

// releaseStep lifts quarantine as a release step of the plan asks.
func (s *scope) releaseStep(ctx context.Context, step v1alpha1.RecoveryStep) (recovery.Outcome, error) {
	if waiting, err := s.clearRelapses(ctx, step); err != nil || waiting != "" {
		return recovery.Outcome{Message: waiting}, err
	}
	if waiting := s.relapsedElsewhere(step); waiting != "" {
		return recovery.Outcome{Message: waiting}, nil
	}
	if step.Release.HeldPods == v1alpha1.HeldPodRestore {
		waiting, err := s.releasePods(ctx, func(p *v1alpha1.PodStatus) bool {
			return p.Namespace == s.incident.Namespace && (len(step.Release.Workloads) == 0 || s.inWave(step, p.Owner))
		}, false)
		if err != nil || waiting != "" {
			return recovery.Outcome{Message: waiting}, err
		}
	}
	return s.liftWave(ctx, step)
}

// inWave reports whether the step releases the revisions of the workload: those that the plan has rolled back, or, where held pods are restored, all in the namespace.
func (s *scope) inWave(step v1alpha1.RecoveryStep, workload v1alpha1.ObjectRef) bool {
	if workload.Namespace != s.incident.Namespace {
		return false
	}
	plan, restore := s.next.Recovery.Plan, step.Release.HeldPods == v1alpha1.HeldPodRestore
	named := recovery.InWave(plan, step, workload) || restore && len(step.Release.Workloads) == 0
	return named && (restore || recovery.RolledBack(plan, workload))
}

// relapsedElsewhere says which workload of the wave another step has had quarantined again, or "".
func (s *scope) relapsedElsewhere(step v1alpha1.RecoveryStep) string {
	for _, r := range s.next.Recovery.Relapses {
		if r.ClearedAt.IsZero() && s.inWave(step, r.Workload) {
			return fmt.Sprintf("%s %s was quarantined again by step %s: have that one retried first, if what came back is clean", r.Workload.Kind, r.Workload.Name, r.Step)
		}
	}
	return ""
}

// liftWave lifts the quarantine of the wave's revisions, once no pod of theirs is left but evidence.
func (s *scope) liftWave(ctx context.Context, step v1alpha1.RecoveryStep) (recovery.Outcome, error) {
	lifted := 0
	for i := range s.next.Revisions {
		r := &s.next.Revisions[i]
		if !s.inWave(step, r.Workload) {
			continue
		}
		if left := s.attachedPods(r); step.Release.HeldPods != v1alpha1.HeldPodRestore && len(left) > 0 {
			if r.Workload.Kind == string(v1alpha1.TargetCronJob) {
				continue // a Job that runs is not replaced by rolling its CronJob back: it stays quarantined
			}
			return recovery.Outcome{Message: "waits until pods of the compromised revision are gone: " + strings.Join(left, ", ")}, nil
		}
		waiting, err := s.liftRevision(ctx, r)
		if err != nil || waiting != "" {
			return recovery.Outcome{Message: waiting}, err
		}
		lifted++
	}
	return recovery.Outcome{Done: true, Message: fmt.Sprintf("%d revisions released; %d pods stay quarantined until the Incident is closed", lifted, len(s.heldPods()))}, nil
}

// clearRelapses releases, once more, what a person has had released once more: the pods that were quarantined since the relapse.
func (s *scope) clearRelapses(ctx context.Context, step v1alpha1.RecoveryStep) (waiting string, err error) {
	rec := s.next.Recovery
	for i := range rec.Relapses {
		r := &rec.Relapses[i]
		if r.Step != step.Name {
			continue
		}
		if r.ClearedAt.IsZero() {
			// From the next pass on nothing of the workload is recorded as compromised any more.
			r.ClearedAt = s.now
			waiting = fmt.Sprintf("%s %s is about to be released once more", r.Workload.Kind, r.Workload.Name)
		}
	}
	if waiting != "" {
		return waiting, nil
	}
	return s.releasePods(ctx, func(p *v1alpha1.PodStatus) bool {
		for i := range rec.Relapses {
			r := &rec.Relapses[i]
			if r.Step == step.Name && slices.Contains(r.Revisions, p.Revision) {
				return true
			}
		}
		return false
	}, false)
}

// noteRelapsed notes which revisions are held because their workloads were quarantined again. One that had been released is held once more.
func (s *scope) noteRelapsed(found v1alpha1.RevisionStatus) {
	rec := s.next.Recovery
	if !recovery.Relapsed(s.incident.Status.Recovery, found.Workload) || rec == nil {
		return
	}
	if s.compromisedBefore(found) {
		return
	}
	for i := range s.next.Revisions {
		if r := &s.next.Revisions[i]; r.ID == found.ID {
			r.State = v1alpha1.RevisionHeld
		}
	}
	for i := range s.next.Pods {
		if p := &s.next.Pods[i]; p.Revision == found.ID && p.Handling == v1alpha1.HandlingReleased {
			p.Handling, p.Verdict = v1alpha1.HandlingPending, v1alpha1.VerdictUnknown
		}
	}
	for i := range rec.Relapses {
		r := &rec.Relapses[i]
		open := r.ClearedAt.IsZero() && r.Workload.Kind == found.Workload.Kind && r.Workload.Name == found.Workload.Name && r.Workload.Namespace == found.Workload.Namespace
		if open && !slices.Contains(r.Revisions, found.ID) && len(r.Revisions) < maxRelapseRevisions {
			r.Revisions = append(r.Revisions, found.ID)
		}
	}
}

// compromisedBefore reports whether the revision is the one that the recovery has replaced. Its evidence pods are still there, and stay held whatever a person decides about the relapse. A CronJob has but one.
func (s *scope) compromisedBefore(found v1alpha1.RevisionStatus) bool {
	known := slices.ContainsFunc(s.incident.Status.Revisions, func(r v1alpha1.RevisionStatus) bool { return r.ID == found.ID })
	relapsed := slices.ContainsFunc(s.incident.Status.Recovery.Relapses, func(r v1alpha1.Relapse) bool { return slices.Contains(r.Revisions, found.ID) })
	return found.Selector != nil && known && !relapsed
}

// letGoing reports whether the pod or policy is being released, or was. A release that was intended before its workload was quarantined again does not count.
func (s *scope) letGoing(action v1alpha1.Action, ref, workload v1alpha1.ObjectRef) bool {
	entry, intended := s.journal.Last(action, ref)
	if !intended || s.incident.Status.Recovery == nil {
		return intended
	}
	for _, r := range s.incident.Status.Recovery.Relapses {
		if r.ClearedAt.IsZero() && r.Workload.Kind == workload.Kind && r.Workload.Namespace == workload.Namespace && r.Workload.Name == workload.Name {
			return entry.Number > r.AfterEntry
		}
	}
	return true
}

// workloadOf is the workload whose revision a policy of ours denies.
func (s *scope) workloadOf(policy *networkingv1.NetworkPolicy) v1alpha1.ObjectRef {
	for _, r := range s.next.Revisions {
		if policy.Namespace == r.Workload.Namespace && policy.Name == measure.RevisionPolicyName(s.incident, r.ID) {
			return r.Workload
		}
	}
	return v1alpha1.ObjectRef{}
}

// others are the Incidents in the cluster but this one.
func (s *scope) others(ctx context.Context) ([]v1alpha1.Incident, error) {
	var list v1alpha1.IncidentList
	if err := s.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing Incidents: %w", err)
	}
	var out []v1alpha1.Incident
	for _, other := range list.Items {
		if other.UID != s.incident.UID {
			out = append(out, other)
		}
	}
	return out, nil
}

// relapse notes that a workload is quarantined again.
func (s *scope) relapse(r v1alpha1.Relapse) {
	rec := s.next.Recovery
	r.Why = clip(r.Why, maxMessage)
	if entries := s.journal.Entries(); len(entries) > 0 {
		r.AfterEntry = entries[len(entries)-1].Number
	}
	// A plan has far fewer workloads: what has to make room was cleared.
	for len(rec.Relapses) >= maxRelapses {
		i := slices.IndexFunc(rec.Relapses, func(r v1alpha1.Relapse) bool { return !r.ClearedAt.IsZero() })
		if i < 0 {
			return
		}
		rec.Relapses = slices.Delete(rec.Relapses, i, i+1)
	}
	rec.Relapses = append(rec.Relapses, r)
}
