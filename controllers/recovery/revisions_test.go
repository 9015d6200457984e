package recovery

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

func revisionAt(name string, hour int, containers ...corev1.Container) *revision {
	return &revision{
		ref: v1alpha1.ObjectRef{Kind: "ReplicaSet", Name: name, UID: "uid-" + name}, created: time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC),
		template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: containers}},
	}
}

func TestNewestWhole(t *testing.T) {
	inc := incident(nil)
	inc.Spec.SuspectedSince = metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	inc.Status.Revisions = []v1alpha1.RevisionStatus{{ID: "uid-held"}}
	clean, dirty := corev1.Container{Name: "main", Image: "elsewhere/web:1@" + goodDigest}, corev1.Container{Name: "main", Image: badImage}
	cases := map[string]struct {
		revisions []*revision
		want, why string
	}{
		"the newest that is old enough":   {revisions: []*revision{revisionAt("late", 13, clean), revisionAt("b", 3, clean), revisionAt("a", 1, clean)}, want: "b"},
		"of the same moment as suspected": {revisions: []*revision{revisionAt("late", 12, clean)}, why: "late is of 2026-01-01T12:00:00Z, and only what is older"},
		"another digest":                  {revisions: []*revision{revisionAt("b", 3, dirty), revisionAt("a", 1, clean)}, want: "a"},
		"only another digest":             {revisions: []*revision{revisionAt("b", 3, dirty)}, why: "b runs registry/web:bad in container main"},
		"one that is held":                {revisions: []*revision{revisionAt("held", 3, clean)}, why: "held is compromised"},
		"a container that is not listed":  {revisions: []*revision{revisionAt("a", 1, clean, corev1.Container{Name: "proxy", Image: goodImage})}, why: "a has a container proxy, which spec.images does not list"},
		"without one that is":             {revisions: []*revision{revisionAt("a", 1)}, why: "a has no container main"},
		"none":                            {why: "none is kept"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, why := newestWhole(inc, tc.revisions, good("main"))
			name := ""
			if got != nil {
				name = got.ref.Name
			}
			if name != tc.want || !strings.Contains(why, tc.why) || (tc.want == "") != (why != "") {
				t.Errorf("newestWhole() = %q, %q, want %q, %q", name, why, tc.want, tc.why)
			}
		})
	}
}

func TestDifferences(t *testing.T) {
	of := func(change func(*corev1.PodTemplateSpec)) *corev1.PodTemplateSpec {
		out := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: podSpec(badImage)}
		change(out)
		return out
	}
	nothing := func(*corev1.PodTemplateSpec) {}
	cases := map[string]struct {
		change func(*corev1.PodTemplateSpec)
		want   string
	}{
		"nothing":       {nothing, "nothing"},
		"an image":      {func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = goodImage }, "spec.containers[main].image"},
		"an account":    {func(p *corev1.PodTemplateSpec) { p.Spec.ServiceAccountName = "root" }, "spec.serviceAccountName"},
		"one container": {func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Name = "other" }, "spec.containers[main].image, spec.containers[main].resources, spec.containers[other].image, spec.containers[other].resources"},
		"labels":        {func(p *corev1.PodTemplateSpec) { p.Labels["a"] = "b" }, "metadata.labels"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := differences(of(nothing), of(tc.change)); got != tc.want {
				t.Errorf("differences() = %s, want %s", got, tc.want)
			}
		})
	}
}

func TestPlain(t *testing.T) {
	template := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{
		Labels:      map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: "x", appsv1.ControllerRevisionHashLabelKey: "y"},
		Annotations: map[string]string{v1alpha1.RecoveredByAnnotation: incidentUID, restoredAnnotation: "sha256:1"},
	}}
	want := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}}
	if got := plain(template); digestOfTemplate(got) != digestOfTemplate(want) {
		t.Errorf("plain() = %v, want %v", got, want)
	}
}
