package operator

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Witness looks, at the moment of every request of the operator that changes or removes an object, whether the intent is durable: whether the journal in the status of an Incident, as the API server has it,
// names that object in an entry whose outcome is not known yet. It sits at the transport, so that nothing the operator does can bypass it.
//
// Creates need no intent, and status is where intents are. Events are no part of containment.
type Witness struct {
	// Reader reads from the API server, as somebody else.
	Reader client.Reader

	mu      sync.Mutex
	seen    int
	without []string
}

// kinds are the kinds that the operator changes. One that is missing here is not excused, but reported.
var kinds = map[string]string{
	"pods": "Pod", "configmaps": "ConfigMap", "persistentvolumeclaims": "PersistentVolumeClaim", "persistentvolumes": "PersistentVolume", "incidents": "Incident", "networkpolicies": "NetworkPolicy", "poddisruptionbudgets": "PodDisruptionBudget",
	"clusternetworkpolicies": "ClusterNetworkPolicy", "ciliumclusterwidenetworkpolicies": "CiliumClusterwideNetworkPolicy", "volumesnapshots": "VolumeSnapshot", "volumesnapshotcontents": "VolumeSnapshotContent",
	"volumegroupsnapshots": "VolumeGroupSnapshot", "volumegroupsnapshotcontents": "VolumeGroupSnapshotContent", "jobs": "Job", "deployments": "Deployment", "statefulsets": "StatefulSet",
	"daemonsets": "DaemonSet", "cronjobs": "CronJob", "scaledobjects": "ScaledObject", "horizontalpodautoscalers": "HorizontalPodAutoscaler", "secrets": "Secret", "externalsecrets": "ExternalSecret", "certificates": "Certificate",
	"applications": "Application", "applicationsets": "ApplicationSet", "kustomizations": "Kustomization", "helmreleases": "HelmRelease",
	"rollouts": "Rollout", "databases": "Database",
}

// removing are the actions that may delete an object.
var removing = []v1alpha1.Action{
	v1alpha1.ActionDeletePod, v1alpha1.ActionLiftQuarantine, v1alpha1.ActionReleaseRevision, v1alpha1.ActionDeleteSnapshot, v1alpha1.ActionRemoveJob, v1alpha1.ActionRemoveCopy, v1alpha1.ActionUpdateList,
	v1alpha1.ActionReplaceClaim, v1alpha1.ActionDeleteToken, v1alpha1.ActionReplaceWorkload,
}

// Attach makes the witness see the requests of clients that are made from the configuration.
func (w *Witness) Attach(cfg *rest.Config) *rest.Config {
	out := rest.CopyConfig(cfg)
	out.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			w.look(req)
			return next.RoundTrip(req)
		})
	})
	return out
}

// Seen is how many requests needed an intent, and Without are those that had none.
func (w *Witness) Seen() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// Without are the requests since it was asked last that had no intent.
func (w *Witness) Without() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.without
	w.without = nil
	return out
}

func (w *Witness) look(req *http.Request) {
	if req.Method != http.MethodPut && req.Method != http.MethodPatch && req.Method != http.MethodDelete {
		return
	}
	if req.URL.Query().Get("dryRun") != "" {
		return // it changes nothing
	}
	resource, ref, ok := objectOf(req.URL.Path)
	if ok && (strings.HasSuffix(req.URL.Path, "/status") || resource == "events") {
		return
	}
	why := "it is no single object of a kind that is known"
	if ok {
		why = w.missing(req.Context(), req.Method == http.MethodDelete, ref)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	if why != "" {
		w.without = append(w.without, fmt.Sprintf("%s %s: %s", req.Method, req.URL.Path, why))
	}
}

// missing says why the intent of a request is not durable, or "".
func (w *Witness) missing(ctx context.Context, removes bool, ref v1alpha1.ObjectRef) string {
	var list v1alpha1.IncidentList
	if err := w.Reader.List(ctx, &list); err != nil {
		return "it could not be looked up: " + err.Error()
	}
	finished := 0
	for i := range list.Items {
		for _, e := range list.Items[i].Status.Journal {
			switch about := e.Object.Kind == ref.Kind && e.Object.Namespace == ref.Namespace && e.Object.Name == ref.Name; {
			case !about || removes && !slices.Contains(removing, e.Action):
			case e.State == v1alpha1.JournalIntended:
				return ""
			default:
				finished++
			}
		}
	}
	return fmt.Sprintf("no journal has an open intent for it, and %d that are done", finished)
}

// objectOf is what a path is about.
func objectOf(path string) (resource string, ref v1alpha1.ObjectRef, ok bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		parts = parts[3:]
	default:
		return "", ref, false
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		ref.Namespace, parts = parts[1], parts[2:]
	}
	if len(parts) < 2 {
		return parts[0], ref, false
	}
	ref.Kind, ref.Name = kinds[parts[0]], parts[1]
	return parts[0], ref, ref.Kind != "" || parts[0] == "events" || strings.HasSuffix(path, "/status")
}
