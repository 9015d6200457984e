package incident

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// publish writes the status once, if it has changed, and announces only what was recorded.
func (s *scope) publish(ctx context.Context, persisted *v1alpha1.IncidentStatus) error {
	s.bound()
	counted := s.countTampering()
	news := turns(persisted, s.next)
	s.next.Timeline = extend(s.next.Timeline, news, s.now)
	if equality.Semantic.DeepEqual(*persisted, *s.next) || s.mayWait(persisted) {
		return nil
	}
	updated := s.incident.DeepCopy()
	updated.Status = *s.next
	// An update carries the resourceVersion that was read: a pass over a stale Incident, or of a second leader, writes nothing.
	err := s.Client.Status().Update(ctx, updated)
	if apierrors.IsNotFound(err) {
		return nil // deleted while we worked; the finalizer was gone, so nothing is held
	}
	if err != nil {
		return fmt.Errorf("writing the status of Incident %s/%s: %w", s.incident.Namespace, s.incident.Name, err)
	}
	s.Writes.wrote(updated, s.Clock.Now())
	s.Tamperings.written(s.incident.UID, counted)
	s.written = updated
	observeMetrics(s.incident, persisted, s.next)
	if s.dryRun() {
		return nil // an Event is a write too
	}
	s.announce(updated, news)
	return nil
}

// tellEach is up to how many turns of one pass have an Event each. Of more, which is an Incident of many pods or a plan of many steps at a time, Events of one reason are one that was repeated: the timeline has them all, and
// a recovery does not compete with its own Events.
const tellEach = 12

func (s *scope) announce(inc *v1alpha1.Incident, news []turn) {
	for _, t := range news {
		var related runtime.Object
		if t.about != nil && len(news) <= tellEach {
			about := t.about.DeepCopy()
			if about.Namespace == "" {
				about.Namespace = inc.Namespace
			}
			related = about
		}
		s.Recorder.Eventf(inc, related, t.eventType(), t.reason, string(inc.Spec.Goal), "%s", note(t.message))
	}
}

// wordsWait is how long a status waits to be written in which nothing but words has changed since it was written last.
const wordsWait = time.Second

// mayWait reports whether the status need not be written yet, and asks for another pass. While a recovery runs, pods come and go faster than a person reads, and each of them changes what is said of a step.
func (s *scope) mayWait(persisted *v1alpha1.IncidentStatus) bool {
	name := nameOf(s.incident)
	if s.incident.Spec.Goal != v1alpha1.GoalRecover || s.next.Recovery == nil || s.Writes.since(name, s.Clock.Now()) >= wordsWait {
		return false
	}
	if !equality.Semantic.DeepEqual(wordless(persisted), wordless(s.next)) {
		return false
	}
	s.lookAgainAfter(wordsWait)
	return true
}

// wordless is a status without the words of its conditions and of the steps of its recovery, and without how far the ledger was when it was signed.
func wordless(st *v1alpha1.IncidentStatus) *v1alpha1.IncidentStatus {
	out := st.DeepCopy()
	out.Custody = nil
	for i := range out.Conditions {
		out.Conditions[i].Message = ""
	}
	if out.Recovery != nil {
		for i := range out.Recovery.Steps {
			out.Recovery.Steps[i].Message = ""
		}
	}
	return out
}

// bound completes the status and keeps what others wrote within the limits of the API.
func (s *scope) bound() {
	s.next.Journal = s.journal.Entries()
	if s.journal.Refused() {
		s.lookAgainAfter(retryChanged) // there is room once the ledger has more
	}
	s.next.PlannedActions = nil
	for _, a := range s.planned[:min(len(s.planned), v1alpha1.MaxPlannedActions)] {
		a.Detail = clip(a.Detail, maxMessage)
		s.next.PlannedActions = append(s.next.PlannedActions, a)
	}
	s.boundPods()
	for i := range s.next.Evidence {
		s.next.Evidence[i].Message = clip(s.next.Evidence[i].Message, maxMessage)
		s.next.Evidence[i].Location = clip(s.next.Evidence[i].Location, 512)
	}
	for i := range s.next.Journal {
		s.next.Journal[i].Detail = clip(s.next.Journal[i].Detail, maxMessage)
	}
	if s.next.Recovery != nil {
		for i := range s.next.Recovery.Pauses {
			s.next.Recovery.Pauses[i].Message = clip(s.next.Recovery.Pauses[i].Message, 512)
		}
		for i := range s.next.Recovery.Steps {
			st := &s.next.Recovery.Steps[i]
			st.Message, st.LastIntervention = clip(st.Message, maxMessage), clip(st.LastIntervention, maxMessage)
			st.Override = clip(st.Override, maxMessage)
		}
	}
}

// What the status of all pods together may hold, so that it fits into one object whatever the policies say: leaks are told in full of as many pods as there is room for, and counted of the others.
const (
	maxLeaksInAll  = 320
	maxRoutesInAll = 800
	longMessages   = 100 // pods with messages of full length
	shortMessage   = 200
)

func (s *scope) boundPods() {
	leaks, routes := 0, 0
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		p.Leaks = p.Leaks[:min(len(p.Leaks), maxLeaksInAll-leaks)]
		leaks += len(p.Leaks)
		p.Routes = p.Routes[:min(len(p.Routes), maxRoutesInAll-routes)]
		routes += len(p.Routes)
		limit := maxMessage
		if i >= longMessages {
			limit = shortMessage
		}
		p.Message = clip(p.Message, limit)
	}
}

// maxNote is how long the API server lets the note of an Event be, in bytes.
const maxNote = 1024

// note fits a text into an Event.
func note(text string) string {
	text = clip(text, maxNote)
	if len(text) <= maxNote {
		return text
	}
	cut := maxNote - len("…")
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// isFailedTest recognises a JSON patch whose test did not hold: the object is not what was read.
func isFailedTest(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
		return apierrors.IsConflict(err)
	}
	details := status.Status().Details
	return details == nil || len(details.Causes) == 0
}

// needsPerson tells failures that repeating does not cure.
func needsPerson(err error) bool {
	for _, e := range flatten(err) {
		if apierrors.IsForbidden(e) || apierrors.IsInvalid(e) {
			return true
		}
	}
	return false
}

func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}
