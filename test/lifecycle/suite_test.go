// Package lifecycle tests an Incident from declaration to close on a real API server with the real controllers of Kubernetes, and with the operator's
// own permissions.
package lifecycle

import (
	"context"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/operator"
	"cofferdam.dev/cofferdam/test/scenario"
)

var (
	server *cluster.Cluster
	// recorder sees every request of the operator that could change something.
	recorder operator.Recorder
	// witness looks whether each of them had its intent in the journal.
	witness operator.Witness
	// looks counts the passes over each Incident.
	looks operator.Looks
)

func TestLifecycle(t *testing.T) {
	RegisterFailHandler(Fail)
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "Lifecycle")
}

var _ = BeforeSuite(func(ctx context.Context) {
	var err error
	server, err = cluster.StartInstalled(ctx, "external")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return server.Stop() })
	// A cluster whose network plugin brings policies of its own, of which there are none yet.
	Expect(server.Serve(ctx, cluster.CiliumNetworkPolicy, cluster.ClusterNetworkPolicy, cluster.ExternalSecret, cluster.Certificate, cluster.ScaledObject)).To(Succeed())
	Expect(server.ServeGitOps(ctx)).To(Succeed())
	witness.Reader, err = client.New(server.RESTConfig, client.Options{Scheme: controllers.NewScheme()})
	Expect(err).NotTo(HaveOccurred())
	running, err := operator.Start(ctx, witness.Attach(recorder.Attach(server.OperatorConfig())), operator.Options{
		Wrap: looks.Wrap, KubeletCAs: kubeletCAs(), KubeletAddressTypes: []corev1.NodeAddressType{corev1.NodeExternalIP},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(running.Stop)
}, NodeTimeout(5*time.Minute))

// Whatever a spec is about: what the operator has changed or removed meanwhile had its intent in a journal at that moment.
var _ = AfterEach(func() {
	Expect(witness.Without()).To(BeEmpty(), "these requests had no intent before them")
})

// openShop opens a shop in a namespace of its own, governed by a policy of its own.
func openShop(ctx context.Context, changes ...func(*v1alpha1.ContainmentPolicy)) *scenario.Shop {
	GinkgoHelper()
	name := "shop-" + rand.String(6)
	shop, err := scenario.Open(ctx, server, name)
	Expect(err).NotTo(HaveOccurred())
	Expect(shop.Admin.Create(ctx, scenario.Policy(name, changes...))).To(Succeed())
	DeferCleanup(func() {
		if CurrentSpecReport().Failed() {
			out, _ := server.Kubectl("get", "incidents", "-n", name, "-o", "yaml")
			fmt.Fprintln(GinkgoWriter, string(out))
		}
	})
	return shop
}

// await waits for an Incident.
func await(ctx context.Context, shop *scenario.Shop, name, what string, ok func(*v1alpha1.Incident) bool) *v1alpha1.Incident {
	GinkgoHelper()
	inc, err := shop.Await(ctx, name, what, ok)
	Expect(err).NotTo(HaveOccurred())
	return inc
}
