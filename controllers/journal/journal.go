// Package journal records what the operator is about to do to existing objects, before it does it.
//
// An action may run only once its intent is durable, that is, once the intent was part of the status that this pass started from. A crash
// between intent and action therefore leaves a trace, and the next pass finds the intent and goes on.
package journal

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

type key struct {
	action v1alpha1.Action
	kind   string
	ns     string
	name   string
	uid    string
}

func keyOf(action v1alpha1.Action, ref v1alpha1.ObjectRef) key {
	return key{action: action, kind: ref.Kind, ns: ref.Namespace, name: ref.Name, uid: ref.UID}
}

// Journal is the journal of one Incident during one pass.
type Journal struct {
	entries  []v1alpha1.JournalEntry
	index    map[key]int
	durable  map[key]bool
	now      metav1.Time
	rehearse bool
}

// New opens the journal that was persisted. With rehearse, nothing is recorded and every intent counts as durable, so that a dry run walks the
// same path as the real thing.
func New(persisted []v1alpha1.JournalEntry, now metav1.Time, rehearse bool) *Journal {
	j := &Journal{
		entries:  append([]v1alpha1.JournalEntry(nil), persisted...),
		index:    make(map[key]int, len(persisted)),
		durable:  make(map[key]bool, len(persisted)),
		now:      now,
		rehearse: rehearse,
	}
	for i, e := range j.entries {
		k := keyOf(e.Action, e.Object)
		j.index[k] = i
		j.durable[k] = true
	}
	return j
}

// Intend records the intent and reports whether it is durable, that is, whether the action may run now.
func (j *Journal) Intend(action v1alpha1.Action, ref v1alpha1.ObjectRef, detail string) bool {
	if j.rehearse {
		return true
	}
	k := keyOf(action, ref)
	if _, ok := j.index[k]; !ok {
		j.index[k] = len(j.entries)
		j.entries = append(j.entries, v1alpha1.JournalEntry{
			Action: action, Object: ref, State: v1alpha1.JournalIntended, IntendedAt: j.now, Detail: detail,
		})
	}
	return j.durable[k]
}

// Done records that the effect of an intended action was observed. An action that was never intended is not recorded.
func (j *Journal) Done(action v1alpha1.Action, ref v1alpha1.ObjectRef) {
	i, ok := j.index[keyOf(action, ref)]
	if !ok || j.entries[i].State == v1alpha1.JournalDone {
		return
	}
	j.entries[i].State = v1alpha1.JournalDone
	j.entries[i].DoneAt = j.now
}

// Intended reports whether the action was ever intended for the object.
func (j *Journal) Intended(action v1alpha1.Action, ref v1alpha1.ObjectRef) bool {
	_, ok := j.index[keyOf(action, ref)]
	return ok
}

// Forget drops the entries about objects with these UIDs.
func (j *Journal) Forget(uids map[string]bool) {
	j.entries = slices.DeleteFunc(j.entries, func(e v1alpha1.JournalEntry) bool { return uids[e.Object.UID] })
	j.index = make(map[key]int, len(j.entries))
	for i, e := range j.entries {
		j.index[keyOf(e.Action, e.Object)] = i
	}
}

// Entries are the entries to persist, in the order in which they were intended.
func (j *Journal) Entries() []v1alpha1.JournalEntry {
	return j.entries
}
