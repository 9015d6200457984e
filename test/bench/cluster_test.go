package bench

import (
	"os"
	"testing"

	"go.uber.org/zap/zapcore"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"cofferdam.dev/cofferdam/test/cluster"
)

// startCluster runs a control plane until the benchmark ends, with everything installed but the operator itself.
func startCluster(b *testing.B) *cluster.Cluster {
	b.Helper()
	log.SetLogger(zap.New(zap.WriteTo(os.Stderr), zap.Level(zapcore.ErrorLevel)))
	server, err := cluster.StartInstalled(b.Context(), "external")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(); err != nil {
			b.Error(err)
		}
	})
	return server
}
