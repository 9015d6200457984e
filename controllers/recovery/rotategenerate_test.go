package recovery

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// What was rotated in this try is not rotated once more when somebody else has written it: those that use it may have been restarted with the value in between.
func TestGenerateRotatesOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		annotation func(*rotation) string
		done       bool
		failed     string
	}{
		"as this step has left it":     {annotation: func(r *rotation) string { return r.id }, done: true},
		"rotated by another step":      {annotation: func(*rotation) string { return "another" }, failed: "was written by somebody else after it was rotated"},
		"put back from where it comes": {annotation: func(*rotation) string { return "" }, failed: "was written by somebody else after it was rotated"},
	} {
		t.Run(name, func(t *testing.T) {
			r := rotating(v1alpha1.RestartNone)
			r.x.DryRun = interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
				Patch: func(_ context.Context, _ client.WithWatch, obj client.Object, _ client.Patch, _ ...client.PatchOption) error {
					obj.SetUID("secret")
					obj.SetAnnotations(map[string]string{v1alpha1.RotationAnnotation: tc.annotation(r)})
					return nil
				},
			})
			out, err := r.generate(t.Context(), r.x.Choices[0].Object, &r.step.RotateSecrets.Generate[0])
			if err != nil || out.Done != tc.done || out.Failed != (tc.failed != "") || !strings.Contains(out.Message, tc.failed) {
				t.Errorf("generate() = %+v, %v", out, err)
			}
		})
	}
}

func TestKeeperOf(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*metav1.PartialObjectMetadata)
		want   string
	}{
		"nobody": {change: func(*metav1.PartialObjectMetadata) {}},
		"an ExternalSecret": {change: func(m *metav1.PartialObjectMetadata) {
			m.OwnerReferences = []metav1.OwnerReference{{Kind: "ExternalSecret", Name: "db", Controller: new(true)}}
		}, want: "ExternalSecret db"},
		"an owner that only has": {change: func(m *metav1.PartialObjectMetadata) {
			m.OwnerReferences = []metav1.OwnerReference{{Kind: "Shop", Name: "it"}}
		}},
		"Argo CD": {change: func(m *metav1.PartialObjectMetadata) {
			m.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "web:/Secret:shop/db"}
		}, want: "Application web"},
		"a label that many things carry": {change: func(m *metav1.PartialObjectMetadata) {
			m.Labels = map[string]string{"app.kubernetes.io/instance": "web"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := secretMetadata(v1alpha1.ObjectRef{Namespace: "shop", Name: "db"})
			tc.change(m)
			if got := keeperOf(m); got != tc.want {
				t.Errorf("keeperOf() = %q, want %q", got, tc.want)
			}
		})
	}
}
