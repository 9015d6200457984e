// Package admission tests, on a real API server, what is refused at the door: every rule of the CRDs and every admission policy of
// config/guard, each accepted once and refused once.
package admission

import (
	"context"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	containmentv1alpha1 "cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/cluster"
)

// Namespaces of the suite. The people hold their roles in shop; the lead may declare in pay as well.
const (
	shop = "shop"
	pay  = "pay"
)

var (
	server *cluster.Cluster

	// admin is a cluster administrator, whom RBAC lets do everything.
	admin client.Client
	// chief is another one.
	chief client.Client
	// operator has the operator's name, which is what the guards look at, and every permission.
	operator client.Client
	// The people hold the roles of config/rbac that they are named after, in namespace shop.
	viewer, responder, approver, waiver, author, recoveryLead client.Client
	// lead is a responder in shop and in pay.
	lead client.Client

	// The tenants may edit everything in shop and in pay, and beyond that whatever the guards could stop (see mayEdit): what is refused to them, the
	// guards refuse. The examiner and the overrider hold in shop, and only there, the role that they are named after; the overseer
	// is an overrider everywhere; of the overrider's two verbs, the exposer and the destroyer hold one each, everywhere.
	tenant, examiner, overrider, overseer, exposer, destroyer somebody
	// operatorAsTenant has the operator's name and a tenant's permissions: what passes from it, passes by its name.
	operatorAsTenant somebody
)

func TestAdmission(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(time.Minute) // machines are slow at times
	EnforceDefaultTimeoutsWhenUsingContexts()
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "Admission")
}

var _ = BeforeSuite(func(ctx context.Context) {
	var err error
	server, err = cluster.StartInstalled(ctx, "external")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return server.Stop() })

	admin = as(server.RESTConfig)
	chief = as(server.Impersonate("chief", "system:masters"))
	operator = as(server.Impersonate(cluster.OperatorUser, "system:masters"))
	for _, name := range []string{shop, pay} {
		Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	}
	viewer = person(ctx, "viewer", "cofferdam-viewer", shop)
	responder = person(ctx, "responder", "cofferdam-responder", shop)
	approver = person(ctx, "approver", "cofferdam-approver", shop)
	recoveryLead = person(ctx, "recovery-lead", "cofferdam-recovery-lead", shop)
	waiver = person(ctx, "waiver", "cofferdam-evidence-waiver", shop)
	author = person(ctx, "author", "cofferdam-plan-author", shop)
	lead = person(ctx, "lead", "cofferdam-responder", shop, pay)
	Expect(admin.Create(ctx, mayEdit)).To(Succeed())
	tenant = resident(ctx, "tenant", "")
	examiner = resident(ctx, "examiner", "cofferdam-examiner", shop)
	overrider = resident(ctx, "overrider", "cofferdam-overrider", shop)
	overseer = resident(ctx, "overseer", "cofferdam-overrider")
	operatorAsTenant = resident(ctx, cluster.OperatorUser, "")
	for who, verb := range map[*somebody]string{&exposer: "expose", &destroyer: "destroy"} {
		role := holding(verb)
		Expect(admin.Create(ctx, role)).To(Succeed())
		*who = resident(ctx, "only-"+verb, role.Name)
	}
}, NodeTimeout(5*time.Minute))

// person makes somebody who holds a ClusterRole in namespaces, and waits until the API server knows.
func person(ctx context.Context, name, role string, namespaces ...string) client.Client {
	GinkgoHelper()
	who := as(server.Impersonate(name))
	bind(ctx, name, role, namespaces...)
	for _, namespace := range namespaces {
		Eventually(ctx, func() bool { return may(ctx, who, namespace, "get", "recoveryplans", "") }).Should(BeTrue())
	}
	return who
}

// bind gives somebody a ClusterRole in namespaces, or everywhere when none is given.
func bind(ctx context.Context, name, role string, namespaces ...string) {
	GinkgoHelper()
	meta := metav1.ObjectMeta{Name: name + "-" + role}
	to := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}}
	if len(namespaces) == 0 {
		Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: to, Subjects: subjects})).To(Succeed())
	}
	for _, meta.Namespace = range namespaces {
		Expect(admin.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: to, Subjects: subjects})).To(Succeed())
	}
}

// may asks whether somebody has a permission.
func may(ctx context.Context, who client.Client, namespace, verb, resource, subresource string) bool {
	GinkgoHelper()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: containmentv1alpha1.SchemeGroupVersion.Group, Resource: resource, Subresource: subresource,
		},
	}}
	Expect(who.Create(ctx, review)).To(Succeed())
	return review.Status.Allowed
}

func as(config *rest.Config) client.Client {
	GinkgoHelper()
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(containmentv1alpha1.AddToScheme(scheme)).To(Succeed())
	Expect(apiextensionsv1.AddToScheme(scheme)).To(Succeed())
	who, err := client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	return who
}

var lastName int

// fresh is a name that no other object of the suite has.
func fresh() string {
	lastName++
	return fmt.Sprintf("test-%d", lastName)
}

// refusedWith matches the error of a request that was refused with a message.
func refusedWith(message string) OmegaMatcher {
	return MatchError(ContainSubstring(message))
}
