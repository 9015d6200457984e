package recovery

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNextOldPod(t *testing.T) {
	notReady := func(p *corev1.Pod) { p.Status.Conditions = nil }
	leaving := func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }
	old := func(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
		return pod(name, "set", "old", changes...)
	}
	fresh := func(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
		return pod(name, "set", "new", changes...)
	}
	cases := map[string]struct {
		onDelete, ordered bool
		pods              []*corev1.Pod
		want              string
	}{
		"nothing is old":                               {onDelete: true, pods: []*corev1.Pod{fresh("db-0"), fresh("db-1")}},
		"the highest ordinal first":                    {onDelete: true, pods: []*corev1.Pod{old("db-2"), old("db-10")}, want: "db-10"},
		"one at a time":                                {onDelete: true, pods: []*corev1.Pod{old("db-0"), fresh("db-1", notReady)}},
		"not while one is going":                       {onDelete: true, pods: []*corev1.Pod{old("db-0"), old("db-1", leaving)}},
		"not while one is missing":                     {onDelete: true, pods: []*corev1.Pod{old("db-0")}},
		"the next":                                     {onDelete: true, pods: []*corev1.Pod{old("db-0"), fresh("db-1")}, want: "db-0"},
		"those of a rolling update go by themselves":   {ordered: true, pods: []*corev1.Pod{old("db-0"), old("db-1")}},
		"but not behind one that is never ready again": {ordered: true, pods: []*corev1.Pod{old("db-0"), old("db-1", notReady)}, want: "db-1"},
		"nor where those behind it are not created":    {ordered: true, pods: []*corev1.Pod{old("db-0", notReady)}, want: "db-0"},
		"nor while another one is on its way":          {ordered: true, pods: []*corev1.Pod{old("db-0", notReady), fresh("db-1", notReady)}},
		"unless they are replaced side by side":        {pods: []*corev1.Pod{old("db-0"), old("db-1", notReady)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := deployment()
			w.wanted, w.onDelete, w.ordered = 2, tc.onDelete, tc.ordered
			w.hashLabel = "pod-template-hash"
			got := ""
			if p := nextOldPod(tc.pods, w); p != nil {
				got = p.Name
			}
			if got != tc.want {
				t.Errorf("nextOldPod() = %q, want %q", got, tc.want)
			}
		})
	}
}
