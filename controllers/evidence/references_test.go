package evidence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func local(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func volumeOf(source corev1.VolumeSource) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}} }
}

func projection(source corev1.VolumeProjection) corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{source}}}
}

func TestPodReferences(t *testing.T) {
	mapEnv := corev1.EnvVar{Name: "M", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("m"), Key: "k", Optional: new(true)}}}
	from := []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("s")}}, {ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("m"), Optional: new(true)}}}
	items := []corev1.KeyToPath{{Key: "a", Path: "x"}, {Key: "b", Path: "y"}}
	ref := local("s")
	ours := func(where string) []string { return []string{"Secret shop/s " + where} }
	cases := map[string]struct {
		pod  func(*corev1.Pod)
		want []string
	}{
		"nothing": {pod: func(*corev1.Pod) {}},
		"a plain value": {pod: func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}}
		}},
		"a field": {pod: func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{}}}}}}
		}},
		"pull secret": {pod: func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{ref, {}} }, want: ours("spec.imagePullSecrets")},
		"env": {pod: func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Name: "c", Env: []corev1.EnvVar{secretEnv("S", "s"), mapEnv}}}
		}, want: []string{"ConfigMap shop/m env M of container c key k optional", "Secret shop/s env S of container c key password"}},
		"envFrom of an init container": {pod: func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "c", EnvFrom: from}} },
			want: []string{"ConfigMap shop/m envFrom of init container c optional", "Secret shop/s envFrom of init container c"}},
		"env of an ephemeral container": {pod: func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "c", Env: []corev1.EnvVar{secretEnv("S", "s")}}}}
		}, want: ours("env S of ephemeral container c key password")},
		"volume": {pod: volumeOf(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}), want: ours("volume v")},
		"volume with keys": {pod: volumeOf(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: items, Optional: new(true)}}),
			want: []string{"Secret shop/s volume v key a optional", "Secret shop/s volume v key b optional"}},
		"volume of a ConfigMap": {pod: volumeOf(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("m"), Items: items[:1]}}), want: []string{"ConfigMap shop/m volume v key a"}},
		"projected Secret":      {pod: volumeOf(projection(corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: ref, Items: items[:1]}})), want: ours("volume v (projected) key a")},
		"projected ConfigMap":   {pod: volumeOf(projection(corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("m")}})), want: []string{"ConfigMap shop/m volume v (projected)"}},
		"projected token":       {pod: volumeOf(projection(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}))},
		"CSI":                   {pod: volumeOf(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: &ref}}), want: ours("volume v (CSI nodePublishSecretRef)")},
		"CSI without":           {pod: volumeOf(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}})},
		"azureFile":             {pod: volumeOf(corev1.VolumeSource{AzureFile: &corev1.AzureFileVolumeSource{SecretName: "s"}}), want: ours("volume v (azureFile)")},
		"cephfs":                {pod: volumeOf(corev1.VolumeSource{CephFS: &corev1.CephFSVolumeSource{SecretRef: &ref}}), want: ours("volume v (cephfs)")},
		"cinder":                {pod: volumeOf(corev1.VolumeSource{Cinder: &corev1.CinderVolumeSource{SecretRef: &ref}}), want: ours("volume v (cinder)")},
		"flexVolume":            {pod: volumeOf(corev1.VolumeSource{FlexVolume: &corev1.FlexVolumeSource{SecretRef: &ref}}), want: ours("volume v (flexVolume)")},
		"iscsi":                 {pod: volumeOf(corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{SecretRef: &ref}}), want: ours("volume v (iscsi)")},
		"rbd":                   {pod: volumeOf(corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{SecretRef: &ref}}), want: ours("volume v (rbd)")},
		"scaleIO":               {pod: volumeOf(corev1.VolumeSource{ScaleIO: &corev1.ScaleIOVolumeSource{SecretRef: &ref}}), want: ours("volume v (scaleIO)")},
		"storageos":             {pod: volumeOf(corev1.VolumeSource{StorageOS: &corev1.StorageOSVolumeSource{SecretRef: &ref}}), want: ours("volume v (storageos)")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metaOf("shop", "web-1")}
			tc.pod(pod)
			refs := references{by: map[referenceKey]map[string]bool{}}
			refs.addPod(pod)
			got := told(refs.list(), "web-1")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("references (-want +got):\n%s", diff)
			}
		})
	}
}

// told are the references in words; those that are not of exactly this pod, or with "" of none, say so.
func told(refs []Reference, pod string) []string {
	var out []string
	for _, r := range refs {
		text := nameOf(r.Kind, r.Namespace, r.Name) + " " + r.Where
		if r.Key != "" {
			text += " key " + r.Key
		}
		if r.Optional {
			text += " optional"
		}
		if strings.Join(r.Pods, " ") != pod {
			text += fmt.Sprintf(" pods %v", r.Pods)
		}
		out = append(out, text)
	}
	return out
}

func TestOtherReferences(t *testing.T) {
	far := &corev1.SecretReference{Namespace: "storage", Name: "s"}
	ours := func(field string) []string { return []string{"Secret storage/s " + field + " of PersistentVolume pv"} }
	cases := map[string]struct {
		source corev1.PersistentVolumeSource
		want   []string
	}{
		"none": {source: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{}}},
		"CSI": {source: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			ControllerPublishSecretRef: far, NodeStageSecretRef: far, NodePublishSecretRef: far, ControllerExpandSecretRef: far, NodeExpandSecretRef: far,
		}}, want: slices.Concat(ours("controllerExpandSecretRef"), ours("controllerPublishSecretRef"), ours("nodeExpandSecretRef"), ours("nodePublishSecretRef"), ours("nodeStageSecretRef"))},
		"azureFile":                {source: corev1.PersistentVolumeSource{AzureFile: &corev1.AzureFilePersistentVolumeSource{SecretName: "s", SecretNamespace: new("storage")}}, want: ours("azureFile")},
		"azureFile, the claim's":   {source: corev1.PersistentVolumeSource{AzureFile: &corev1.AzureFilePersistentVolumeSource{SecretName: "s"}}, want: []string{"Secret shop/s azureFile of PersistentVolume pv"}},
		"cephfs":                   {source: corev1.PersistentVolumeSource{CephFS: &corev1.CephFSPersistentVolumeSource{SecretRef: far}}, want: ours("cephfs")},
		"cinder":                   {source: corev1.PersistentVolumeSource{Cinder: &corev1.CinderPersistentVolumeSource{SecretRef: far}}, want: ours("cinder")},
		"flexVolume":               {source: corev1.PersistentVolumeSource{FlexVolume: &corev1.FlexPersistentVolumeSource{SecretRef: far}}, want: ours("flexVolume")},
		"iscsi":                    {source: corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{SecretRef: far}}, want: ours("iscsi")},
		"rbd":                      {source: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{SecretRef: far}}, want: ours("rbd")},
		"scaleIO":                  {source: corev1.PersistentVolumeSource{ScaleIO: &corev1.ScaleIOPersistentVolumeSource{SecretRef: far}}, want: ours("scaleIO")},
		"storageos":                {source: corev1.PersistentVolumeSource{StorageOS: &corev1.StorageOSPersistentVolumeSource{SecretRef: &corev1.ObjectReference{Namespace: "storage", Name: "s"}}}, want: ours("storageos")},
		"storageos without Secret": {source: corev1.PersistentVolumeSource{StorageOS: &corev1.StorageOSPersistentVolumeSource{}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			refs := references{by: map[referenceKey]map[string]bool{}}
			refs.addVolume(&corev1.PersistentVolume{ObjectMeta: metaOf("", "pv"), Spec: corev1.PersistentVolumeSpec{
				PersistentVolumeSource: tc.source, ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "data"},
			}})
			if diff := cmp.Diff(tc.want, told(refs.list(), "")); diff != "" {
				t.Errorf("references (-want +got):\n%s", diff)
			}
		})
	}
	refs := references{by: map[referenceKey]map[string]bool{}}
	refs.addAccount(&corev1.ServiceAccount{ObjectMeta: metaOf("shop", "web"), Secrets: []corev1.ObjectReference{{Name: "t"}}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "p"}}})
	if diff := cmp.Diff([]string{"Secret shop/p imagePullSecrets of ServiceAccount web", "Secret shop/t secrets of ServiceAccount web"}, told(refs.list(), "")); diff != "" {
		t.Errorf("references of a ServiceAccount (-want +got):\n%s", diff)
	}
}

func TestReferencesBounded(t *testing.T) {
	refs := references{by: map[referenceKey]map[string]bool{}}
	for i := range maxReferences + 9 {
		refs.add("Secret", "shop", fmt.Sprint(i), "somewhere", "", false, "web-1")
	}
	if len(refs.by) != maxReferences || refs.over != 9 {
		t.Errorf("%d references, %d over", len(refs.by), refs.over)
	}
	refs = references{by: map[referenceKey]map[string]bool{}}
	for i := range maxReferrers + 9 {
		refs.add("Secret", "shop", "s", "somewhere", "", false, fmt.Sprint(i))
	}
	if refs.referrers != maxReferrers || refs.over != 9 {
		t.Errorf("%d referrers, %d over", refs.referrers, refs.over)
	}
}

func TestMetadata(t *testing.T) {
	pods, objs := shop(1)
	gone := slices.DeleteFunc(slices.Clone(objs), func(obj client.Object) bool { return obj.GetName() == "db" || obj.GetName() == "settings" })
	cases := map[string]struct {
		objs    []client.Object
		errs    map[string]error
		want    []string
		notRead []string
	}{
		"granted": {objs: objs, want: []string{"ConfigMap shop/settings", "Secret shop/db", "Secret shop/pull", "Secret shop/tls-web", "Secret shop/web-token", "Secret storage/stage"}},
		"gone": {objs: gone, want: []string{"Secret shop/pull", "Secret shop/tls-web", "Secret shop/web-token", "Secret storage/stage"},
			notRead: []string{"ClusterRole gone: not found", "ConfigMap shop/settings: not found", "Secret shop/db: not found"}},
		"as installed": {objs: objs, errs: map[string]error{"Secret": forbidden("secrets"), "ConfigMap": forbidden("configmaps")}, notRead: []string{
			"ConfigMap shop/settings: metadata not read: forbidden", "Secret shop/db: metadata not read: forbidden", "Secret shop/pull: metadata not read: forbidden",
			"Secret shop/tls-web: metadata not read: forbidden", "Secret shop/web-token: metadata not read: forbidden", "Secret storage/stage: metadata not read: forbidden",
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := live(t, tc.objs...)
			r.errs = tc.errs
			got := gather(t, r, pods)
			var read, unread []string
			for _, m := range got.Metadata {
				read = append(read, nameOf(m.Kind, m.Namespace, m.Name))
			}
			for _, n := range notRead(got) {
				if name == "gone" || !strings.HasPrefix(n, "ClusterRole") {
					unread = append(unread, n)
				}
			}
			if diff := cmp.Diff([]any{tc.want, tc.notRead}, []any{read, unread}); diff != "" {
				t.Errorf("read, not read (-want +got):\n%s", diff)
			}
			if name == "as installed" && (r.asked["get Secret"] != 2 || r.asked["get ConfigMap"] != 1) {
				t.Errorf("refusals were asked for: %v", r.asked)
			}
		})
	}
	r := live(t, objs...)
	r.errs["Secret"] = apierrors.NewServiceUnavailable("down")
	if _, err := GatherSurroundings(context.Background(), r, "shop", pods, PolicyKinds{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("while the server is down: %v", err)
	}
}

func TestMetadataBounded(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metaOf("shop", "web")}
	for i := range maxMetadata + 5 {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, local(fmt.Sprintf("s-%03d", i)))
	}
	r := live(t)
	got := gather(t, r, []*corev1.Pod{pod})
	want := []LeftOut{{Kind: "metadata of Secret", Namespace: "shop", Count: 5, Why: "more is referred to than is asked for"}}
	if diff := cmp.Diff(want, got.LeftOut); diff != "" || r.asked["get Secret"] != maxMetadata {
		t.Errorf("%d asked for; left out (-want +got):\n%s", r.asked["get Secret"], diff)
	}
}

// Whatever refers to Secrets and ConfigMaps in whatever way, and however much the operator may read: nothing of their data is in any record. The reader of the tests objects to every request that would have
// brought it.
func TestNoDataOfSecretsEver(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		pods, objs := shop(1 + random.IntN(20))
		for i := range 20 {
			objs = append(objs, secret("shop", fmt.Sprintf("s-%d", i)), configMap("shop", fmt.Sprintf("s-%d", i)), secret("mallory", fmt.Sprintf("s-%d", i)))
		}
		for _, pod := range pods {
			refer(random, pod)
		}
		r := live(t, objs...)
		for _, kind := range []string{"Secret", "ConfigMap", "Node", "Service"} {
			if random.IntN(3) == 0 {
				r.errs[kind] = apierrors.NewForbidden(schema.GroupResource{Resource: kind}, "", nil)
			}
		}
		documents := []any{gather(t, r, pods)}
		for _, pod := range pods {
			owners, err := gatherOwners(context.Background(), r, pod)
			if err != nil {
				t.Fatal(err)
			}
			documents = append(documents, &Record{Pod: pod, Owners: owners, NetworkPolicies: []*networkingv1.NetworkPolicy{}})
		}
		for _, document := range documents {
			raw, err := Encode(document)
			if err != nil {
				t.Fatal(err)
			}
			for _, form := range []string{canary, "Y2FuYXJ5LThjMW", "hbmFyeS04Yz", "jYW5hcnktOGMx"} { // base64 at every offset
				if i := strings.Index(string(raw), form); i >= 0 {
					t.Fatalf("round %d: a record has data: %s", round, raw[max(0, i-200):i+20])
				}
			}
		}
	}
}

// refer lets the pod refer to a Secret or a ConfigMap in a random way, as its owner too.
func refer(random *rand.Rand, pod *corev1.Pod) {
	name := fmt.Sprintf("s-%d", random.IntN(20))
	switch random.IntN(6) {
	case 0:
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: name, UID: metaOf("shop", name).UID, Controller: new(true)}}
	case 1:
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: name, UID: metaOf("shop", name).UID, Controller: new(true)}}
	case 2:
		volumeOf(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}})(pod)
	case 3:
		volumeOf(projection(corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local(name)}}))(pod)
	case 4:
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, secretEnv("X", name))
	case 5:
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, local(name))
	}
}
