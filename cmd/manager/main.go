// Command manager runs the Cofferdam operator.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/sigstore/sigstore-go/pkg/root"
	"go.uber.org/zap/zapcore"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"cofferdam.dev/cofferdam/controllers"
)

type options struct {
	metricsAddress, probeAddress, operatorNamespace, evidenceStore, kubeletCAs, trustedRoot, probeImage string
	leaderElect                                                                                         bool
	workers                                                                                             int
}

// gcPercent lets garbage grow to half of what is in use where Go lets it grow to all of it: the operator waits for others most of the time, and memory is what it is short of.
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" { // whoever sets it knows better
		debug.SetGCPercent(gcPercent)
	}
	if len(os.Args) > 1 && os.Args[1] == probeCommand {
		os.Exit(runProbe(os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443", "address of the metrics endpoint (HTTPS, authenticated); 0 turns it off")
	flag.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 turns it off")
	flag.StringVar(&o.operatorNamespace, "operator-namespace", controllers.OperatorNamespace, "namespace for evidence, refusals and the leader lease")
	flag.StringVar(&o.evidenceStore, "evidence-store", "file:///var/lib/cofferdam/evidence",
		"where evidence goes when the ContainmentPolicy names no store: file:///directory, s3://bucket?region=…, gs://bucket or azblob://container")
	flag.StringVar(&o.kubeletCAs, "kubelet-ca-file", "", "PEM file with the certificates that vouch for kubelets; without it no container is checkpointed")
	flag.StringVar(&o.trustedRoot, "sigstore-trusted-root", "", "trusted_root.json with the authorities that keyless signatures of images are verified with; without it none is verified. Nothing is downloaded")
	flag.StringVar(&o.probeImage, "probe-image", "", "image of the pods that make the HTTP and TCP checks of plans; without it the operator's own, as its Pod $POD_NAME says")
	flag.BoolVar(&o.leaderElect, "leader-elect", false, "let only one of several managers act")
	flag.IntVar(&o.workers, "workers", 4, "Incidents that are worked on at once")
	zapOptions := zap.Options{TimeEncoder: zapcore.ISO8601TimeEncoder}
	zapOptions.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&zapOptions)))
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	cfg, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding a cluster: %w", err)
	}
	// The API server's priority and fairness protects it better than a limit on our side, which would delay containment.
	cfg.QPS, cfg.Burst = -1, -1
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: controllers.NewScheme(),
		Client: controllers.ClientOptions(),
		Cache:  controllers.CacheOptions(),
		Metrics: metricsserver.Options{
			BindAddress:    o.metricsAddress,
			SecureServing:  true,
			FilterProvider: filters.WithAuthenticationAndAuthorization,
			// HTTP/2 stays off because of its rapid-reset weakness (CVE-2023-44487).
			TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
		},
		HealthProbeBindAddress:        o.probeAddress,
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              "cofferdam-manager",
		LeaderElectionNamespace:       o.operatorNamespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("preparing the manager: %w", err)
	}
	cas, err := readCAs(o.kubeletCAs)
	if err != nil {
		return err
	}
	trusted, err := readTrustedRoot(o.trustedRoot)
	if err != nil {
		return err
	}
	if o.probeImage == "" {
		o.probeImage = ownImage(context.Background(), mgr.GetAPIReader(), o.operatorNamespace)
	}
	err = controllers.Setup(mgr, controllers.Options{
		ProbeImage:        o.probeImage,
		OperatorNamespace: o.operatorNamespace,
		EvidenceStore:     o.evidenceStore,
		KubeletCAs:        cas,
		RegistryKeychain:  registryKeychain(),
		TrustedRoot:       trusted,
		Controller:        controller.Options{MaxConcurrentReconciles: o.workers},
	})
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding the health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding the readiness check: %w", err)
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

// registryKeychain has credentials only where somebody has put some for this very purpose: in config.json, as of a Secret of type kubernetes.io/dockerconfigjson, in the folder DOCKER_CONFIG.
func registryKeychain() authn.Keychain {
	if os.Getenv("DOCKER_CONFIG") == "" {
		return nil
	}
	return authn.DefaultKeychain
}

// readTrustedRoot reads whom keyless signatures are verified with; no file means nobody.
func readTrustedRoot(file string) (root.TrustedMaterial, error) {
	if file == "" {
		return nil, nil
	}
	trusted, err := root.NewTrustedRootFromPath(file)
	if err != nil {
		return nil, fmt.Errorf("reading --sigstore-trusted-root: %w", err)
	}
	return trusted, nil
}

// readCAs reads certificates from a PEM file; no file means none.
func readCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading --kubelet-ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("reading --kubelet-ca-file: %s has no certificate in PEM form", file)
	}
	return pool, nil
}
