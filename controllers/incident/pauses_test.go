package incident

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func TestGitOpsPaused(t *testing.T) {
	now := metav1.NewTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	pause := func(name string, state v1alpha1.GitOpsPauseState, left time.Duration) v1alpha1.GitOpsPause {
		return v1alpha1.GitOpsPause{
			Object: v1alpha1.ObjectRef{Kind: "Application", Namespace: "argocd", Name: name}, State: state, ExpiresAt: metav1.NewTime(now.Add(left)), Message: "root applies it",
		}
	}
	lent := func(p v1alpha1.GitOpsPause) v1alpha1.GitOpsPause {
		p.Borrowed = new(true)
		return p
	}
	cases := map[string]struct {
		pauses   []v1alpha1.GitOpsPause
		released bool
		status   metav1.ConditionStatus
		reason   string
		says     string
		alarm    bool
	}{
		"nothing was paused":         {},
		"by others only":             {pauses: []v1alpha1.GitOpsPause{lent(pause("web", "Paused", 0))}},
		"by others after the end":    {pauses: []v1alpha1.GitOpsPause{lent(pause("web", "Paused", time.Hour)), pause("api", "Resumed", 0)}, released: true, status: "False", reason: "Resumed"},
		"by a lease that is running": {pauses: []v1alpha1.GitOpsPause{pause("web", "Paused", time.Hour)}, status: "True", reason: "PausedByLease", says: "paused: Application argocd/web until 2026-03-01T13:00:00Z"},
		"by one that has run out":    {pauses: []v1alpha1.GitOpsPause{pause("web", "Paused", 0), pause("api", "Paused", time.Hour)}, status: "True", reason: "LeaseExpired", says: "paused for longer than its lease", alarm: true},
		"undone":                     {pauses: []v1alpha1.GitOpsPause{pause("web", "Undone", time.Hour), pause("api", "Paused", 0)}, status: "False", reason: "PauseUndone", says: "not paused any more: Application argocd/web until 2026-03-01T13:00:00Z (root applies it)"},
		"while it is resumed":        {pauses: []v1alpha1.GitOpsPause{pause("web", "Resuming", time.Hour), pause("api", "Resumed", 0)}, status: "True", reason: "PausedByLease"},
		"resumed":                    {pauses: []v1alpha1.GitOpsPause{pause("web", "Resumed", 0)}, released: true, status: "False", reason: "Resumed", says: "everything that was paused is resumed"},
		"after the end":              {pauses: []v1alpha1.GitOpsPause{pause("web", "Paused", time.Hour)}, released: true, status: "True", reason: "LeaseOutlived", says: "still paused though the Incident is closed", alarm: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &scope{now: now, next: &v1alpha1.IncidentStatus{Recovery: &v1alpha1.RecoveryStatus{Pauses: tc.pauses}}}
			if tc.released {
				s.next.ReleasedAt = now
			}
			got := s.gitOpsPaused()
			if got == nil {
				if tc.reason != "" {
					t.Fatal("there is no condition")
				}
				return
			}
			if got.Status != tc.status || got.Reason != tc.reason || !strings.Contains(got.Message, tc.says) {
				t.Errorf("condition %s (%s) %q, want %s (%s) %q", got.Status, got.Reason, got.Message, tc.status, tc.reason, tc.says)
			}
			s.next.Conditions = []metav1.Condition{*got}
			news := pauseTurns(&v1alpha1.IncidentStatus{}, s.next)
			warned := len(news) == 1 && news[0].warning
			if warned != tc.alarm {
				t.Errorf("turns %v, want an alarm: %t", news, tc.alarm)
			}
			if again := pauseTurns(s.next, s.next); len(again) > 0 {
				t.Errorf("what has not changed is told again: %v", again)
			}
		})
	}
}

func TestAPauseThatIsUndoneIsToldEachTime(t *testing.T) {
	status := func(undone int32) *v1alpha1.IncidentStatus {
		return &v1alpha1.IncidentStatus{Recovery: &v1alpha1.RecoveryStatus{Pauses: []v1alpha1.GitOpsPause{{Object: v1alpha1.ObjectRef{Kind: "Application", Namespace: "argocd", Name: "web"}, Undone: undone}}}}
	}
	for _, before := range []*v1alpha1.IncidentStatus{status(1), {}} {
		if news := pauseTurns(before, status(2)); len(news) != 1 || !news[0].warning || news[0].reason != "GitOpsPauseUndone" {
			t.Errorf("turns %v", news)
		}
	}
	if news := pauseTurns(status(2), status(2)); len(news) != 0 {
		t.Errorf("turns %v", news)
	}
}
