// Package scenario is the story that several suites tell: a small shop of which a part is compromised, and the people who deal with it.
package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
)

// BadImage is the image of the compromised revision.
const BadImage = "registry.k8s.io/pause:3.10@sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a"

// Patience bounds every wait. It is a limit against hanging, not an expectation: nothing passes or fails by being fast.
const Patience = 2 * time.Minute

// Names in the shop.
const (
	Web      = "web"
	DB       = "db"
	Clean    = "blog"
	PlanName = "bring-back"
)

// DBClaim is the claim of the database.
const DBClaim = "data-db-0"

// Shop is one namespace with an application, and people with roles in it.
type Shop struct {
	Namespace string
	// Admin is the cluster's administrator; Responder, Approver and Waiver hold the roles of config/rbac in the namespace.
	Admin, Responder, Approver, Waiver, Lead client.WithWatch
	// ResponderName and so on are their user names.
	ResponderName, ApproverName, WaiverName, LeadName string
}

// Open creates the namespace, the people, the application and a RecoveryPlan, and waits until the application runs.
func Open(ctx context.Context, server *cluster.Cluster, namespace string) (*Shop, error) {
	s := &Shop{
		Namespace: namespace, ResponderName: namespace + "-responder", ApproverName: namespace + "-approver", WaiverName: namespace + "-waiver",
		LeadName: namespace + "-lead",
	}
	for who, config := range map[*client.WithWatch]*rest.Config{
		&s.Admin: server.RESTConfig, &s.Responder: server.Impersonate(s.ResponderName), &s.Approver: server.Impersonate(s.ApproverName),
		&s.Waiver: server.Impersonate(s.WaiverName), &s.Lead: server.Impersonate(s.LeadName),
	} {
		var err error
		if *who, err = client.NewWithWatch(config, client.Options{Scheme: controllers.NewScheme()}); err != nil {
			return nil, err
		}
	}
	for _, obj := range s.objects() {
		if err := s.Admin.Create(ctx, obj); err != nil {
			return nil, fmt.Errorf("create %T %s: %w", obj, obj.GetName(), err)
		}
	}
	return s, s.WaitRunning(ctx)
}

func (s *Shop) objects() []client.Object {
	db := builder.StatefulSet(s.Namespace, DB, BadImage, 1)
	db.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	db.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}}
	return []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace, Labels: map[string]string{"shop": s.Namespace}}},
		s.binding(s.ResponderName, "cofferdam-responder"),
		s.binding(s.ApproverName, "cofferdam-approver"),
		s.binding(s.WaiverName, "cofferdam-evidence-waiver"),
		s.binding(s.LeadName, "cofferdam-recovery-lead"),
		builder.Deployment(s.Namespace, Web, BadImage, 2),
		db,
		builder.Deployment(s.Namespace, Clean, builder.GoodImage, 1),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: Web}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": Web}, Ports: []corev1.ServicePort{{Port: 80}},
		}},
		s.Plan(),
	}
}

func (s *Shop) binding(user, role string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
}

// Plan brings back the database, while its other client has no pods, then the web tier, looks at both, asks, and releases.
func (s *Shop) Plan() *v1alpha1.RecoveryPlan {
	ref := func(kind v1alpha1.RecoverableKind, name string) v1alpha1.WorkloadRef {
		return v1alpha1.WorkloadRef{Kind: kind, Name: name}
	}
	web := builder.RollBack("web", ref("Deployment", Web))
	web.DependsOn = []string{"db"}
	plan := builder.Plan(s.Namespace, PlanName,
		builder.RollBack("db", ref("StatefulSet", DB)),
		builder.Scale("quiet", Clean, v1alpha1.ScaleToZero),
		builder.Scale("loud", Clean, v1alpha1.ScaleToOriginal, "quiet", "db"),
		web,
		builder.Verify("healthy", "apps/v1", "Deployment", Web, "object.status.readyReplicas == 2", "web"),
		builder.Approve("sign-off", "healthy"),
		builder.Release("let-go", "sign-off"),
	)
	plan.Spec.Images = []v1alpha1.KnownGoodImages{
		builder.KnownGood("Deployment", Web, "app", builder.GoodImage),
		builder.KnownGood("StatefulSet", DB, "app", builder.GoodImage),
	}
	return plan
}

// Targets are the compromised workloads of the shop.
func Targets() []v1alpha1.Target {
	return []v1alpha1.Target{
		builder.Target(v1alpha1.TargetDeployment, "", Web),
		builder.Target(v1alpha1.TargetStatefulSet, "", DB),
	}
}

// Policy governs the Incidents of one namespace, so that suites can share a control plane.
func Policy(namespace string, changes ...func(*v1alpha1.ContainmentPolicy)) *v1alpha1.ContainmentPolicy {
	only := func(p *v1alpha1.ContainmentPolicy) {
		p.Spec.AppliesTo.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"shop": namespace}}
	}
	return builder.Policy(namespace, append([]func(*v1alpha1.ContainmentPolicy){only}, changes...)...)
}

// Files is a Deployment that keeps something on a claim of the same name.
const Files = "files"

// OpenFiles creates the Deployment with its claim, and waits until it runs.
func (s *Shop) OpenFiles(ctx context.Context, image string) error {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: Files, Labels: map[string]string{"tier": "data"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	d := builder.Deployment(s.Namespace, Files, image, 1)
	d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: Files}}}}
	d.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	for _, obj := range []client.Object{claim, d} {
		if err := s.Admin.Create(ctx, obj); err != nil {
			return err
		}
	}
	return eventually(ctx, func(ctx context.Context) error {
		if err := s.Admin.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if d.Status.ReadyReplicas != 1 {
			return fmt.Errorf("deployment %s is not ready", Files)
		}
		return nil
	})
}

// AllowAll is an unrelated policy that allows everything to and from the pods it selects.
func AllowAll(namespace, name string, selector metav1.LabelSelector) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: selector,
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{}},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{}},
		},
	}
}

// WaitRunning waits until every workload of the shop has its pods.
func (s *Shop) WaitRunning(ctx context.Context) error {
	return eventually(ctx, func(ctx context.Context) error {
		for _, name := range []string{Web, Clean} {
			var d appsv1.Deployment
			if err := s.Admin.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: name}, &d); err != nil {
				return err
			}
			if d.Status.ReadyReplicas != *d.Spec.Replicas || d.Status.ObservedGeneration != d.Generation {
				return fmt.Errorf("deployment %s has %d ready replicas", name, d.Status.ReadyReplicas)
			}
		}
		var db appsv1.StatefulSet
		if err := s.Admin.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: DB}, &db); err != nil {
			return err
		}
		if db.Status.ReadyReplicas != *db.Spec.Replicas {
			return fmt.Errorf("statefulset %s has %d ready replicas", DB, db.Status.ReadyReplicas)
		}
		return nil
	})
}

// WaitPods waits until a pod with each of the labels app=<name> runs.
func (s *Shop) WaitPods(ctx context.Context, names ...string) error {
	return eventually(ctx, func(ctx context.Context) error {
		for _, name := range names {
			var pods corev1.PodList
			if err := s.Admin.List(ctx, &pods, client.InNamespace(s.Namespace), client.MatchingLabels{"app": name}); err != nil {
				return err
			}
			if !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }) {
				return fmt.Errorf("no pod of %s runs", name)
			}
		}
		return nil
	})
}

// BackUp takes a snapshot of the database's volume, as somebody who backs up does, and returns it with the second after it was taken, once that has come.
func (s *Shop) BackUp(ctx context.Context, name string) (*snapshotv1.VolumeSnapshot, time.Time, error) {
	return s.BackUpOf(ctx, name, DBClaim)
}

// BackUpOf is BackUp of another claim.
func (s *Shop) BackUpOf(ctx context.Context, name, claim string) (*snapshotv1.VolumeSnapshot, time.Time, error) {
	snapshot := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
		Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim}},
	}
	if err := s.Admin.Create(ctx, snapshot); err != nil {
		return nil, time.Time{}, err
	}
	var after time.Time
	err := eventually(ctx, func(ctx context.Context) error {
		if err := s.Admin.Get(ctx, client.ObjectKeyFromObject(snapshot), snapshot); err != nil {
			return err
		}
		if snapshot.Status == nil || snapshot.Status.CreationTime == nil || !ptr.Deref(snapshot.Status.ReadyToUse, false) {
			return fmt.Errorf("snapshot %s is not ready", name)
		}
		after = snapshot.Status.CreationTime.Add(time.Second).Truncate(time.Second)
		if time.Now().Before(after.Add(time.Second)) {
			return errors.New("the second after the snapshot has not come")
		}
		return nil
	})
	return snapshot, after, err
}

// Incident reads an Incident.
func (s *Shop) Incident(ctx context.Context, name string) (*v1alpha1.Incident, error) {
	var inc v1alpha1.Incident
	err := s.Admin.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: name}, &inc)
	return &inc, err
}

// Await waits until the Incident satisfies the condition, and returns it. Before that it has to be observed at its current generation. It is watched: many wait at a time, and to ask for a large object again and again
// would be most of the work there is.
func (s *Shop) Await(ctx context.Context, name string, what string, ok func(*v1alpha1.Incident) bool) (*v1alpha1.Incident, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var last *v1alpha1.Incident
	failure := errors.New("there is no such Incident")
	for ctx.Err() == nil {
		changes, err := s.Admin.Watch(ctx, &v1alpha1.IncidentList{}, client.InNamespace(s.Namespace), client.MatchingFields{"metadata.name": name}) // begins with what is there
		if err != nil {
			failure = err
			time.Sleep(pause)
			continue
		}
		for open := true; open; {
			last, open = latest(changes, last)
			if last != nil && last.Status.ObservedGeneration == last.Generation && ok(last) {
				changes.Stop()
				return last, nil
			}
		}
		changes.Stop()
	}
	if last == nil {
		return nil, fmt.Errorf("awaiting that incident %s is %s: %w", name, what, failure)
	}
	return last, fmt.Errorf("awaiting that incident %s is %s: %w; when last seen:%s", name, what, ctx.Err(), Conditions(last))
}

// pause is how long it is until what is asked for again and again is asked for again.
const pause = 100 * time.Millisecond

// latest is the Incident as the next change leaves it, or after a while as it was: what is waited for may depend on more than the Incident. It reports whether there may be other changes.
func latest(changes watch.Interface, before *v1alpha1.Incident) (*v1alpha1.Incident, bool) {
	select {
	case change, open := <-changes.ResultChan():
		inc, isIncident := change.Object.(*v1alpha1.Incident)
		switch {
		case change.Type == watch.Deleted:
			return nil, open
		case isIncident:
			return inc, open
		}
		return before, false
	case <-time.After(10 * pause):
		return before, true
	}
}

// Is reports whether a condition of the Incident is True.
func Is(kind string) func(*v1alpha1.Incident) bool {
	return func(inc *v1alpha1.Incident) bool { return apimeta.IsStatusConditionTrue(inc.Status.Conditions, kind) }
}

// LetGo reports whether the Incident holds nothing any more, with the outcome of that in its journal.
func LetGo(inc *v1alpha1.Incident) bool {
	return len(inc.Finalizers) == 0 && !slices.ContainsFunc(inc.Status.Journal, func(e v1alpha1.JournalEntry) bool {
		return e.Action == v1alpha1.ActionLetIncidentGo && e.State != v1alpha1.JournalDone
	})
}

// HasReason reports whether a condition has the reason.
func HasReason(kind, reason string) func(*v1alpha1.Incident) bool {
	return func(inc *v1alpha1.Incident) bool {
		c := apimeta.FindStatusCondition(inc.Status.Conditions, kind)
		return c != nil && c.Reason == reason
	}
}

// Conditions prints the conditions of an Incident for messages.
func Conditions(inc *v1alpha1.Incident) string {
	var out strings.Builder
	for _, c := range inc.Status.Conditions {
		fmt.Fprintf(&out, "\n  %s=%s (%s) %s", c.Type, c.Status, c.Reason, c.Message)
	}
	return out.String()
}

// SetGoal moves the goal of an Incident, as a responder does.
func (s *Shop) SetGoal(ctx context.Context, name string, goal v1alpha1.Goal) error {
	return s.edit(ctx, s.Responder, name, func(inc *v1alpha1.Incident) { inc.Spec.Goal = goal })
}

// Approve approves a step, with the digest that the Incident shows, as the approver, or as the waiver where gaps are waived.
func (s *Shop) Approve(ctx context.Context, name, step string) error {
	who, author := s.Approver, s.ApproverName
	if step == v1alpha1.WaiveStage {
		who, author = s.Waiver, s.WaiverName
	}
	return s.edit(ctx, who, name, func(inc *v1alpha1.Incident) {
		var digest string
		switch step {
		case v1alpha1.CloseStage:
			digest = inc.Status.CloseDigest
		case v1alpha1.WaiveStage:
			digest = inc.Status.GapDigest
		case v1alpha1.RemoveStage:
			digest = inc.Status.RemovalDigest
		default:
			digest = inc.Status.Recovery.PlanDigest
			for _, st := range inc.Status.Recovery.Steps {
				if st.Name == step {
					digest = cmp.Or(st.ApprovalDigest, digest)
				}
			}
		}
		builder.Approval(step, author, digest)(inc)
	})
}

// UseSecret creates a Secret and has a Deployment take its environment from it, and waits until it does.
func (s *Shop) UseSecret(ctx context.Context, secret string, data map[string]string, deployments ...string) error {
	if err := s.Admin.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: secret}, StringData: data}); err != nil {
		return err
	}
	for _, name := range deployments {
		var d appsv1.Deployment
		if err := s.Admin.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: name}, &d); err != nil {
			return err
		}
		before := d.DeepCopy()
		d.Spec.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}}}
		if err := s.Admin.Patch(ctx, &d, client.MergeFrom(before)); err != nil {
			return err
		}
		if err := eventually(ctx, func(ctx context.Context) error { return s.replaced(ctx, name) }); err != nil {
			return err
		}
	}
	return nil
}

// replaced says why pods of a Deployment are not all of its newest revision, or nil.
func (s *Shop) replaced(ctx context.Context, name string) error {
	var d appsv1.Deployment
	if err := s.Admin.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: name}, &d); err != nil {
		return err
	}
	var pods corev1.PodList
	if err := s.Admin.List(ctx, &pods, client.InNamespace(s.Namespace), client.MatchingLabels{"app": name}); err != nil {
		return err
	}
	if d.Status.ObservedGeneration != d.Generation || d.Status.UpdatedReplicas != *d.Spec.Replicas || d.Status.ReadyReplicas != *d.Spec.Replicas || len(pods.Items) != int(*d.Spec.Replicas) {
		return fmt.Errorf("deployment %s is being rolled out: %d pods", name, len(pods.Items))
	}
	return nil
}

// AllowRotation lets the operator rotate the secrets of the shop.
func (s *Shop) AllowRotation(ctx context.Context) error {
	return s.Admin.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "cofferdam-secret-rotation"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cofferdam-secret-rotation"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: cluster.OperatorUser}},
	})
}

// Intervene intervenes in a step of the recovery, as the lead.
func (s *Shop) Intervene(ctx context.Context, name, step string, action v1alpha1.InterventionAction) error {
	return s.edit(ctx, s.Lead, name, builder.Intervention(step, action, s.LeadName))
}

// Pause holds the recovery back, or lets it go on, as a responder does.
func (s *Shop) Pause(ctx context.Context, name string, paused bool) error {
	who, author, why := s.Lead, s.LeadName, "the vendor has called back"
	if paused {
		who, author, why = s.Responder, s.ResponderName, "wait for the vendor"
	}
	return s.edit(ctx, who, name, func(inc *v1alpha1.Incident) {
		inc.Spec.Recovery = v1alpha1.RecoveryControl{Paused: &paused, Author: author, Reason: why}
	})
}

func (s *Shop) edit(ctx context.Context, who client.Client, name string, change func(*v1alpha1.Incident)) error {
	inc, err := s.Incident(ctx, name)
	if err != nil {
		return err
	}
	changed := inc.DeepCopy()
	change(changed)
	if equality.Semantic.DeepEqual(inc.Spec, changed.Spec) {
		return nil
	}
	return who.Patch(ctx, changed, client.MergeFrom(inc))
}

func eventually(ctx context.Context, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, pause, Patience, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
