// Package explain tests "kubectl incident explain" on a real API server, with the permissions of the people who type it.
package explain

import (
	"bytes"
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/cmd/kubectl-incident/command"
	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/explain"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

var (
	server *cluster.Cluster
	// admin is a cluster administrator.
	admin client.Client
)

func TestExplain(t *testing.T) {
	RegisterFailHandler(Fail)
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "Explain")
}

var _ = BeforeSuite(func(ctx context.Context) {
	var err error
	server, err = cluster.StartInstalled(ctx, "external")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return server.Stop() })
	admin, err = client.New(server.RESTConfig, client.Options{Scheme: controllers.NewScheme()})
	Expect(err).NotTo(HaveOccurred())
	running, err := operator.Start(ctx, server.OperatorConfig(), operator.Options{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(running.Stop)
}, NodeTimeout(5*time.Minute))

// answer is what the command leaves behind.
type answer struct {
	code     int
	err      string
	document explain.PodExplanation
}

// explainPod runs the command as the administrator, or with --as as somebody else.
func explainPod(ctx context.Context, namespace, pod string, flags ...string) answer {
	GinkgoHelper()
	var out, errOut bytes.Buffer
	args := append([]string{"explain", "pod/" + pod, "-n", namespace, "--kubeconfig", server.Kubeconfig, "-o", "yaml"}, flags...)
	got := answer{code: command.Run(ctx, args, nil, &out, &errOut), err: errOut.String()}
	if out.Len() > 0 {
		Expect(yaml.UnmarshalStrict(out.Bytes(), &got.document)).To(Succeed())
		Expect(got.document.ExitCode).To(Equal(got.code))
	}
	return got
}

// namespaceWithPod makes a namespace with one pod, "web", that nobody restricts.
func namespaceWithPod(ctx context.Context) string {
	GinkgoHelper()
	name := "explain-" + rand.String(6)
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	// The controllers of Kubernetes make it some time after the namespace, and without it no pod is admitted.
	account := &corev1.ServiceAccount{}
	Eventually(ctx, func() error {
		return admin.Get(ctx, client.ObjectKey{Namespace: name, Name: "default"}, account)
	}).WithTimeout(scenario.Patience).Should(Succeed())
	Expect(admin.Create(ctx, builder.Pod(name, "web", "app", "web"))).To(Succeed())
	return name
}

// allow gives somebody a Role in the namespace and waits until the API server knows.
func allow(ctx context.Context, who, namespace string, rules ...rbacv1.PolicyRule) {
	GinkgoHelper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: who}
	Expect(admin.Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules})).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: who},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: who}},
	})).To(Succeed())
	person, err := client.New(server.Impersonate(who), client.Options{Scheme: controllers.NewScheme()})
	Expect(err).NotTo(HaveOccurred())
	Eventually(ctx, func() error {
		return person.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "web"}, &corev1.Pod{})
	}).WithTimeout(scenario.Patience).Should(Succeed())
}
