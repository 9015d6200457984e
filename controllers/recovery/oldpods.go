package recovery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// replaceOldPods does what the workload's controller does not: it lifts a partition, which would have the pods below it come back with the old revision, and deletes pods of an old revision where the strategy is OnDelete
// or where the controller waits for a broken one to become ready (kubernetes/kubernetes#67250). One pod at a time, and none of which evidence is missing. It says what it waits for, or "".
func replaceOldPods(ctx context.Context, x *Execution, w *workload) (string, error) {
	if !w.observed || w.hash == "" {
		return "", nil // judge says so
	}
	pods := workloadPods(x.All, w)
	if w.partition > 0 && slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return !target.Ended(p) && p.Labels[w.hashLabel] != w.hash }) {
		return "its partition is about to be lifted", setPartition(ctx, x, v1alpha1.ActionLiftPartition, w, 0)
	}
	if w.partition == 0 {
		x.Journal.Done(v1alpha1.ActionLiftPartition, w.ref)
	}
	pod := nextOldPod(pods, w)
	if pod == nil {
		return "", nil
	}
	if held := slices.ContainsFunc(x.Pods, func(p v1alpha1.PodStatus) bool { return p.UID == string(pod.UID) }); held && !complete(x.Evidence, string(pod.UID), x.GapsWaived) {
		return fmt.Sprintf("Pod %s is of the old revision, and its evidence is not complete: delete it when it suffices", pod.Name), nil
	}
	if len(measure.HeldByOthers(pod, x.Incident.UID)) > 0 {
		return fmt.Sprintf("Pod %s is of the old revision, and another Incident holds it: it is replaced when that one has let go of it", pod.Name), nil
	}
	ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
	return fmt.Sprintf("Pod %s, which is of the old revision, is about to be replaced", pod.Name), DeletePod(ctx, x, ref, "it is of the compromised revision, and its controller does not replace it")
}

// nextOldPod is the pod to delete next, the one with the highest ordinal first; nil if there is none, or the workload's controller goes on by itself, or another replacement is still under way.
func nextOldPod(pods []*corev1.Pod, w *workload) *corev1.Pod {
	var old []*corev1.Pod
	underWay := false
	for _, p := range pods {
		switch {
		case target.Ended(p):
		case p.Labels[w.hashLabel] == w.hash:
			underWay = underWay || !isReady(p)
		case !p.DeletionTimestamp.IsZero():
			underWay = true
		default:
			old = append(old, p)
		}
	}
	if !w.onDelete {
		// With OrderedReady the controller waits for a pod that will never be ready again.
		old = slices.DeleteFunc(old, func(p *corev1.Pod) bool { return !w.ordered || isReady(p) })
	}
	// Where the controller waits for a broken pod, it creates none behind it: those are missing, and not under way.
	missing := len(pods) < int(w.wanted) && (w.onDelete || !w.ordered)
	if underWay || len(old) == 0 || missing {
		return nil
	}
	return slices.MaxFunc(old, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(ordinal(a.Name), ordinal(b.Name)), strings.Compare(a.Name, b.Name))
	})
}

// ordinal is the number at the end of the name of a StatefulSet's pod; -1 if there is none.
func ordinal(name string) int {
	n, err := strconv.Atoi(name[strings.LastIndex(name, "-")+1:])
	if err != nil {
		return -1
	}
	return n
}

// returnPartition gives a StatefulSet the partition back that it had, and reports whether it has it.
func returnPartition(ctx context.Context, x *Execution, step string, w *workload) (bool, error) {
	was, err := templateBefore(x, step, w)
	if err != nil || was == nil || w.partition == was.Partition {
		x.Journal.Done(v1alpha1.ActionReturnPartition, w.ref)
		return err == nil, err
	}
	return false, setPartition(ctx, x, v1alpha1.ActionReturnPartition, w, was.Partition)
}

func setPartition(ctx context.Context, x *Execution, action v1alpha1.Action, w *workload, partition int32) error {
	detail := fmt.Sprintf("updateStrategy.rollingUpdate.partition: %d -> %d", w.partition, partition)
	if !x.Journal.IntendAnew(action, w.ref, detail) {
		return nil
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.ref.UID, "resourceVersion": w.object.GetResourceVersion()},
		"spec":     map[string]any{"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"partition": partition}}},
	})
	if err != nil {
		return fmt.Errorf("changing the partition of %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: w.ref, Detail: detail}
	return x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, w.object, client.RawPatch(types.MergePatchType, body))
	})
}
