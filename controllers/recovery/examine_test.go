package recovery

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
)

var examinedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// storeFixture is a claim with its volume, class, and a snapshot that was taken an hour ago.
type storeFixture struct {
	claim    *corev1.PersistentVolumeClaim
	volume   *corev1.PersistentVolume
	class    *storagev1.StorageClass
	snapshot *snapshotv1.VolumeSnapshot
	content  *snapshotv1.VolumeSnapshotContent
}

func newStore() *storeFixture {
	taken := metav1.NewTime(examinedAt.Add(-time.Hour))
	block := corev1.PersistentVolumeBlock
	return &storeFixture{
		claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim"},
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "volume", StorageClassName: new("fast"), VolumeMode: &block},
			Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
		},
		volume: &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "volume"},
			Spec:       corev1.PersistentVolumeSpec{VolumeMode: &block, PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com"}}},
		},
		class: &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Provisioner: "csi.example.com"},
		snapshot: &snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "hourly", UID: "snapshot"},
			Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: new("data")}},
			Status:     &snapshotv1.VolumeSnapshotStatus{ReadyToUse: new(true), CreationTime: &taken, BoundVolumeSnapshotContentName: new("content")},
		},
		content: &snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{Name: "content"},
			Spec:       snapshotv1.VolumeSnapshotContentSpec{Driver: "csi.example.com", VolumeSnapshotRef: corev1.ObjectReference{UID: "snapshot"}, SourceVolumeMode: &block},
		},
	}
}

func (s *storeFixture) objects() []client.Object {
	return []client.Object{s.claim, s.volume, s.class, s.snapshot, s.content}
}

// examinedBy is a client of somebody who may not do what is denied, given as "verb resource".
func examinedBy(t *testing.T, denied string, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, snapshotv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	mapper := apimeta.NewDefaultRESTMapper(nil)
	for kind := range scheme.AllKnownTypes() {
		mapper.Add(kind, apimeta.RESTScopeNamespace)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(mapper).WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			review, ok := obj.(*authorizationv1.SelfSubjectAccessReview)
			if !ok {
				return c.Create(ctx, obj, opts...)
			}
			asked := review.Spec.ResourceAttributes
			review.Status.Allowed = asked.Verb+" "+asked.Resource != denied
			return nil
		},
	}).Build()
}

func TestExamine(t *testing.T) {
	restore := func(change func(*v1alpha1.RestoreVolumesStep)) v1alpha1.RecoveryStep {
		step := builder.RestoreVolumes("back", nil, "data")
		if change != nil {
			change(step.RestoreVolumes)
		}
		return step
	}
	deployment := builder.Deployment("shop", "web", builder.GoodImage, 1)
	gated := builder.RunJob("run", builder.GoodImage)
	gated.Gate = builder.Verify("", "example.com/v1", "Widget", "one", "").Verify
	for name, tc := range map[string]struct {
		step   v1alpha1.RecoveryStep
		denied string
		change func(*storeFixture)
		want   Finding
	}{
		"a claim with a snapshot": {step: restore(nil)},
		"a snapshot that is just old enough": {step: restore(func(s *v1alpha1.RestoreVolumesStep) {
			s.DwellSeconds, s.MarginSeconds = 3000, new(int32(599))
		})},
		"a snapshot that is not old enough": {
			step: restore(func(s *v1alpha1.RestoreVolumesStep) { s.DwellSeconds, s.MarginSeconds = 3000, new(int32(600)) }),
			want: Finding{v1alpha1.ReasonNoUsableSnapshot, "step back: no snapshot of PersistentVolumeClaim data can be used: hourly was taken at 2026-03-01T11:00:00Z, and only what was taken before 2026-03-01T11:00:00Z is known to be older than the incident"},
		},
		"no group": {
			step: restore(func(s *v1alpha1.RestoreVolumesStep) { s.Snapshots = v1alpha1.SnapshotOneGroup }),
			want: Finding{v1alpha1.ReasonNoUsableSnapshot, "step back: no VolumeGroupSnapshot that is old enough has one ready member of every claim: list fewer claims, or set snapshots to Newest"},
		},
		"a class of another driver": {
			step: restore(nil), change: func(s *storeFixture) { s.class.Provisioner = "other.example.com" },
			want: Finding{v1alpha1.ReasonStorageMismatch, "step back: StorageClass fast of PersistentVolumeClaim data is of other.example.com, and its volume of csi.example.com: no volume of this class can be made from its snapshots"},
		},
		"a class that is gone": {
			step: restore(nil), change: func(s *storeFixture) { s.class.Name = "slow" },
			want: Finding{v1alpha1.ReasonStorageMismatch, "step back: StorageClass fast of PersistentVolumeClaim data does not exist: create it again"},
		},
		"a claim without a class": {
			step: restore(nil), change: func(s *storeFixture) { s.claim.Spec.StorageClassName = nil },
			want: Finding{v1alpha1.ReasonStorageMismatch, "step back: PersistentVolumeClaim data names no StorageClass, and no volume can be made for it"},
		},
		"a snapshot of another mode": {
			step: restore(nil), change: func(s *storeFixture) { s.content.Spec.SourceVolumeMode = ptr.To(corev1.PersistentVolumeFilesystem) },
			want: Finding{v1alpha1.ReasonNoUsableSnapshot, "step back: no snapshot of PersistentVolumeClaim data can be used: hourly is of a volume of mode Filesystem, and the claim of mode Block"},
		},
		"a mode that the storage does not say": {step: restore(nil), change: func(s *storeFixture) { s.content.Spec.SourceVolumeMode = nil }},
		"no right to delete claims": {
			step: restore(nil), denied: "delete persistentvolumeclaims",
			want: Finding{v1alpha1.ReasonMissingPermission, "step back: the operator may not delete persistentvolumeclaims in namespace shop: grant it to its service account, or change the plan"},
		},
		"no right to run the check": {
			step: restore(func(s *v1alpha1.RestoreVolumesStep) { s.Check.Image = builder.GoodImage }), denied: "create jobs",
			want: Finding{v1alpha1.ReasonMissingPermission, "step back: the operator may not create jobs.batch in namespace shop: grant it to its service account, or change the plan"},
		},
		"no right that is not needed": {step: restore(nil), denied: "create jobs"},
		"no right to roll back": {
			step: builder.RollBack("web", v1alpha1.WorkloadRef{Kind: "Deployment", Name: "web"}), denied: "patch deployments",
			want: Finding{v1alpha1.ReasonMissingPermission, "step web: the operator may not patch deployments.apps in namespace shop: grant it to its service account, or change the plan"},
		},
		"no right to make a Job anew": {
			step: builder.RollBack("web", v1alpha1.WorkloadRef{Kind: "Job", Name: "import"}), denied: "delete jobs",
			want: Finding{v1alpha1.ReasonMissingPermission, "step web: the operator may not delete jobs.batch in namespace shop: grant it to its service account, or change the plan"},
		},
		"a workload that is scaled": {step: builder.Scale("down", "web", v1alpha1.ScaleToZero)},
		"a workload that is not there": {
			step: builder.Scale("down", "api", v1alpha1.ScaleToZero),
			want: Finding{v1alpha1.ReasonUnknownWorkload, "step down: Deployment shop/api does not exist: create it, or correct the plan"},
		},
		"an object of a kind that is served": {step: builder.Verify("look", "apps/v1", "Deployment", "web", "")},
		"an object that may not be read": {
			step: builder.Verify("look", "v1", "ConfigMap", "settings", ""), denied: "get configmaps",
			want: Finding{v1alpha1.ReasonMissingPermission, "step look: the operator may not get configmaps in namespace shop: grant it to its service account, or change the plan"},
		},
		"a gate of a kind that is not served": {
			step: gated, want: Finding{v1alpha1.ReasonUnknownKind, "step run: the cluster does not serve Widget of example.com/v1: install it, or correct the plan"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore()
			if tc.change != nil {
				tc.change(store)
			}
			e := &Examination{
				Client: examinedBy(t, tc.denied, append(store.objects(), deployment.DeepCopy())...), Namespace: "shop",
				Plan: v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{tc.step}}, Now: examinedAt,
			}
			got, err := Examine(t.Context(), e)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whoever may govern the Incident decides what is there: one set of standing orders that has it all for a step is enough.
func TestLacks(t *testing.T) {
	plan := v1alpha1.RecoveryPlanSpec{Steps: []v1alpha1.RecoveryStep{
		{Name: "tell", Notify: &v1alpha1.NotifyStep{Message: "m", Routes: []string{"oncall"}}},
		{Name: "look", Verify: probing},
		{Name: "measure", Verify: &v1alpha1.VerifyStep{Prometheus: []v1alpha1.PrometheusCheck{{Source: "main"}}}},
	}}
	var full v1alpha1.ContainmentPolicySpec
	full.Notifications.Routes = []v1alpha1.Endpoint{{Name: "oncall"}}
	full.Recovery.Prometheus = []v1alpha1.Endpoint{{Name: "main"}}
	cases := map[string]struct {
		image  string
		orders []v1alpha1.ContainmentPolicySpec
		want   string
	}{
		"everything is there":      {image: "operator", orders: []v1alpha1.ContainmentPolicySpec{{}, full}},
		"no standing orders":       {image: "operator", want: `step tell: the ContainmentPolicy names no route "oncall"`},
		"none that has it":         {image: "operator", orders: []v1alpha1.ContainmentPolicySpec{{}}, want: "step tell"},
		"nothing to probe with":    {orders: []v1alpha1.ContainmentPolicySpec{full}, want: "step look: the operator does not know with which image to probe"},
		"a source that is missing": {image: "operator", orders: []v1alpha1.ContainmentPolicySpec{{Notifications: full.Notifications}}, want: `step measure: the ContainmentPolicy names no Prometheus "main"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Lacks(plan, tc.image, tc.orders); (got == "") != (tc.want == "") || !strings.HasPrefix(got, tc.want) {
				t.Errorf("Lacks() = %q, want %q first", got, tc.want)
			}
		})
	}
}
