package evidence

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
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

func unpack(t *testing.T, cm *corev1.ConfigMap) *Record {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(cm.BinaryData[manifestsKey]))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	var out Record
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestConfigMapForRoundTrip(t *testing.T) {
	record := &Record{
		Pod:             recordedPod(),
		Owners:          []json.RawMessage{json.RawMessage(`{"kind":"ReplicaSet"}`)},
		Events:          []corev1.Event{{Reason: "Started"}},
		NetworkPolicies: []*networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "allow-all"}}},
	}
	cm, err := ConfigMapFor(incident(), "cofferdam-system", record)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(record, unpack(t, cm)); diff != "" {
		t.Errorf("what comes back (-want +got):\n%s", diff)
	}
	want := metav1.ObjectMeta{
		Namespace: "cofferdam-system", Name: RecordName(incident(), "pod-uid"),
		Labels:      map[string]string{"app.kubernetes.io/managed-by": "cofferdam", v1alpha1.IncidentUIDLabel: "inc-uid", v1alpha1.EvidenceLabel: "manifests"},
		Annotations: map[string]string{v1alpha1.IncidentAnnotation: "soc/inc-1"},
	}
	if diff := cmp.Diff(want, cm.ObjectMeta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if cm.Immutable == nil || !*cm.Immutable {
		t.Error("the ConfigMap is not immutable")
	}
	again, err := ConfigMapFor(incident(), "cofferdam-system", record)
	if err != nil || !bytes.Equal(cm.BinaryData[manifestsKey], again.BinaryData[manifestsKey]) {
		t.Errorf("packing the same record again gives other bytes (%v)", err)
	}
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

func TestTooLarge(t *testing.T) {
	cases := map[string]struct {
		size int
		want bool
	}{
		"nothing":     {},
		"at the edge": {size: maxRecord},
		"a byte more": {size: maxRecord + 1, want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cm := &corev1.ConfigMap{BinaryData: map[string][]byte{manifestsKey: make([]byte, tc.size)}}
			if got := TooLarge(cm); got != tc.want {
				t.Errorf("TooLarge() = %v, want %v", got, tc.want)
			}
		})
	}
}

// The digest is of what the API server has stored, even if it is not what was meant.
func TestStoredItem(t *testing.T) {
	ref := v1alpha1.ObjectRef{Kind: "Pod", Namespace: "shop", Name: "web-1", UID: "pod-uid"}
	stored := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "cofferdam-system", Name: "evidence-1"}, BinaryData: map[string][]byte{manifestsKey: []byte("stored")},
	}
	sum := sha256.Sum256([]byte("stored"))
	want := v1alpha1.EvidenceItem{
		ID: "manifests-pod-uid", Type: v1alpha1.EvidenceManifests, Subject: ref, Pods: []string{"pod-uid"}, State: v1alpha1.EvidenceCollected,
		Location: "ConfigMap cofferdam-system/evidence-1", Digest: "sha256:" + hex.EncodeToString(sum[:]), TakenAt: metav1.NewTime(now),
	}
	if diff := cmp.Diff(want, StoredItem(stored, ref, now)); diff != "" {
		t.Errorf("StoredItem() (-want +got):\n%s", diff)
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
