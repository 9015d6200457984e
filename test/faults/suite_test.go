package faults

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"cofferdam.dev/cofferdam/test/cluster"
)

var server *cluster.Cluster

func TestFaults(t *testing.T) {
	RegisterFailHandler(Fail)
	log.SetLogger(GinkgoLogr)
	RunSpecs(t, "Faults")
}

var _ = BeforeSuite(func(ctx context.Context) {
	var err error
	server, err = cluster.StartInstalled(ctx, "external")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error { return server.Stop() })
	Expect(server.Serve(ctx, cluster.ClusterNetworkPolicy)).To(Succeed())
	Expect(server.ServeGitOps(ctx)).To(Succeed())
}, NodeTimeout(5*time.Minute))
