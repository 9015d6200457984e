// Package journal records what the operator is about to do to existing objects, before it does it.
//
// The rule: creating an object under a name that follows from what it is for needs no intent, because a repeat finds it there and nothing is taken away. Everything that changes or removes an existing
// object does, and there are three ways:
//
//   - What may wait, waits one pass (Intend): an action runs only once its intent is durable, that is, once it was part of the status that the pass started from. A crash between intent and action therefore
//     leaves a trace, and the next pass finds the intent and goes on.
//   - What destroys something, or gives something free, waits besides until the custody ledger has the intent. Whoever acts looks at that; the journal does not know the ledger.
//   - What keeps containment in force does not wait for a pass, and never for the store: putting back a deny policy, a budget, the deny tier or the label of a pod, withholding an exception, keeping the
//     lists that admission reads, and the finalizer. Its intent is written to status by itself, right before the action, and marked with Persisted. Should even that fail, containment goes on all the
//     same, and the intent is told to the ledger as an act that was remembered.
//
// The outcome is noted with Done when the effect was observed, or when the object was seen to be gone. An action that is needed again, because somebody has undone it, is a new entry (IntendAnew), so that each
// time has its own intent and its own outcome.
//
// The journal is bounded: see LeaveOut and Full.
package journal

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	// Room is how many entries are kept free for what one pass intends.
	Room = 200
	// largest is about how many bytes the journal may have of an Incident's 1.5 MiB before entries are left out.
	largest = 512 << 10
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
	entries []v1alpha1.JournalEntry
	// index leads to the last entry about an action on an object; durable has those that were persisted.
	index    map[key]int
	durable  map[key]bool
	now      metav1.Time
	rehearse bool
	refused  bool
}

// New opens the journal that was persisted. With rehearse, nothing is recorded and every intent counts as durable, so that a dry run walks the
// same path as the real thing.
func New(persisted []v1alpha1.JournalEntry, now metav1.Time, rehearse bool) *Journal {
	j := &Journal{entries: slices.Clone(persisted), durable: make(map[key]bool, len(persisted)), now: now, rehearse: rehearse}
	j.reindex()
	for k := range j.index {
		j.durable[k] = true
	}
	return j
}

func (j *Journal) reindex() {
	j.index = make(map[key]int, len(j.entries))
	for i, e := range j.entries {
		j.index[keyOf(e.Action, e.Object)] = i
	}
}

// Intend records the intent, once for each action on an object, and reports whether it is durable, that is, whether the action may run now. While the journal is full, nothing is recorded and nothing may run.
func (j *Journal) Intend(action v1alpha1.Action, ref v1alpha1.ObjectRef, detail string) bool {
	if j.rehearse {
		return true
	}
	k := keyOf(action, ref)
	if _, ok := j.index[k]; !ok {
		j.add(k, action, ref, detail)
	}
	return j.durable[k]
}

// IntendAnew is Intend for what is about to be done, and may have been done before: once the effect of the last time was observed, this is another time, with an intent of its own.
func (j *Journal) IntendAnew(action v1alpha1.Action, ref v1alpha1.ObjectRef, detail string) bool {
	k := keyOf(action, ref)
	if i, ok := j.index[k]; ok && j.entries[i].State == v1alpha1.JournalDone && !j.rehearse {
		j.durable[k] = false
		j.add(k, action, ref, detail)
	}
	return j.Intend(action, ref, detail)
}

func (j *Journal) add(k key, action v1alpha1.Action, ref v1alpha1.ObjectRef, detail string) {
	if j.Full() {
		j.refused = true
		return
	}
	j.index[k] = len(j.entries)
	j.entries = append(j.entries, v1alpha1.JournalEntry{
		Number: next(j.entries), Action: action, Object: ref, State: v1alpha1.JournalIntended, IntendedAt: j.now, Detail: detail,
	})
}

// next is the number of the next entry. The last entry is never left out, so that no number is used twice.
func next(entries []v1alpha1.JournalEntry) int64 {
	if len(entries) == 0 {
		return 1
	}
	return max(entries[len(entries)-1].Number, int64(len(entries))) + 1
}

// Full reports whether there is room for no other entry: what was left to be left out was left out, and all else is not in the ledger yet, or still needed.
func (j *Journal) Full() bool { return len(j.entries) >= v1alpha1.MaxJournal }

// Refused reports whether an intent found no room. It comes to its turn when there is room again.
func (j *Journal) Refused() bool { return j.refused }

// Persisted notes that the entry about an action on an object was written to status during the pass.
func (j *Journal) Persisted(action v1alpha1.Action, ref v1alpha1.ObjectRef) {
	if k := keyOf(action, ref); j.has(k) {
		j.durable[k] = true
	}
}

func (j *Journal) has(k key) bool {
	_, ok := j.index[k]
	return ok
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
	return j.has(keyOf(action, ref))
}

// Open are the objects on which the action was intended and whose outcome is not known yet, in the order of their intents.
func (j *Journal) Open(action v1alpha1.Action) []v1alpha1.ObjectRef {
	var out []v1alpha1.ObjectRef
	for _, e := range j.entries {
		if e.Action == action && e.State != v1alpha1.JournalDone {
			out = append(out, e.Object)
		}
	}
	return out
}

// LeaveOut leaves out the oldest entries that are finished and of which may says that nobody needs them any more, until there is room for what a pass may intend, and returns how many. The last entry stays.
func (j *Journal) LeaveOut(may func(v1alpha1.JournalEntry) bool) int64 {
	left, bytes := len(j.entries), 0
	for _, e := range j.entries {
		bytes += size(e)
	}
	last, seen, before := left-1, -1, left
	j.entries = slices.DeleteFunc(j.entries, func(e v1alpha1.JournalEntry) bool {
		seen++
		tooMany := left > v1alpha1.MaxJournal-Room || bytes > largest
		if !tooMany || seen == last || e.State != v1alpha1.JournalDone || !may(e) {
			return false
		}
		left, bytes = left-1, bytes-size(e)
		return true
	})
	j.reindex()
	return int64(before - left)
}

// size is about how many bytes an entry has in the API server's storage.
func size(e v1alpha1.JournalEntry) int {
	const rest = 250 // the names of fields, the action, the times
	return rest + len(e.Object.Kind) + len(e.Object.Namespace) + len(e.Object.Name) + len(e.Object.UID) + len(e.Detail)
}

// Entries are the entries to persist, in the order in which they were intended.
func (j *Journal) Entries() []v1alpha1.JournalEntry {
	return j.entries
}

// Last is the last entry about the action on the object.
func (j *Journal) Last(action v1alpha1.Action, ref v1alpha1.ObjectRef) (v1alpha1.JournalEntry, bool) {
	i, ok := j.index[keyOf(action, ref)]
	if !ok {
		return v1alpha1.JournalEntry{}, false
	}
	return j.entries[i], true
}

// Append adds an intent to entries that were read anew, unless they have it already, and reports whether they have it now.
func Append(entries []v1alpha1.JournalEntry, e v1alpha1.JournalEntry) ([]v1alpha1.JournalEntry, bool) {
	for _, o := range slices.Backward(entries) {
		if o.Action == e.Action && o.Object == e.Object {
			if o.State != v1alpha1.JournalDone {
				return entries, true
			}
			break
		}
	}
	if len(entries) >= v1alpha1.MaxJournal {
		return entries, false
	}
	e.Number = max(e.Number, next(entries))
	return append(slices.Clone(entries), e), true
}
