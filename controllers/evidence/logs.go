package evidence

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	defaultLogBytes   = 64 << 20
	defaultLogSeconds = 600
	// logsAtOnce is how many logs of one pod are read at a time.
	logsAtOnce = 4
	// maxBreaks is how often a log may break off before what has arrived is taken for all there is.
	maxBreaks = 3
	// maxIndex bounds an index that is read back, in bytes.
	maxIndex = 16 << 20
)

// Index is what is stored of the logs of one pod, beside the logs themselves.
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
	// Bytes and Digest ("sha256:<hex>") are of the log as the kubelet sent it, each line with its time. StoredDigest is of the bytes in the store if they are encrypted; Key is where they are. A log that is
	// empty is not stored.
	Bytes        int64  `json:"bytes"`
	Lines        int64  `json:"lines"`
	Digest       string `json:"digest,omitempty"`
	StoredDigest string `json:"storedDigest,omitempty"`
	Key          string `json:"key,omitempty"`
	// Truncated says that the log is longer than what the orders let be kept; Incomplete that it ended before its end. Absent says that there is no such log, and nothing is missing. Problem says why.
	Truncated  bool   `json:"truncated,omitempty"`
	Incomplete bool   `json:"incomplete,omitempty"`
	Absent     bool   `json:"absent,omitempty"`
	Problem    string `json:"problem,omitempty"`
}

// ReadIndex reads an index back.
func ReadIndex(r io.Reader) (*Index, error) {
	var index Index
	if err := json.NewDecoder(io.LimitReader(r, maxIndex)).Decode(&index); err != nil {
		return nil, fmt.Errorf("reading an index of logs: %w", err)
	}
	return &index, nil
}

// LogsID is the ID of the logs item of a pod.
func LogsID(podUID types.UID) string { return "logs-" + string(podUID) }

// Logs keeps the logs of all containers of a pod: of the instance that runs and of the one before it, as the kubelet has them. What the kubelet has rotated away or removed is not to be had
// from it.
type Logs struct {
	source LogSource
	known  memory[podLogs]
}

// NewLogs collects logs from the source.
func NewLogs(source LogSource) *Logs { return &Logs{source: source} }

// About says what the collector is.
func (l *Logs) About() About {
	return About{
		Type: v1alpha1.EvidenceLogs, Needs: "the kubelet of the pod's node, through the API server", Alters: "nothing",
		Deadline: func(o v1alpha1.EvidenceOrders) time.Duration {
			return seconds(o.Logs.DeadlineSeconds, defaultLogSeconds)
		},
	}
}

// Begin returns one item for each pod, or none if the orders skip logs.
func (l *Logs) Begin(x *Execution, pods []*corev1.Pod) []v1alpha1.EvidenceItem {
	if x.Orders.Logs.Collect == v1alpha1.Skip {
		return nil
	}
	out := make([]v1alpha1.EvidenceItem, 0, len(pods))
	for _, p := range pods {
		out = append(out, podItem(x, LogsID(p.UID), v1alpha1.EvidenceLogs, p, l.About().Deadline(x.Orders)))
	}
	return out
}

// podItem is a pending item about one pod.
func podItem(x *Execution, id string, kind v1alpha1.EvidenceType, pod *corev1.Pod, limit time.Duration) v1alpha1.EvidenceItem {
	return v1alpha1.EvidenceItem{
		ID: id, Type: kind, Pods: []string{string(pod.UID)}, State: v1alpha1.EvidencePending,
		Subject:  v1alpha1.ObjectRef{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)},
		Deadline: metav1.NewTime(x.Now.Add(limit)),
	}
}

// Collect looks whether the logs of a pod have been read, and sees to it that they are.
func (l *Logs) Collect(_ context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error) {
	if item.State != v1alpha1.EvidencePending || x.DryRun {
		return item, nil
	}
	if x.Sink == nil {
		return noStore(x, item), nil
	}
	id := x.TaskID(item.ID)
	run := logRun{source: l.source, sink: x.Sink, incidentUID: string(x.Incident.UID), item: item, maxBytes: cmp.Or(x.Orders.Logs.MaxBytes, defaultLogBytes)}
	out, err := inTheBackground(x, item, func(ctx context.Context, a attempt) Result {
		run.attempt, run.pod = a, l.known.of(id)
		return run.do(ctx)
	})
	if out.State != v1alpha1.EvidencePending {
		l.known.forget(id)
	}
	return out, err
}

// podLogs is how far the logs of one pod have come.
type podLogs struct {
	node string
	logs []*podLog
}

// podLog is how far one log has come.
type podLog struct {
	IndexedLog
	// done says that nothing more is to be had of it; breaks counts how often it has broken off.
	done   bool
	breaks int
}

// merge adds the instances that the pod has now. One whose turn has not come and that is not there any more will not come.
func (p *podLogs) merge(pod *corev1.Pod) {
	p.node = pod.Spec.NodeName
	listed := instances(pod)
	for _, log := range p.logs {
		if !log.done && !containsLog(listed, log) {
			log.done = true
			log.Problem = cmp.Or(log.Problem, "this instance was gone before it could be read")
		}
	}
	for _, log := range listed {
		if !containsLog(p.logs, log) {
			p.logs = append(p.logs, log)
		}
	}
}

func containsLog(logs []*podLog, log *podLog) bool {
	for _, other := range logs {
		if other.Container == log.Container && (other.ContainerID == log.ContainerID && log.ContainerID != "" || other.ContainerID == log.ContainerID && other.Instance == log.Instance) {
			return true
		}
	}
	return false
}
