package evidence

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// maxMetadata bounds the Secrets, and the ConfigMaps, whose metadata is asked for.
	maxMetadata = 64
	// maxReferences and maxReferrers bound the references in one record, and the names of pods at all of them; a pod has some dozens at most, and pods of one workload have the same ones.
	maxReferences = 20000
	maxReferrers  = 100000
)

// Reference says that something refers to a Secret or a ConfigMap, and to what in it.
type Reference struct {
	// Kind is Secret or ConfigMap.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Where says where the reference is: a field of a pod, or of another object that is named with it.
	Where string `json:"where"`
	// Key is the key that is referred to; empty when it is all of them.
	Key string `json:"key,omitempty"`
	// Optional says that whoever refers to it does without if it is not there.
	Optional bool `json:"optional,omitempty"`
	// Pods are the names of the pods that have the reference, sorted; none when it is not in a pod.
	Pods []string `json:"pods,omitempty"`
}

// references are references without the names of the pods, and the pods that have them.
type references struct {
	by map[referenceKey]map[string]bool
	// referrers counts the names of pods, over what was beyond the bounds.
	referrers, over int
}

type referenceKey struct {
	kind, namespace, name, where, key string
	optional                          bool
}

func (r *references) add(kind, namespace, name, where, key string, optional bool, pod string) {
	if name == "" {
		return
	}
	what := referenceKey{kind: kind, namespace: namespace, name: name, where: where, key: key, optional: optional}
	pods, known := r.by[what]
	if !known && len(r.by) >= maxReferences || r.referrers >= maxReferrers {
		r.over++
		return
	}
	if !known {
		pods = map[string]bool{}
		r.by[what] = pods
	}
	if pod != "" && !pods[pod] {
		pods[pod] = true
		r.referrers++
	}
}

func (k referenceKey) compare(other referenceKey) int {
	return cmp.Or(cmp.Compare(k.kind, other.kind), cmp.Compare(k.namespace, other.namespace), cmp.Compare(k.name, other.name), cmp.Compare(k.where, other.where),
		cmp.Compare(k.key, other.key), compareBools(k.optional, other.optional))
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (r *references) list() []Reference {
	var out []Reference
	for _, k := range slices.SortedFunc(maps.Keys(r.by), referenceKey.compare) {
		out = append(out, Reference{
			Kind: k.kind, Namespace: k.namespace, Name: k.name, Where: k.where, Key: k.key, Optional: k.optional, Pods: slices.Sorted(maps.Keys(r.by[k])),
		})
	}
	return out
}

// podReferences adds the references of one pod.
type podReferences struct {
	*references
	pod *corev1.Pod
}

func (p podReferences) secret(name, where, key string, optional *bool) {
	p.add("Secret", p.pod.Namespace, name, where, key, isTrue(optional), p.pod.Name)
}

func (p podReferences) configMap(name, where, key string, optional *bool) {
	p.add("ConfigMap", p.pod.Namespace, name, where, key, isTrue(optional), p.pod.Name)
}

func (p podReferences) local(ref *corev1.LocalObjectReference, where string) {
	if ref != nil {
		p.secret(ref.Name, where, "", nil)
	}
}

// addPod adds what the pod refers to: environment, volumes and pull secrets, of all its containers.
func (r *references) addPod(pod *corev1.Pod) {
	p := podReferences{references: r, pod: pod}
	for _, secret := range pod.Spec.ImagePullSecrets {
		p.local(&secret, "spec.imagePullSecrets")
	}
	for _, c := range pod.Spec.InitContainers {
		p.environment("init container "+c.Name, c.Env, c.EnvFrom)
	}
	for _, c := range pod.Spec.Containers {
		p.environment("container "+c.Name, c.Env, c.EnvFrom)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		p.environment("ephemeral container "+c.Name, c.Env, c.EnvFrom)
	}
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		p.dataVolume(volume)
		p.driverVolume(volume)
	}
}

// SecretsOf are the names of the Secrets that a pod of this spec refers to, sorted.
func SecretsOf(spec *corev1.PodSpec) []string {
	r := &references{by: map[referenceKey]map[string]bool{}}
	r.addPod(&corev1.Pod{Spec: *spec})
	var out []string
	for k := range r.by {
		if k.kind == "Secret" && k.namespace == "" { // what a driver looks for in another namespace is not the pod's
			out = append(out, k.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (p podReferences) environment(container string, env []corev1.EnvVar, from []corev1.EnvFromSource) {
	for _, e := range env {
		if e.ValueFrom == nil {
			continue
		}
		where := fmt.Sprintf("env %s of %s", e.Name, container)
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			p.secret(ref.Name, where, ref.Key, ref.Optional)
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			p.configMap(ref.Name, where, ref.Key, ref.Optional)
		}
	}
	for _, e := range from {
		where := "envFrom of " + container
		if ref := e.SecretRef; ref != nil {
			p.secret(ref.Name, where, "", ref.Optional)
		}
		if ref := e.ConfigMapRef; ref != nil {
			p.configMap(ref.Name, where, "", ref.Optional)
		}
	}
}

// dataVolume adds the volumes whose content are Secrets and ConfigMaps.
func (p podReferences) dataVolume(volume *corev1.Volume) {
	where := "volume " + volume.Name
	if v := volume.Secret; v != nil {
		eachKey(v.Items, func(key string) { p.secret(v.SecretName, where, key, v.Optional) })
	}
	if v := volume.ConfigMap; v != nil {
		eachKey(v.Items, func(key string) { p.configMap(v.Name, where, key, v.Optional) })
	}
	if volume.Projected == nil {
		return
	}
	for _, source := range volume.Projected.Sources {
		if v := source.Secret; v != nil {
			eachKey(v.Items, func(key string) { p.secret(v.Name, where+" (projected)", key, v.Optional) })
		}
		if v := source.ConfigMap; v != nil {
			eachKey(v.Items, func(key string) { p.configMap(v.Name, where+" (projected)", key, v.Optional) })
		}
	}
}

func eachKey(items []corev1.KeyToPath, fn func(key string)) {
	if len(items) == 0 {
		fn("")
	}
	for _, item := range items {
		fn(item.Key)
	}
}

// driverVolume adds the Secrets with which drivers mount volumes.
func (p podReferences) driverVolume(volume *corev1.Volume) {
	where := "volume " + volume.Name
	if v := volume.CSI; v != nil {
		p.local(v.NodePublishSecretRef, where+" (CSI nodePublishSecretRef)")
	}
	if v := volume.AzureFile; v != nil {
		p.secret(v.SecretName, where+" (azureFile)", "", nil)
	}
	if v := volume.CephFS; v != nil {
		p.local(v.SecretRef, where+" (cephfs)")
	}
	if v := volume.Cinder; v != nil {
		p.local(v.SecretRef, where+" (cinder)")
	}
	if v := volume.FlexVolume; v != nil {
		p.local(v.SecretRef, where+" (flexVolume)")
	}
	if v := volume.ISCSI; v != nil {
		p.local(v.SecretRef, where+" (iscsi)")
	}
	if v := volume.RBD; v != nil {
		p.local(v.SecretRef, where+" (rbd)")
	}
	if v := volume.ScaleIO; v != nil {
		p.local(v.SecretRef, where+" (scaleIO)")
	}
	if v := volume.StorageOS; v != nil {
		p.local(v.SecretRef, where+" (storageos)")
	}
}

func (r *references) addAccount(account *corev1.ServiceAccount) {
	for _, secret := range account.Secrets {
		r.add("Secret", account.Namespace, secret.Name, "secrets of ServiceAccount "+account.Name, "", false, "")
	}
	for _, secret := range account.ImagePullSecrets {
		r.add("Secret", account.Namespace, secret.Name, "imagePullSecrets of ServiceAccount "+account.Name, "", false, "")
	}
}

// addVolume adds the Secrets with which drivers attach and mount a PersistentVolume.
func (r *references) addVolume(volume *corev1.PersistentVolume) {
	add := func(ref *corev1.SecretReference, where string) {
		if ref != nil {
			r.add("Secret", ref.Namespace, ref.Name, fmt.Sprintf("%s of PersistentVolume %s", where, volume.Name), "", false, "")
		}
	}
	source := volume.Spec.PersistentVolumeSource
	if v := source.CSI; v != nil {
		add(v.ControllerPublishSecretRef, "controllerPublishSecretRef")
		add(v.NodeStageSecretRef, "nodeStageSecretRef")
		add(v.NodePublishSecretRef, "nodePublishSecretRef")
		add(v.ControllerExpandSecretRef, "controllerExpandSecretRef")
		add(v.NodeExpandSecretRef, "nodeExpandSecretRef")
	}
	if v := source.AzureFile; v != nil {
		namespace := ""
		if volume.Spec.ClaimRef != nil {
			namespace = volume.Spec.ClaimRef.Namespace // where it is looked for when the volume does not say
		}
		if v.SecretNamespace != nil {
			namespace = *v.SecretNamespace
		}
		add(&corev1.SecretReference{Name: v.SecretName, Namespace: namespace}, "azureFile")
	}
	if v := source.CephFS; v != nil {
		add(v.SecretRef, "cephfs")
	}
	if v := source.Cinder; v != nil {
		add(v.SecretRef, "cinder")
	}
	if v := source.FlexVolume; v != nil {
		add(v.SecretRef, "flexVolume")
	}
	if v := source.ISCSI; v != nil {
		add(v.SecretRef, "iscsi")
	}
	if v := source.RBD; v != nil {
		add(v.SecretRef, "rbd")
	}
	if v := source.ScaleIO; v != nil {
		add(v.SecretRef, "scaleIO")
	}
	if v := source.StorageOS; v != nil && v.SecretRef != nil {
		add(&corev1.SecretReference{Name: v.SecretRef.Name, Namespace: v.SecretRef.Namespace}, "storageos")
	}
}

// metadata asks for the metadata of what is referred to, never for the data: the request is for PartialObjectMetadata, and the API server leaves out everything else. After the first refusal in a namespace
// nothing more of that kind is asked for there, because every refusal is an alarm in somebody's audit log.
func (g *gathering) metadata(ctx context.Context) ([]metav1.PartialObjectMetadata, error) {
	var out []metav1.PartialObjectMetadata
	for _, k := range []kind{kindIn("", "v1", "ConfigMap"), kindIn("", "v1", "Secret")} {
		refused := map[string]bool{}
		for i, name := range g.refs.names(k.Kind) {
			if i >= maxMetadata {
				g.leave("metadata of "+k.Kind, name.Namespace, 1, "more is referred to than is asked for")
				continue
			}
			if refused[name.Namespace] {
				g.missing(k, name, "metadata not read: forbidden")
				continue
			}
			obj := metav1.PartialObjectMetadata{}
			obj.SetGroupVersionKind(k.GroupVersionKind)
			err := g.reader.Get(ctx, name, &obj)
			switch {
			case apierrors.IsForbidden(err):
				refused[name.Namespace] = true
				g.missing(k, name, "metadata not read: forbidden")
			case apierrors.IsNotFound(err):
				g.missing(k, name, "not found")
			case err != nil:
				return nil, fmt.Errorf("reading the metadata of %s %s: %w", k.Kind, name, err)
			default:
				obj.SetGroupVersionKind(k.GroupVersionKind)
				withoutData(&obj)
				out = append(out, obj)
			}
		}
	}
	return out, nil
}

func (r *references) names(kind string) []client.ObjectKey {
	names := map[client.ObjectKey]bool{}
	for k := range r.by {
		if k.kind == kind {
			names[client.ObjectKey{Namespace: k.namespace, Name: k.name}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(names), compareKeys)
}

// Redacted is what stands where a value was blanked.
const Redacted = "<redacted>"

// withoutData blanks the values of the annotations of an object of which only the metadata was read. The one of kubectl repeats the whole object, data and all, and others keep what they like there.
func withoutData(obj client.Object) {
	metadata, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return
	}
	for key := range metadata.Annotations {
		metadata.Annotations[key] = Redacted
	}
}
