// Package controllers registers everything that the operator runs.
package controllers

import (
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/foreign"
	"cofferdam.dev/cofferdam/controllers/incident"
	"cofferdam.dev/cofferdam/controllers/recoveryplan"
)

// OperatorNamespace is the namespace that config/default installs into.
const OperatorNamespace = "cofferdam-system"

// Options are what a deployment, or a test, decides.
type Options struct {
	// OperatorNamespace is where evidence and refusals are kept. Default OperatorNamespace.
	OperatorNamespace string
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
		&corev1.ConfigMap{}, &corev1.Secret{}, &corev1.Event{}, &corev1.PersistentVolume{}, &corev1.PersistentVolumeClaim{},
		&appsv1.Deployment{}, &appsv1.StatefulSet{}, &appsv1.DaemonSet{}, &appsv1.ReplicaSet{}, &appsv1.ControllerRevision{},
		&batchv1.Job{}, &batchv1.CronJob{},
		&snapshotv1.VolumeSnapshot{}, &snapshotv1.VolumeSnapshotContent{}, &snapshotv1.VolumeSnapshotClass{},
		&admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{},
	}}}
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
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("preparing discovery: %w", err)
	}
	incidents := &incident.Reconciler{
		Client: opts.Client, Live: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder("cofferdam"), Clock: opts.Clock,
		Foreign: &foreign.Finder{Discovery: disco, Clock: opts.Clock}, OperatorNamespace: opts.OperatorNamespace,
	}
	if err := incidents.SetupWithManager(mgr, opts.Controller); err != nil {
		return fmt.Errorf("registering the Incident controller: %w", err)
	}
	plans := &recoveryplan.Reconciler{Client: opts.Client, Clock: opts.Clock}
	if err := plans.SetupWithManager(mgr, opts.Controller); err != nil {
		return fmt.Errorf("registering the RecoveryPlan controller: %w", err)
	}
	return nil
}
