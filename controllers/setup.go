// Package controllers registers everything that the operator runs.
package controllers

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/follow"
	"cofferdam.dev/cofferdam/controllers/foreign"
	"cofferdam.dev/cofferdam/controllers/guard"
	"cofferdam.dev/cofferdam/controllers/image"
	"cofferdam.dev/cofferdam/controllers/incident"
	"cofferdam.dev/cofferdam/controllers/isolation"
	"cofferdam.dev/cofferdam/controllers/lookout"
	"cofferdam.dev/cofferdam/controllers/outbound"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/controllers/recoveryplan"
	"cofferdam.dev/cofferdam/controllers/store"
)

// OperatorNamespace is the namespace that config/default installs into.
const OperatorNamespace = "cofferdam-system"

// Options are what a deployment, or a test, decides.
type Options struct {
	// OperatorNamespace is where evidence and refusals are kept. Default OperatorNamespace.
	OperatorNamespace string
	// EvidenceStore is the URL of the store that is used where standing orders name none, such as "file:///var/lib/cofferdam/evidence".
	EvidenceStore string
	// OpenStore replaces store.Open, for tests that make stores fail.
	OpenStore func(ctx context.Context, url string, opts store.Options) (*store.Store, error)
	// KubeletCAs vouch for the serving certificates of kubelets. Without them no checkpoints are taken.
	KubeletCAs *x509.CertPool
	// KubeletAddressTypes are the addresses by which kubelets are reached. Default the InternalIP, then the ExternalIP, then the host name of the node.
	KubeletAddressTypes []corev1.NodeAddressType
	// RegistryKeychain has the credentials for registries; nil for none. TrustedRoot is what keyless signatures of images are verified with; without it none is.
	RegistryKeychain authn.Keychain
	TrustedRoot      root.TrustedMaterial
	// ProbeImage is the image of the pods that make the HTTP and TCP checks of plans: the operator's own. Without it such checks cannot be made.
	ProbeImage string
	// Client replaces the manager's client, for tests that fail or count writes.
	Client client.Client
	// Clock replaces the real clock.
	Clock clock.PassiveClock
	// Controller are options of every controller.
	Controller controller.Options
}

// NewScheme knows every kind that the operator reads or writes.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	utilruntime.Must(snapshotv1.AddToScheme(scheme))
	return scheme
}

// ClientOptions read from the cache only what is watched: our own kinds, pods, NetworkPolicies and namespaces. Everything else is read live, so that no cache grows
// with the cluster and no decision to change an object rests on an old copy.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{
		&corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Event{}, &corev1.Node{}, &corev1.PersistentVolume{}, &corev1.PersistentVolumeClaim{},
		&appsv1.Deployment{}, &appsv1.StatefulSet{}, &appsv1.DaemonSet{}, &appsv1.ReplicaSet{}, &appsv1.ControllerRevision{},
		&batchv1.Job{}, &batchv1.CronJob{}, &storagev1.StorageClass{}, &autoscalingv2.HorizontalPodAutoscaler{},
		&snapshotv1.VolumeSnapshot{}, &snapshotv1.VolumeSnapshotContent{}, &snapshotv1.VolumeSnapshotClass{},
		&admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{},
	}}}
}

// CacheOptions keep what is watched small: of the EndpointSlices only those that no controller keeps, and of the PodDisruptionBudgets only ours.
func CacheOptions() cache.Options {
	handMade, err := labels.Parse(discoveryv1.LabelManagedBy + "!=endpointslice-controller.k8s.io")
	if err != nil {
		panic(fmt.Sprintf("a constant selector always parses: %v", err))
	}
	ours := labels.SelectorFromSet(labels.Set{"app.kubernetes.io/managed-by": "cofferdam"})
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&discoveryv1.EndpointSlice{}:    {Label: handMade},
		&policyv1.PodDisruptionBudget{}: {Label: ours},
	}}
}

// backgroundTasks is how many evidence items and ledgers are worked on at once. Each holds a few buffers.
const backgroundTasks = 16

// toolsAtOnce is how many tools of standing orders run at once, for all Incidents together. Each is a pod, and most of them keep a node busy.
const toolsAtOnce = 64

// collectors are asked in this order: the most volatile evidence first.
func collectors(clients, logClients kubernetes.Interface, opts Options) []evidence.Collector {
	logs := evidence.NewLogSource(logClients.CoreV1())
	return []evidence.Collector{
		evidence.Manifests{}, evidence.Surroundings{},
		&evidence.Checkpoints{
			Pods: logs, Tokens: evidence.NewCheckpointerTokens(clients.CoreV1(), opts.OperatorNamespace), CAs: opts.KubeletCAs, AddressTypes: opts.KubeletAddressTypes,
		},
		evidence.NewLogs(logs), &evidence.Jobs{Source: logs, AtOnce: toolsAtOnce}, evidence.VolumeSnapshots{},
	}
}

// Setup registers every controller with the manager.
func Setup(mgr ctrl.Manager, opts Options) error {
	if opts.OperatorNamespace == "" {
		opts.OperatorNamespace = OperatorNamespace
	}
	if opts.Client == nil {
		opts.Client = mgr.GetClient()
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	// The name under which managedFields tells the operator's changes from those of others.
	opts.Client = client.WithFieldOwner(opts.Client, incident.FieldManager)
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("preparing discovery: %w", err)
	}
	clients, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("preparing clients: %w", err)
	}
	logClients, err := kubernetes.NewForConfig(evidence.LogConfig(mgr.GetConfig()))
	if err != nil {
		return fmt.Errorf("preparing the clients for logs: %w", err)
	}
	metadataClient, err := metadata.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("preparing the client for metadata: %w", err)
	}
	ctx := context.Background()
	index := isolation.NewIndex()
	follower := &follow.Follower{Cache: mgr.GetCache(), Discovery: disco, Index: index}
	if err := follower.Register(ctx); err != nil {
		return err
	}
	background := evidence.NewBackground(backgroundTasks)
	if err := mgr.Add(background); err != nil {
		return fmt.Errorf("adding the background tasks: %w", err)
	}
	checker := &image.Checker{Keychain: opts.RegistryKeychain, Root: opts.TrustedRoot}
	ofIncidents, ofPlans := image.NewInspector(checker, opts.Clock), image.NewInspector(checker, opts.Clock)
	for _, inspector := range []*image.Inspector{ofIncidents, ofPlans} {
		if err := mgr.Add(inspector); err != nil {
			return fmt.Errorf("adding what looks at images: %w", err)
		}
	}
	stores := &evidence.Stores{
		Default: opts.EvidenceStore, Reader: mgr.GetAPIReader(), Namespace: opts.OperatorNamespace, Clock: opts.Clock, OpenStore: opts.OpenStore,
	}
	keys := &evidence.Keys{Client: mgr.GetClient(), Namespace: opts.OperatorNamespace}
	incidents := &incident.Reconciler{
		Books: incident.NewBooks(stores, keys, background, opts.Clock), Background: background, Collectors: collectors(clients, logClients, opts),
		Client: opts.Client, Live: mgr.GetAPIReader(), Cached: mgr.GetCache(), Recorder: mgr.GetEventRecorder("cofferdam"), Clock: opts.Clock,
		Follower: follower, Index: index, Lookout: lookout.New(metadataClient, mgr.GetRESTMapper()), Tamperings: incident.NewTamperings(), Guard: &guard.Checker{Options: guard.Options{OperatorNamespace: opts.OperatorNamespace}}, Writes: incident.NewWrites(),
		Images: ofIncidents, Foreign: &foreign.Finder{Discovery: disco, Clock: opts.Clock}, OperatorNamespace: opts.OperatorNamespace,
		Outbound: &outbound.Caller{Reader: mgr.GetAPIReader(), Namespace: opts.OperatorNamespace}, ProbeImage: opts.ProbeImage,
	}
	follower.Priority = incidents.PriorityOf
	if err := incidents.SetupWithManager(ctx, mgr, opts.Controller); err != nil {
		return fmt.Errorf("registering the Incident controller: %w", err)
	}
	leases := &recovery.Leases{Live: mgr.GetAPIReader(), Mapper: mgr.GetRESTMapper(), Recorder: mgr.GetEventRecorder("cofferdam")}
	if err := mgr.Add(leases); err != nil {
		return fmt.Errorf("adding the look for leases: %w", err)
	}
	plans := &recoveryplan.Reconciler{Client: opts.Client, Clock: opts.Clock, Images: ofPlans, ProbeImage: opts.ProbeImage}
	if err := plans.SetupWithManager(mgr, opts.Controller); err != nil {
		return fmt.Errorf("registering the RecoveryPlan controller: %w", err)
	}
	return nil
}
