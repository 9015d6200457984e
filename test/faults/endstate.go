package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/incident"
	"cofferdam.dev/cofferdam/controllers/store"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/gitops"
	"cofferdam.dev/cofferdam/test/scenario"
)

// EndState describes, line by line, everything that an Incident has left behind, without names, UIDs and times that differ from run to run. Pods that were created
// as replacements and went again are left out: how many there are depends on how fast the controllers of Kubernetes are.
func EndState(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident) ([]string, error) {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	describeStatus(inc, add)
	for _, describe := range []func(context.Context, *scenario.Shop, *v1alpha1.Incident, func(string, ...any)) error{
		describeWorkloads, describeManagers, describePods, describePolicies, describeVolumes, describeSnapshots, describeRecords, describeStore,
	} {
		if err := describe(ctx, shop, inc, add); err != nil {
			return nil, err
		}
	}
	slices.Sort(out)
	return out, nil
}

func describeStatus(inc *v1alpha1.Incident, add func(string, ...any)) {
	add("finalizers %v", inc.Finalizers)
	original := map[string]bool{}
	for _, p := range inc.Status.Pods {
		if p.Replacement == "" {
			original[p.UID] = true
			add("pod of %s: %s %s", p.Owner.Name, p.Handling, p.Verdict)
		}
	}
	for _, c := range inc.Status.Conditions {
		if c.Reason == v1alpha1.ReasonGaps && !slices.ContainsFunc(inc.Status.Evidence, func(e v1alpha1.EvidenceItem) bool { return lacking(e) && !ofReplacement(e, original) }) {
			c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.ReasonCollected
		}
		add("condition %s=%s %s", c.Type, c.Status, c.Reason)
	}
	// Who dies and comes back must not take its own traces for somebody else's.
	add("%d tampered with, %d measures", inc.Status.TamperingCount, len(inc.Status.Measures))
	for _, r := range inc.Status.Revisions {
		add("revision of %s: %s %v", r.Workload.Name, r.State, r.Images)
	}
	for _, e := range inc.Status.Evidence {
		if !ofReplacement(e, original) {
			add("evidence %s of a %s: %s", e.Type, e.Subject.Kind, e.State)
		}
	}
	for _, j := range inc.Status.Journal {
		switch {
		case j.Object.Kind == "Pod" && !original[j.Object.UID]:
		case j.Action == v1alpha1.ActionUpdateList && j.State == v1alpha1.JournalDone: // the lists follow the pods, however often those come and go
		default:
			add("journal %s %s: %s", j.Action, j.Object.Kind, j.State)
		}
	}
	if rec := inc.Status.Recovery; rec != nil {
		for _, st := range rec.Steps {
			add("step %s: %s", st.Name, st.State)
		}
		for _, p := range rec.Pauses {
			add("pause of %s %s: %s, undone %d times", p.Object.Kind, p.Object.Name, p.State, p.Undone)
		}
	}
}

// originals are the UIDs of the pods that were not created as replacements.
func originals(inc *v1alpha1.Incident) map[string]bool {
	out := map[string]bool{}
	for _, p := range inc.Status.Pods {
		out[p.UID] = p.Replacement == ""
	}
	return out
}

func lacking(e v1alpha1.EvidenceItem) bool {
	return e.State == v1alpha1.EvidenceGap || e.State == v1alpha1.EvidencePartial
}

// ofReplacement reports whether an item is only about pods that were created as replacements: of one that the StatefulSet controller made and took away again, within moments, nothing may have been had.
func ofReplacement(e v1alpha1.EvidenceItem, original map[string]bool) bool {
	return e.Type != v1alpha1.EvidenceVolumeSnapshot && len(e.Pods) > 0 && !original[e.Pods[0]]
}

func describeWorkloads(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident, add func(string, ...any)) error {
	var deployments appsv1.DeploymentList
	if err := shop.Admin.List(ctx, &deployments, client.InNamespace(shop.Namespace)); err != nil {
		return err
	}
	for _, d := range deployments.Items {
		add("deployment %s: %s, marked %t, %d replicas, generation %d", d.Name, d.Spec.Template.Spec.Containers[0].Image,
			d.Spec.Template.Annotations[v1alpha1.RecoveredByAnnotation] == string(inc.UID), *d.Spec.Replicas, d.Generation)
		for _, v := range d.Spec.Template.Spec.Volumes {
			if v.PersistentVolumeClaim != nil {
				add("deployment %s names claim %s", d.Name, untold(v.PersistentVolumeClaim.ClaimName))
			}
		}
	}
	var sets appsv1.StatefulSetList
	if err := shop.Admin.List(ctx, &sets, client.InNamespace(shop.Namespace)); err != nil {
		return err
	}
	for _, s := range sets.Items {
		add("statefulset %s: %s, marked %t, generation %d", s.Name, s.Spec.Template.Spec.Containers[0].Image,
			s.Spec.Template.Annotations[v1alpha1.RecoveredByAnnotation] == string(inc.UID), s.Generation)
	}
	return nil
}

// describeManagers tells what the Applications of the shop are left with.
func describeManagers(ctx context.Context, shop *scenario.Shop, _ *v1alpha1.Incident, add func(string, ...any)) error {
	apps := &unstructured.UnstructuredList{}
	apps.SetAPIVersion("argoproj.io/v1alpha1")
	apps.SetKind("ApplicationList")
	if err := shop.Admin.List(ctx, apps, client.InNamespace(gitops.NamespaceOf(shop))); err != nil {
		return err
	}
	for _, a := range apps.Items {
		policy, _, _ := unstructured.NestedMap(a.Object, "spec", "syncPolicy")
		add("application %s: %v, labels %v, %d annotations", a.GetName(), policy, a.GetLabels(), len(a.GetAnnotations()))
	}
	return nil
}

func describePods(ctx context.Context, shop *scenario.Shop, _ *v1alpha1.Incident, add func(string, ...any)) error {
	var pods corev1.PodList
	if err := shop.Admin.List(ctx, &pods, client.InNamespace(shop.Namespace)); err != nil {
		return err
	}
	for _, p := range pods.Items {
		quarantined := 0
		for k := range p.Labels {
			if strings.HasPrefix(k, v1alpha1.QuarantineLabelPrefix) {
				quarantined++
			}
		}
		add("live pod of %q: %s, %d holds, %d owners", p.Labels["app"], p.Spec.Containers[0].Image, quarantined, len(p.OwnerReferences))
	}
	return nil
}

func describePolicies(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident, add func(string, ...any)) error {
	var policies networkingv1.NetworkPolicyList
	if err := shop.Admin.List(ctx, &policies, client.InNamespace(shop.Namespace)); err != nil {
		return err
	}
	for _, p := range policies.Items {
		add("policy of ours %t: %d keys", p.Labels[v1alpha1.IncidentUIDLabel] == string(inc.UID), len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions))
	}
	var budgets policyv1.PodDisruptionBudgetList
	if err := shop.Admin.List(ctx, &budgets, client.InNamespace(shop.Namespace)); err != nil {
		return err
	}
	tiers := &unstructured.UnstructuredList{}
	tiers.SetAPIVersion("policy.networking.k8s.io/v1alpha2")
	tiers.SetKind("ClusterNetworkPolicyList")
	if err := shop.Admin.List(ctx, tiers, client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(inc.UID)}); err != nil {
		return err
	}
	add("%d budgets, %d deny tiers", len(budgets.Items), len(tiers.Items))
	return nil
}

// untold leaves out of the name of a claim what differs from run to run.
func untold(claim string) string {
	name, _, restored := strings.Cut(claim, "-restored-")
	if restored {
		return name + "-restored"
	}
	return claim
}

// describeVolumes tells of every claim what its volume was made from, and of the volumes that no claim has what becomes of them. Those that the storage is about to remove are left out.
func describeVolumes(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident, add func(string, ...any)) error {
	var claims corev1.PersistentVolumeClaimList
	if err := shop.Admin.List(ctx, &claims, client.InNamespace(shop.Namespace)); err != nil {
		return err
	}
	var volumes corev1.PersistentVolumeList
	if err := shop.Admin.List(ctx, &volumes); err != nil {
		return err
	}
	for _, v := range volumes.Items {
		ref := v.Spec.ClaimRef
		if ref == nil || ref.Namespace != shop.Namespace || v.Status.Phase != corev1.VolumeBound && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			continue
		}
		made := "empty"
		if v.Spec.CSI != nil && len(v.Spec.CSI.VolumeAttributes) > 0 {
			made = "from a snapshot"
		}
		bound := slices.ContainsFunc(claims.Items, func(c corev1.PersistentVolumeClaim) bool { return c.UID == ref.UID && c.Spec.VolumeName == v.Name })
		add("volume made %s for %s: %s, %s, bound both ways %t, ours %t", made, untold(ref.Name), v.Status.Phase, v.Spec.PersistentVolumeReclaimPolicy, bound, v.Labels[v1alpha1.IncidentUIDLabel] == string(inc.UID))
	}
	add("%d claims", len(claims.Items))
	return nil
}

func describeSnapshots(ctx context.Context, shop *scenario.Shop, _ *v1alpha1.Incident, add func(string, ...any)) error {
	var snapshots snapshotv1.VolumeSnapshotList
	if err := shop.Admin.List(ctx, &snapshots, client.InNamespace(shop.Namespace)); err != nil {
		return err
	}
	for _, v := range snapshots.Items {
		var content snapshotv1.VolumeSnapshotContent
		if err := shop.Admin.Get(ctx, client.ObjectKey{Name: *v.Status.BoundVolumeSnapshotContentName}, &content); err != nil {
			return err
		}
		add("snapshot of %s: %s", *v.Spec.Source.PersistentVolumeClaimName, content.Spec.DeletionPolicy)
	}
	return nil
}

// describeRecords looks for lists that should be gone. What is in the store describeStore knows.
func describeRecords(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident, add func(string, ...any)) error {
	var list corev1.ConfigMapList
	if err := shop.Admin.List(ctx, &list, client.InNamespace(cluster.OperatorNamespace), client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(inc.UID)}); err != nil {
		return err
	}
	for _, cm := range list.Items {
		if cm.Labels[v1alpha1.RefusalsLabel] != "" {
			add("refusals are left")
		}
		if cm.Labels[v1alpha1.HeldLabel] != "" {
			add("a list of what is held is left")
		}
	}
	return nil
}

// storeOf is the store of one run.
func storeOf(namespace string) string { return "mem://" + namespace }

// describeStore reads the ledger, which has to verify, and looks whether every item of status is in the store as the ledger says. What is still on its way into the ledger is waited for.
func describeStore(ctx context.Context, shop *scenario.Shop, inc *v1alpha1.Incident, add func(string, ...any)) error {
	st, err := store.Open(ctx, storeOf(shop.Namespace), store.Options{})
	if err != nil {
		return err
	}
	ledger, err := settledLedger(ctx, st, shop, inc)
	if err != nil {
		return err
	}
	original := originals(inc)
	counts := map[string]int{}
	for e := range ledger.Entries() {
		if e.Action == "Write" || e.Action == string(v1alpha1.ActionUpdateList) || e.Action == "CollectEvidence" && e.Phase == custody.PhaseIntent || strings.Contains(e.Action, "=") || e.Action == custody.ActionVoid || e.Action == "MeasureInForce" {
			continue // how many of these there are depends on when the operator died, and on how fast the controllers of Kubernetes are
		}
		if e.Subject.Kind == "Pod" && !original[e.Subject.UID] {
			continue
		}
		counts[fmt.Sprintf("%s %s %s of a %s", e.Actor.Kind, e.Action, e.Phase, e.Subject.Kind)]++
	}
	for what, n := range counts {
		add("ledger: %d times %s", n, what)
	}
	for i := range inc.Status.Evidence {
		e := &inc.Status.Evidence[i]
		if !evidence.InStore(e) || e.State != v1alpha1.EvidenceCollected {
			continue
		}
		if err := st.Verify(ctx, store.Object{Key: e.Location, Digest: e.Digest, Size: e.Size}); err != nil {
			return err
		}
	}
	keys, err := st.Keys(ctx, "incidents/"+string(inc.UID)+"/items/")
	add("items are left in the store: %t", len(keys) > 0)
	return err
}

// settledLedger waits until the ledger has what status has, and is signed. It fails at once when the ledger does not verify.
func settledLedger(ctx context.Context, st *store.Store, shop *scenario.Shop, inc *v1alpha1.Incident) (*custody.Ledger, error) {
	var ledger *custody.Ledger
	_, err := shop.Await(ctx, inc.Name, "in the ledger", func(now *v1alpha1.Incident) bool {
		var err error
		if ledger, err = custody.Open(ctx, st, string(inc.UID)); err != nil || now.Status.Custody == nil {
			return false
		}
		return ledger.Seq() == now.Status.Custody.Entries && incident.Recorded(now, ledger.Has)
	})
	return ledger, err
}
