package recovery

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/gitops"
)

const (
	// leaseSweep is how often leases are looked for whose Incident is closed or gone.
	leaseSweep = 5 * time.Minute
	// leasesAtOnce bounds one answer of the API server, leasesInAll what is looked at.
	leasesAtOnce = 200
	leasesInAll  = 1000
)

var outlivedLeases = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "cofferdam_gitops_leases_outlived",
	Help: "1 for each manager of Argo CD or Flux that is still marked as paused by an Incident that is closed or does not exist any more, as last observed.",
}, []string{"kind", "namespace", "name"})

func init() { metrics.Registry.MustRegister(outlivedLeases) }

// Leases looks for what is still paused though nobody is left who would resume it. What has a lease says whose it is, so that this is found after the Incident is gone. It changes nothing.
type Leases struct {
	// Live reads from the API server.
	Live     client.Reader
	Mapper   apimeta.RESTMapper
	Recorder events.EventRecorder
}

// Start looks now and then until the context ends.
func (l *Leases) Start(ctx context.Context) error {
	for {
		if err := l.Look(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "Looking for pauses that have outlived their Incidents")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(leaseSweep):
		}
	}
}

// Look raises the alarm for every lease that has outlived its Incident: a metric, and an Event about what is paused.
func (l *Leases) Look(ctx context.Context) error {
	var outlived []outlivedLease
	for _, kind := range gitops.Kinds() {
		mapping, err := l.Mapper.RESTMapping(kind)
		if apimeta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking up the kind %s: %w", kind.Kind, err)
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(kind.Kind + "List"))
		for looked := 0; ; {
			if err := l.Live.List(ctx, list, client.HasLabels{v1alpha1.GitOpsPausedLabel}, client.Limit(leasesAtOnce), client.Continue(list.Continue)); err != nil {
				return fmt.Errorf("listing what is paused of kind %s: %w", kind.Kind, err)
			}
			for i := range list.Items {
				object := &list.Items[i]
				object.SetGroupVersionKind(mapping.GroupVersionKind)
				why, gone, err := l.outlived(ctx, object)
				if err != nil {
					return err
				}
				if why != "" {
					outlived = append(outlived, outlivedLease{object, why, gone})
				}
			}
			if looked += len(list.Items); list.Continue == "" || looked >= leasesInAll {
				break
			}
		}
	}
	l.raise(outlived)
	return nil
}

type outlivedLease struct {
	object *metav1.PartialObjectMetadata
	why    string
	// gone says that no Incident is left to say it.
	gone bool
}

func (l *Leases) raise(outlived []outlivedLease) {
	outlivedLeases.Reset()
	for _, o := range outlived {
		outlivedLeases.WithLabelValues(o.object.Kind, o.object.Namespace, o.object.Name).Set(1)
		if o.gone {
			l.Recorder.Eventf(o.object, nil, corev1.EventTypeWarning, "GitOpsLeaseOutlived", "Pause", "%s", o.why)
		}
	}
}

// outlived says why a lease has outlived its Incident, or "", and whether that does not exist any more.
func (l *Leases) outlived(ctx context.Context, object *metav1.PartialObjectMetadata) (why string, gone bool, err error) {
	const advice = "; look what its source renders, resume it, and take the label " + v1alpha1.GitOpsPausedLabel + " off"
	lease, ok := gitops.ReadLease(object)
	ns, name, named := strings.Cut(lease.Incident, "/")
	if !ok || !named {
		return "it is marked as paused by an Incident, and nothing says by which" + advice, true, nil
	}
	var inc v1alpha1.Incident
	err = l.Live.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, &inc)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return "", false, fmt.Errorf("reading Incident %s: %w", lease.Incident, err)
	case apierrors.IsNotFound(err) || string(inc.UID) != lease.UID:
		return fmt.Sprintf("it was paused at %s by Incident %s, which does not exist any more%s", lease.Since.UTC().Format(time.RFC3339), lease.Incident, advice), true, nil
	case !inc.Status.ReleasedAt.IsZero():
		return "its Incident is closed", false, nil
	}
	return "", false, nil
}
