package evidence

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	// indexMember is the last member of the zip of a pod's logs.
	indexMember = "index.json"
	// maxIndex bounds an index that is read back, in bytes.
	maxIndex = 16 << 20
)

// Index says what the logs of one pod are that are stored together. It is the last member, "index.json", of the zip that has them.
type Index struct {
	Pod  v1alpha1.ObjectRef `json:"pod"`
	Node string             `json:"node,omitempty"`
	// TakenAt is when the last log had been read.
	TakenAt metav1.Time `json:"takenAt"`
	// Note says why logs may be missing that are not listed.
	Note string       `json:"note,omitempty"`
	Logs []IndexedLog `json:"logs"`
}

// IndexedLog is the log of one instance of one container.
type IndexedLog struct {
	Container string `json:"container"`
	// Kind is "init", "sidecar", "container" or "ephemeral".
	Kind string `json:"kind"`
	// Instance is "current", or "previous" for the one before the last restart.
	Instance    string `json:"instance"`
	ContainerID string `json:"containerID,omitempty"`
	ImageID     string `json:"imageID,omitempty"`
	// Member is the name of the log in the zip: "<init, container or ephemeral>/<container>/<instance>.log". A log that is empty has none.
	Member string `json:"member,omitempty"`
	// Bytes, Lines and Digest ("sha256:<hex>") are of the member: the log as the kubelet sent it, each line with its time.
	Bytes  int64  `json:"bytes"`
	Lines  int64  `json:"lines"`
	Digest string `json:"digest,omitempty"`
	// Truncated says that the log is longer than what the orders let be kept; Incomplete that it ended before its end. Absent says that there is no such log, and nothing is missing. Untrusted says that
	// it may be the log of another pod. Problem says why.
	Truncated  bool   `json:"truncated,omitempty"`
	Incomplete bool   `json:"incomplete,omitempty"`
	Absent     bool   `json:"absent,omitempty"`
	Untrusted  bool   `json:"untrusted,omitempty"`
	Problem    string `json:"problem,omitempty"`
}

// ReadIndex reads the index from a zip of logs of that size in bytes.
func ReadIndex(r io.ReaderAt, size int64) (*Index, error) {
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("opening a zip of logs: %w", err)
	}
	member, err := archive.Open(indexMember)
	if err != nil {
		return nil, fmt.Errorf("opening the index of logs: %w", err)
	}
	var index Index
	if err := errors.Join(json.NewDecoder(io.LimitReader(member, maxIndex)).Decode(&index), member.Close()); err != nil {
		return nil, fmt.Errorf("reading the index of logs: %w", err)
	}
	return &index, nil
}

// worthKeeping reports whether there is a log that is the pod's, or the certainty that there is none.
func (i *Index) worthKeeping() bool {
	absent := 0
	for _, log := range i.Logs {
		switch {
		case log.Untrusted: // alone it is no evidence of this pod
		case log.Member != "", log.Problem == "":
			return true
		case log.Absent:
			absent++
		}
	}
	return absent > 0 && absent == len(i.Logs)
}

// partial reports whether a log that there was is missing, was cut short by anything but the length that the orders set, or may be another pod's.
func (i *Index) partial() bool {
	return slices.ContainsFunc(i.Logs, func(log IndexedLog) bool {
		return log.Untrusted || log.Incomplete || log.Member == "" && log.Problem != "" && !log.Absent
	})
}

// summary says what the logs lack, in one line; nothing if they lack nothing.
func (i *Index) summary() string {
	var untrusted, truncated, incomplete, unread, absent, remarks []string
	for _, log := range i.Logs {
		name := log.Container
		if log.Instance != instanceCurrent {
			name += " (" + log.Instance + ")"
		}
		switch {
		case log.Absent:
			absent = append(absent, name)
		case log.Untrusted:
			untrusted = append(untrusted, name+": "+log.Problem)
		case log.Member == "" && log.Problem != "":
			unread = append(unread, name+": "+log.Problem)
		case log.Incomplete:
			incomplete = append(incomplete, name+": "+log.Problem)
		case log.Truncated:
			truncated = append(truncated, name)
		case log.Problem != "":
			remarks = append(remarks, name+": "+log.Problem)
		}
	}
	var out []string
	for _, part := range []struct {
		what  string
		names []string
	}{
		{"could not be read", unread}, {"not to be trusted", untrusted}, {"incomplete", incomplete}, {"cut at the length that the ContainmentPolicy sets", truncated}, {"remarks", remarks}, {"never started", absent},
	} {
		if len(part.names) > 0 {
			out = append(out, fmt.Sprintf("%s: %s", part.what, listed(part.names)))
		}
	}
	if i.Note != "" {
		out = append(out, i.Note)
	}
	return strings.Join(out, "; ")
}

// listed names the first few.
func listed(names []string) string {
	const most = 4
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
