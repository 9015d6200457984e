package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// podLog is how far one log has come.
type podLog struct {
	IndexedLog
	// done says that nothing more is to be had of it. It has a turn in each round until then, and next is the round that its next turn is in.
	done bool
	next int
	// unconfirmed says that the pod has not been looked at since the log was read.
	unconfirmed bool
	// unlisted says what was to be read in place of it and was gone by then.
	unlisted string
}

// memberName is where in the zip the log is. The API server lets no container have a name that leads out of its directory, but whoever unpacks the zip need not rely on that.
func (l *podLog) memberName() (string, error) {
	if wrong := validation.IsDNS1123Label(l.Container); len(wrong) > 0 {
		return "", fmt.Errorf("the container's name is not fit to be a name in a zip: %s", wrong[0])
	}
	kind := l.Kind
	if kind == kindSidecar {
		kind = kindInit // which is where its container is in the pod
	}
	return kind + "/" + l.Container + "/" + l.Instance + ".log", nil
}

// same reports whether it is the log of the same instance, as far as that is known.
func (l *podLog) same(other *podLog) bool {
	return l.Container == other.Container && l.ContainerID == other.ContainerID && l.ContainerID != ""
}

// remark adds to what is said about the log.
func (l *podLog) remark(what string) {
	if what != "" {
		l.Problem = strings.TrimPrefix(l.Problem+"; "+what, "; ")
	}
}

// took notes how the log ended.
func (l *podLog) took(got captured) {
	switch {
	case got.Answer != "":
		l.refuse(got.Answer)
		return
	case got.Incomplete && l.Member == "" && got.Problem != errDeadline.Error():
		l.Problem = got.Problem // nothing has come of it, and so it can still be had whole
		return
	}
	l.done, l.unconfirmed = true, true
	l.Truncated, l.Incomplete, l.Absent, l.Problem = got.Truncated, got.Incomplete, false, got.Problem
	l.remark(l.unlisted)
}

// refuse takes the kubelet's word that it has no such log. That is nothing to miss where the container has never started.
func (l *podLog) refuse(why string) {
	l.done, l.Problem, l.Absent = true, why, l.Instance == instanceCurrent && l.ContainerID == ""
	l.remark(l.unlisted)
}

// relist takes over what the pod says now about an instance whose turn has not come. read are the logs that were read, listed those of the pod now: what was to be read before, and is among neither,
// will not come any more.
func (l *podLog) relist(now *podLog, read, listed []*podLog) {
	if containsLog(read, now) {
		l.done, l.Problem = true, "this instance was gone before it could be read"
		return
	}
	unlisted, next := l.unlisted, l.next
	if l.ContainerID != "" && !containsLog(listed, l) {
		unlisted = "instance " + quote(l.ContainerID) + " was gone before it could be read"
	}
	*l = *now
	l.unlisted, l.next = unlisted, next
	if l.done {
		l.remark(unlisted)
	}
}

func containsLog(logs []*podLog, log *podLog) bool {
	for _, other := range logs {
		if other.same(log) {
			return true
		}
	}
	return false
}

// tally is what went into a member.
type tally struct {
	sum          hash.Hash
	bytes, lines int64
	last         byte
}

func newTally() *tally { return &tally{sum: sha256.New()} }

func (t *tally) Write(p []byte) (int, error) {
	if len(p) > 0 {
		t.bytes, t.last = t.bytes+int64(len(p)), p[len(p)-1]
		t.lines += int64(bytes.Count(p, []byte("\n")))
	}
	return t.sum.Write(p)
}

// note writes it down; a last line that has no end counts too.
func (t *tally) note(log *podLog) {
	log.Bytes, log.Lines, log.Digest = t.bytes, t.lines, "sha256:"+hex.EncodeToString(t.sum.Sum(nil))
	if t.bytes > 0 && t.last != '\n' {
		log.Lines++
	}
}
