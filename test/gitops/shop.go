package gitops

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// NamespaceOf is where the managers of a shop are.
func NamespaceOf(shop *scenario.Shop) string { return shop.Namespace + "-gitops" }

// Prepare makes the namespace of a shop's managers, in which the responder may patch them, and a repository in which the path "web" renders the compromised image.
func Prepare(ctx context.Context, shop *scenario.Shop, managers ...*unstructured.Unstructured) (*Simulation, error) {
	s := &Simulation{Client: shop.Admin, Git: &Git{}, Namespace: NamespaceOf(shop)}
	s.Git.Commit("web", Deployment(shop.Namespace, scenario.Web, scenario.BadImage))
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace}},
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "pause"}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"argoproj.io", "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io"}, Verbs: []string{"patch"},
			Resources: []string{"applications", "applicationsets", "kustomizations", "helmreleases"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "pause"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "pause"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: shop.ResponderName}},
		},
	}
	for _, m := range managers {
		objects = append(objects, m)
	}
	for _, obj := range objects {
		if err := shop.Admin.Create(ctx, obj); err != nil {
			return nil, fmt.Errorf("create %T %s: %w", obj, obj.GetName(), err)
		}
	}
	return s, nil
}

// AwaitApplied waits until the web tier carries the mark of a manager, and runs.
func AwaitApplied(ctx context.Context, shop *scenario.Shop) error {
	err := wait.PollUntilContextTimeout(ctx, pace, scenario.Patience, true, func(ctx context.Context) (bool, error) {
		var web appsv1.Deployment
		err := shop.Admin.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: scenario.Web}, &web)
		return web.Annotations[trackingID]+web.Labels[kustomizeName] != "", err
	})
	return errors.Join(err, shop.WaitRunning(ctx))
}

// Plan pauses, rolls back, and resumes.
func Plan(shop *scenario.Shop) *v1alpha1.RecoveryPlan {
	ns := []string{NamespaceOf(shop)}
	back := builder.RollBack("roll-back", v1alpha1.WorkloadRef{Kind: "Deployment", Name: scenario.Web})
	back.DependsOn = []string{"pause"}
	plan := builder.Plan(shop.Namespace, "gitops", builder.PauseGitOps("pause", ns, ns), back, builder.ResumeGitOps("resume", "roll-back"))
	plan.Spec.Images = []v1alpha1.KnownGoodImages{builder.KnownGood("Deployment", scenario.Web, "app", builder.GoodImage)}
	return plan
}
