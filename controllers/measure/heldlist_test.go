package measure

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func heldPod(namespace, name string, kept bool, labels map[string]string) HeldPod {
	return HeldPod{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, Labels: labels, Kept: kept}
}

// distinct are n pods of a namespace, each with labels of its own.
func distinct(namespace string, n int) []HeldPod {
	var out []HeldPod
	for i := range n {
		out = append(out, heldPod(namespace, fmt.Sprintf("p%d", i), false, map[string]string{"n": fmt.Sprintf("%03d", i)}))
	}
	return out
}

func TestHeldList(t *testing.T) {
	only := map[string]string{QuarantineLabel(first): "held"}
	attached := map[string]string{QuarantineLabel(first): "held", "app": "web", "a.b/c": ""}
	claim := func(namespace, name string) types.NamespacedName {
		return types.NamespacedName{Namespace: namespace, Name: name}
	}
	cases := map[string]struct {
		held   []HeldPod
		claims []types.NamespacedName
		want   map[string]string
	}{
		"nothing is held": {},
		"a pod that may be deleted": {
			held: []HeldPod{heldPod("shop", "web-1", false, only)},
			want: map[string]string{"namespaces": "shop\n", "pods": "shop/web-1\n", "labels": "shop ,quarantine.cofferdam.dev/aaaa=held,\n"},
		},
		"every list is sorted, with each entry once": {
			held: []HeldPod{
				heldPod("shop", "web-2", true, only), heldPod("bank", "db-0", true, attached), heldPod("shop", "web-1", true, only), heldPod("shop", "web-10", false, attached),
			},
			claims: []types.NamespacedName{claim("shop", "data-2"), claim("bank", "data"), claim("shop", "data-1"), claim("shop", "data-1")},
			want: map[string]string{
				"namespaces": "bank\nshop\n",
				"pods":       "bank/db-0\nshop/web-1\nshop/web-10\nshop/web-2\n",
				"kept":       "bank/db-0\nshop/web-1\nshop/web-2\n",
				"claims":     "bank/data\nshop/data-1\nshop/data-2\n",
				"labels": "bank ,a.b/c=,app=web,quarantine.cofferdam.dev/aaaa=held,\n" +
					"shop ,a.b/c=,app=web,quarantine.cofferdam.dev/aaaa=held,\nshop ,quarantine.cofferdam.dev/aaaa=held,\n",
			},
		},
		"a pod without labels": {held: []HeldPod{heldPod("shop", "web", false, nil)}, want: map[string]string{"namespaces": "shop\n", "pods": "shop/web\n", "labels": "shop ,\n"}},
		"only claims are left": {claims: []types.NamespacedName{claim("shop", "data")}, want: map[string]string{"namespaces": "shop\n", "claims": "shop/data\n"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var want *corev1.ConfigMap
			if tc.want != nil {
				want = &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{
						Namespace: "cofferdam-system", Name: "held-aaaa",
						Labels: map[string]string{
							"app.kubernetes.io/managed-by": "cofferdam", v1alpha1.IncidentUIDLabel: "aaaa", "containment.cofferdam.dev/held": "true",
						},
						Annotations: map[string]string{v1alpha1.IncidentAnnotation: "soc/inc-1"},
					},
					Data: tc.want,
				}
			}
			if diff := cmp.Diff(want, HeldList(incident(), "cofferdam-system", tc.held, tc.claims)); diff != "" {
				t.Errorf("HeldList() (-want +got):\n%s", diff)
			}
		})
	}
}

// Past the bounds one line stands for every set of labels of the namespace, and the other namespaces keep theirs.
func TestHeldListIsBounded(t *testing.T) {
	long := strings.Repeat("v", 60)
	cases := map[string]struct {
		held []HeldPod
		want int // lines of the namespace; 0 for the one that stands for all
	}{
		"as many sets as are listed": {held: distinct("shop", 64), want: 64},
		"one set too many":           {held: distinct("shop", 65)},
		"the same set many times":    {held: append(distinct("shop", 1), distinct("shop", 1)...), want: 1},
		"few sets, but big ones":     {held: big(3, 100, long)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cm := HeldList(incident(), "cofferdam-system", append(tc.held, distinct("bank", 1)...), nil)
			lines := strings.Split(strings.TrimSuffix(cm.Data[HeldLabelsKey], "\n"), "\n")
			if lines[0] != "bank ,n=000," {
				t.Errorf("the other namespace has %q", lines[0])
			}
			if tc.want == 0 {
				if diff := cmp.Diff([]string{"shop *"}, lines[1:]); diff != "" {
					t.Errorf("lines (-want +got):\n%s", diff)
				}
			} else if len(lines)-1 != tc.want {
				t.Errorf("%d lines, want %d", len(lines)-1, tc.want)
			}
		})
	}
}

// big are n pods with many labels.
func big(n, labels int, value string) []HeldPod {
	var out []HeldPod
	for i := range n {
		set := map[string]string{"n": fmt.Sprint(i)}
		for l := range labels {
			set[fmt.Sprintf("l%d", l)] = value
		}
		out = append(out, heldPod("shop", fmt.Sprintf("p%d", i), false, set))
	}
	return out
}

func TestBudget(t *testing.T) {
	b := Budget(incident(), "shop")
	if b.Namespace != "shop" || b.Name != "cofferdam-quarantine-aaaa" || b.Labels[v1alpha1.IncidentUIDLabel] != "aaaa" || b.Annotations[v1alpha1.IncidentAnnotation] != "soc/inc-1" {
		t.Errorf("metadata %v", b.ObjectMeta)
	}
	if b.Spec.MaxUnavailable != nil || b.Spec.MinAvailable == nil || b.Spec.MinAvailable.String() != "2147483647" {
		t.Errorf("minAvailable %v, maxUnavailable %v; want a number that is never reached", b.Spec.MinAvailable, b.Spec.MaxUnavailable)
	}
	if policy := b.Spec.UnhealthyPodEvictionPolicy; policy == nil || *policy != "IfHealthyBudget" {
		t.Errorf("unhealthyPodEvictionPolicy %v, want pods that are not ready to be protected too", policy)
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"detached": {pod: act{by: first, detach: true}.on(t, webPod()), want: true}, "attached": {pod: act{by: first}.on(t, webPod()), want: true},
		"free": {pod: webPod()}, "another Incident's": {pod: act{by: second, detach: true}.on(t, webPod())},
	} {
		if got := selector.Matches(labels.Set(tc.pod.Labels)); got != tc.want {
			t.Errorf("a pod that is %s: selected %v", name, got)
		}
	}
}
