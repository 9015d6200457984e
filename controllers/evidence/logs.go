package evidence

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// LogsID is the ID of the logs item of a pod.
func LogsID(podUID types.UID) string { return "logs-" + string(podUID) }

// Logs keeps the logs of all containers of a pod: of the instance that runs and of the one before it, as the kubelet has them. What the kubelet has rotated away or removed is not to be had
// from it. The logs of a pod are one item, and one object in the store: a zip of them and of their [Index].
type Logs struct {
	source LogSource
}

// NewLogs collects logs from the source.
func NewLogs(source LogSource) *Logs { return &Logs{source: source} }

// About says what the collector is.
func (l *Logs) About() About {
	return About{
		Type: v1alpha1.EvidenceLogs, Needs: "the kubelet of the pod's node, through the API server", Alters: "nothing",
		Deadline: func(o v1alpha1.EvidenceOrders) time.Duration {
			return seconds(o.Logs.DeadlineSeconds)
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
	if x.Background.Running(x.TaskID(item.ID)) {
		return item, nil
	}
	run := logRun{source: l.source, sink: x.Sink, incidentUID: string(x.Incident.UID), item: item, maxBytes: x.Orders.Logs.MaxBytes}
	return inTheBackground(x, item, func(ctx context.Context, a attempt) Result {
		run.attempt = a
		return run.do(ctx)
	})
}
