package evidence

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func incident() *v1alpha1.Incident {
	return &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "soc", Name: "inc-1", UID: "inc-uid"}}
}

func recordedPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", UID: "pod-uid", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "registry/web:bad"}}},
	}
}

// oldRecord is the ConfigMap of a record as it was made before there were indexes, and the digest that status had of it.
func oldRecord(t *testing.T, record *Record) (cm *corev1.ConfigMap, digest string) {
	t.Helper()
	raw, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := pack(raw)
	if err != nil {
		t.Fatal(err)
	}
	labels := measure.OwnedLabels(incident())
	labels[v1alpha1.EvidenceLabel] = "manifests"
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: operatorNamespace, Name: RecordName(incident(), string(record.Pod.UID)), Labels: labels, Annotations: measure.OwnedAnnotations(incident()),
		},
		Immutable: new(true), BinaryData: map[string][]byte{manifestsKey: packed},
	}, digestOf(packed)
}

func TestRecordName(t *testing.T) {
	if a, b := RecordName(incident(), "u1"), RecordName(incident(), "u2"); a == b {
		t.Errorf("two pods share the name %s", a)
	}
	inc := incident()
	inc.UID = "other"
	if a, b := RecordName(incident(), "u1"), RecordName(inc, "u1"); a == b {
		t.Errorf("two Incidents share the name %s", a)
	}
}

func TestGatherOwners(t *testing.T) {
	owned := recordedPod()
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", Controller: new(true)}}
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "owner"}}
	chained := owner.DeepCopy()
	chained.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "missing", Controller: new(true)}}
	circular := owner.DeepCopy()
	circular.OwnerReferences = owned.OwnerReferences
	cases := map[string]struct {
		pod   *corev1.Pod
		owner *corev1.ConfigMap
		want  []string
	}{
		"none":                        {pod: recordedPod()},
		"one":                         {pod: owned, owner: owner, want: []string{`"kind":"ConfigMap"`}},
		"one that is gone is named":   {pod: owned, want: []string{`"notRead"`}},
		"a chain, its end is gone":    {pod: owned, owner: chained, want: []string{`"kind":"ConfigMap"`, `"notRead"`}},
		"a circle ends after a while": {pod: owned, owner: circular, want: strings.Split(strings.Repeat(`"kind":"ConfigMap" `, maxOwners-1)+`"kind":"ConfigMap"`, " ")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			builder := readerOf()
			if tc.owner != nil {
				builder = readerOf(tc.owner)
			}
			got, err := gatherOwners(context.Background(), builder, tc.pod)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tc.want) {
				t.Fatalf("%d owners, want %d: %s", len(got), len(tc.want), got)
			}
			for i, want := range tc.want {
				if !strings.Contains(string(got[i]), want) {
					t.Errorf("owner %d = %s, want it to contain %s", i, got[i], want)
				}
			}
		})
	}
}
