package incident

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var (
	timeToContain = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "cofferdam_time_to_contain_seconds",
		Help:    "Time from the creation of an Incident until every pod was proven isolated, in seconds.",
		Buckets: []float64{0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800},
	}, []string{"severity"})
	timeToRecover = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "cofferdam_time_to_recover_seconds",
		Help:    "Time from the creation of an Incident until its recovery plan was completed, in seconds.",
		Buckets: []float64{30, 60, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400},
	}, []string{"severity"})
	podVerdicts = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cofferdam_pods",
		Help: "Pods of an Incident by verdict, as last observed.",
	}, []string{"namespace", "incident", "verdict"})
	openLeaks = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cofferdam_leaks",
		Help: "What policies still allow to and from quarantined pods of an Incident, as last observed: Active, Latent, or Undecided.",
	}, []string{"namespace", "incident", "state"})
	revocations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cofferdam_containment_revoked_total",
		Help: "How many times an Incident ceased to be contained, other than by an approved release.",
	}, []string{"reason"})
	tampering = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cofferdam_tampering_total",
		Help: "Changes by others of what holds a quarantine.",
	}, []string{"kind"})
	guardFindings = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "cofferdam_guard_findings",
		Help: "What is missing, changed or not working in the admission guard, as last observed.",
	})
	evidenceItems = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cofferdam_evidence_items",
		Help: "Evidence items of an Incident by state, as last observed.",
	}, []string{"namespace", "incident", "state"})
	ledgerEntries = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cofferdam_ledger_entries",
		Help: "Entries in the custody ledger of an Incident, as last signed.",
	}, []string{"namespace", "incident"})
	gitOpsPauses = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cofferdam_gitops_pauses",
		Help: "What an Incident has paused of Argo CD and Flux and has not resumed, as last observed: PausedByLease, PauseUndone, LeaseExpired, or LeaseOutlived.",
	}, []string{"namespace", "incident", "state"})
	conditionStatus = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cofferdam_incident_condition",
		Help: "1 for the status that a condition of an Incident has, as last observed.",
	}, []string{"namespace", "incident", "condition", "status"})
)

func init() {
	metrics.Registry.MustRegister(timeToContain, timeToRecover, podVerdicts, openLeaks, revocations, tampering, guardFindings, evidenceItems, ledgerEntries, gitOpsPauses, conditionStatus)
}

// observeMetrics follows a status that has just been recorded.
func observeMetrics(inc *v1alpha1.Incident, old, next *v1alpha1.IncidentStatus) {
	severity := string(inc.Spec.Severity)
	if old.ContainedAt.IsZero() && !next.ContainedAt.IsZero() {
		timeToContain.WithLabelValues(severity).Observe(next.ContainedAt.Sub(inc.CreationTimestamp.Time).Seconds())
	}
	if old.RecoveredAt.IsZero() && !next.RecoveredAt.IsZero() {
		timeToRecover.WithLabelValues(severity).Observe(next.RecoveredAt.Sub(inc.CreationTimestamp.Time).Seconds())
	}
	forgetMetrics(inc.Namespace, inc.Name)
	for _, p := range next.Pods {
		podVerdicts.WithLabelValues(inc.Namespace, inc.Name, string(p.Verdict)).Inc()
		observeLeaks(inc, p)
	}
	was, is := apimeta.FindStatusCondition(old.Conditions, v1alpha1.ConditionContained), apimeta.FindStatusCondition(next.Conditions, v1alpha1.ConditionContained)
	if was != nil && is != nil && was.Status == metav1.ConditionTrue && is.Status != metav1.ConditionTrue &&
		is.Reason != v1alpha1.ReasonLifted && is.Reason != v1alpha1.ReasonIsolating {
		revocations.WithLabelValues(is.Reason).Inc()
	}
	added := min(int(next.TamperingCount-old.TamperingCount), len(next.Tampering))
	for _, t := range next.Tampering[len(next.Tampering)-max(added, 0):] {
		tampering.WithLabelValues(t.Object.Kind).Inc()
	}
	for _, e := range next.Evidence {
		evidenceItems.WithLabelValues(inc.Namespace, inc.Name, string(e.State)).Inc()
	}
	for state, n := range countPauses(next, metav1.Now()) {
		gitOpsPauses.WithLabelValues(inc.Namespace, inc.Name, state).Set(float64(n))
	}
	if next.Custody != nil {
		ledgerEntries.WithLabelValues(inc.Namespace, inc.Name).Set(float64(next.Custody.Entries))
	}
	for _, kind := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionContained, v1alpha1.ConditionGuarded, v1alpha1.ConditionEvidenceCollected,
		v1alpha1.ConditionCustody, v1alpha1.ConditionRecovered, v1alpha1.ConditionReleased, v1alpha1.ConditionGitOpsPaused, v1alpha1.ConditionStalled} {
		if c := apimeta.FindStatusCondition(next.Conditions, kind); c != nil {
			conditionStatus.WithLabelValues(inc.Namespace, inc.Name, kind, string(c.Status)).Set(1)
		}
	}
}

// observeLeaks counts by state what status lists, and what it only counts as Active: rather too loud than too quiet.
func observeLeaks(inc *v1alpha1.Incident, p v1alpha1.PodStatus) {
	for _, l := range p.Leaks {
		state := string(l.State)
		if l.Undecided != "" {
			state = "Undecided"
		}
		openLeaks.WithLabelValues(inc.Namespace, inc.Name, state).Inc()
	}
	if more := int(p.LeakCount) - len(p.Leaks); more > 0 {
		openLeaks.WithLabelValues(inc.Namespace, inc.Name, string(v1alpha1.LeakActive)).Add(float64(more))
	}
}

// forgetMetrics drops the gauges of an Incident, so that a deleted one is not reported for ever.
func forgetMetrics(namespace, name string) {
	labels := prometheus.Labels{"namespace": namespace, "incident": name}
	podVerdicts.DeletePartialMatch(labels)
	openLeaks.DeletePartialMatch(labels)
	evidenceItems.DeletePartialMatch(labels)
	ledgerEntries.DeletePartialMatch(labels)
	gitOpsPauses.DeletePartialMatch(labels)
	conditionStatus.DeletePartialMatch(labels)
}
