package incident

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/target"
)

const (
	// snapshotPoll is how often a snapshot that is under way is looked at. Snapshots are not watched, because their API may be missing.
	snapshotPoll = 2 * time.Second
	// retryChanged is how soon an object that changed under our hands is judged anew, should no watch event tell first.
	retryChanged = time.Second
)

// addItem records a new item. An item that the status cannot hold is counted, so that the conditions can say so.
func (s *scope) addItem(item v1alpha1.EvidenceItem) {
	if len(s.next.Evidence) >= v1alpha1.MaxEvidence {
		s.overflow = append(s.overflow, fmt.Sprintf("%s of %s %s/%s", item.Type, item.Subject.Kind, item.Subject.Namespace, item.Subject.Name))
		return
	}
	s.next.Evidence = append(s.next.Evidence, item)
}

func (s *scope) item(id string) *v1alpha1.EvidenceItem {
	for i := range s.next.Evidence {
		if s.next.Evidence[i].ID == id {
			return &s.next.Evidence[i]
		}
	}
	return nil
}

// recorded reports whether the pod's manifests are safe, or declared lost: only then may the pod be changed. In a dry run nothing is stored.
func (s *scope) recorded(p *v1alpha1.PodStatus) bool {
	item := s.item(evidence.ManifestsID(p.UID))
	return s.dryRun() || item != nil && item.State != v1alpha1.EvidencePending
}

// recordManifests stores every pod as it is before the operator changes it.
func (s *scope) recordManifests(ctx context.Context) error {
	var failures []error
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		if s.item(evidence.ManifestsID(p.UID)) != nil {
			continue
		}
		pod := s.live(p)
		if pod == nil {
			s.addItem(evidence.GapItem(evidence.ManifestsID(p.UID), v1alpha1.EvidenceManifests, podRef(p), []string{p.UID},
				"the pod was gone before its manifests could be recorded"))
			continue
		}
		failures = append(failures, s.recordPod(ctx, p, pod))
	}
	return errors.Join(failures...)
}

func (s *scope) recordPod(ctx context.Context, p *v1alpha1.PodStatus, pod *corev1.Pod) error {
	record, err := evidence.Gather(ctx, s.Client, pod, s.selecting(pod))
	if err != nil {
		return err
	}
	cm, err := evidence.ConfigMapFor(s.incident, s.OperatorNamespace, record)
	if err != nil {
		return err
	}
	if evidence.TooLarge(cm) {
		s.addItem(evidence.GapItem(evidence.ManifestsID(p.UID), v1alpha1.EvidenceManifests, podRef(p), []string{p.UID},
			"the record does not fit into a ConfigMap; save the pod's manifest and events by hand"))
		return nil
	}
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: "ConfigMap", Namespace: cm.Namespace, Name: cm.Name},
		Detail: fmt.Sprintf("record the manifests, owners, events and policies of Pod %s/%s", p.Namespace, p.Name)}
	return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		err := c.Create(ctx, cm)
		if apierrors.IsAlreadyExists(err) {
			// Stored by a pass that died before it wrote status: the first record stands, it is nearest to the untouched pod.
			err = c.Get(ctx, client.ObjectKeyFromObject(cm), cm)
		}
		if err != nil {
			return err
		}
		s.addItem(evidence.StoredItem(cm, podRef(p), s.now.Time))
		return nil
	})
}

// selecting are the policies of others that select the pod as it is.
func (s *scope) selecting(pod *corev1.Pod) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, p := range s.policies[pod.Namespace] {
		sel, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if _, ours := p.Labels[v1alpha1.IncidentUIDLabel]; !ours && (err != nil || sel.Matches(labels.Set(pod.Labels))) {
			out = append(out, p)
		}
	}
	return out
}

// snapshotVolumes takes a snapshot of every claim of the pods, once the pods are cut off.
func (s *scope) snapshotVolumes(ctx context.Context) error {
	snapshots := &evidence.Snapshots{Reader: s.Client, Incident: s.incident, Orders: s.policy.Evidence, Now: s.now.Time}
	s.beginSnapshots(snapshots)
	var failures []error
	for i := range s.next.Evidence {
		item := &s.next.Evidence[i]
		if item.Type != v1alpha1.EvidenceVolumeSnapshot || item.State != v1alpha1.EvidencePending {
			continue
		}
		observed, step, err := snapshots.Observe(ctx, *item)
		if err == nil {
			err = s.takeSnapshotStep(ctx, step)
		}
		// One volume that cannot be read is no reason to forget the others.
		failures = append(failures, err)
		*item = observed
		if item.State == v1alpha1.EvidencePending && !s.dryRun() {
			s.lookAgainAfter(snapshotPoll)
		}
	}
	if s.dryRun() {
		s.next.Evidence = nil
	}
	return errors.Join(failures...)
}

func (s *scope) beginSnapshots(snapshots *evidence.Snapshots) {
	if s.closing() {
		return
	}
	var pods []*corev1.Pod
	for i := range s.next.Pods {
		p := &s.next.Pods[i]
		// A pod that has ended before it was cut off still has its volumes.
		if pod := s.live(p); pod != nil && (p.Handling != v1alpha1.HandlingPending || s.dryRun() || target.Ended(pod)) {
			pods = append(pods, pod)
		}
	}
	claims := evidence.Claims(pods)
	keys := slices.SortedFunc(maps.Keys(claims), func(a, b types.NamespacedName) int {
		return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
	})
	for _, claim := range keys {
		item := s.item(evidence.SnapshotID(claim))
		if item == nil {
			s.addItem(snapshots.Begin(claim, claims[claim]))
			continue
		}
		for _, uid := range claims[claim] {
			if !slices.Contains(item.Pods, uid) {
				item.Pods = append(item.Pods, uid)
			}
		}
	}
}

func (s *scope) takeSnapshotStep(ctx context.Context, step evidence.Step) error {
	switch {
	case step.Create != nil:
		snap := step.Create
		op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: "VolumeSnapshot", Namespace: snap.Namespace, Name: snap.Name},
			Detail: fmt.Sprintf("snapshot PersistentVolumeClaim %s with class %s; its content is then set to Retain", *snap.Spec.Source.PersistentVolumeClaimName, *snap.Spec.VolumeSnapshotClassName)}
		return s.Write(ctx, op, func(ctx context.Context, c client.Client) error {
			return client.IgnoreAlreadyExists(c.Create(ctx, snap))
		})
	case step.Retain != nil:
		return s.retain(ctx, step.Retain)
	case step.Retained != nil:
		s.journal.Done(v1alpha1.ActionRetainSnapshot, contentRef(step.Retained))
	}
	return nil
}

func contentRef(content *snapshotv1.VolumeSnapshotContent) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: "VolumeSnapshotContent", Name: content.Name, UID: string(content.UID)}
}

// retain makes a snapshot outlive its namespace. That it did is observed by the next look.
func (s *scope) retain(ctx context.Context, content *snapshotv1.VolumeSnapshotContent) error {
	ref := contentRef(content)
	const detail = "deletionPolicy: Retain"
	if !s.journal.Intend(v1alpha1.ActionRetainSnapshot, ref, detail) {
		return nil
	}
	patch, err := evidence.RetainPatch(content)
	if err != nil {
		return err
	}
	return s.Write(ctx, v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}, func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, content, client.RawPatch(types.JSONPatchType, patch))
	})
}
