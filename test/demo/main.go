// Command demo tells the story of one incident, from declaration to close, on a real API server and with the real operator. It checks everything that it
// claims, and exits with 0 only if all of it came true.
//
//	go run ./test/demo                      on a control plane of its own
//	go run ./test/demo --kubeconfig=FILE    on the cluster of that file's current context, after asking
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/cluster"
)

const (
	namespace    = "cofferdam-demo"
	incidentName = "miner"
	manifests    = "test/demo/manifests/"

	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

var (
	errInterrupted = errors.New("interrupted")
	errDeclined    = errors.New("declined")
)

// demo is one run.
type demo struct {
	result

	server *cluster.Cluster
	// existing says that the cluster was there before, and has to be left as it was found.
	existing bool
	// installed says that something was written to it.
	installed bool
	// dir is a folder for what the run needs, log the manager's log in it.
	dir, log string
	patience time.Duration
	started  time.Time
	// admin reads what the checks are about; everything that is done is done by kubectl.
	admin   client.Client
	manager *manager
	story
}

func main() {
	// Not the global set: libraries add flags of their own to it.
	flags := flag.NewFlagSet("demo", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "use the cluster of this file's current context, after asking, instead of a control plane of its own")
	yes := flags.Bool("yes", false, "do not ask before using the cluster of --kubeconfig")
	_ = flags.Parse(os.Args[1:]) // exits by itself
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unknown argument %q\n", flags.Arg(0))
		flags.Usage()
		os.Exit(exitUsage)
	}
	os.Exit(run(*kubeconfig, *yes))
}

func run(kubeconfig string, yes bool) int {
	ctx, stop := interruptible()
	defer stop()
	d := &demo{existing: kubeconfig != "", patience: patience, started: time.Now()}
	if d.existing {
		d.patience = patienceExisting
	}
	err := d.prepare(ctx, kubeconfig, yes)
	if errors.Is(err, errDeclined) {
		fmt.Println("\n  Nothing was done.")
		return exitFailed
	}
	if err == nil {
		ctx, err = d.start(ctx)
	}
	if err == nil {
		err = d.tell(ctx)
	}
	if errors.Is(err, errInterrupted) {
		fmt.Println("\n  Interrupted: stopping everything.")
		d.log = "" // of no interest
		d.finish(false)
		return exitInterrupted
	}
	if err != nil && !d.installed {
		fmt.Printf("  FAILED: %v\n", err)
		d.finish(false)
		return exitFailed
	}
	passed := d.conclude(err, time.Since(d.started))
	if !d.finish(passed) {
		return exitFailed
	}
	return 0
}

// interruptible returns a context that ends when the user presses Ctrl-C or the process is asked to end. A second Ctrl-C ends it at once.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals)
		cancel(errInterrupted)
	}()
	return ctx, func() { cancel(nil) }
}

// start installs the operator and runs it. The context that it returns ends when the operator does.
func (d *demo) start(ctx context.Context) (context.Context, error) {
	var err error
	if d.admin, err = client.New(d.server.RESTConfig, client.Options{Scheme: newScheme()}); err != nil {
		return ctx, fmt.Errorf("prepare a client: %w", err)
	}
	d.installed = true
	err = busy("Installing config/external: kinds, roles, admission policies", func() error { return d.server.Install(ctx, "external") })
	if err != nil {
		return ctx, orCause(ctx, err)
	}
	err = busy("Starting bin/manager with the token of its service account", func() error {
		d.manager, ctx, err = d.startManager(ctx)
		return err
	})
	return ctx, orCause(ctx, err)
}

// finish stops what was started, and leaves an existing cluster as it was found. It reports whether nothing went wrong.
func (d *demo) finish(passed bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patienceExisting)
	defer cancel()
	if d.manager != nil {
		d.manager.stop()
	}
	if d.existing && d.installed {
		if err := busy("Removing everything from the cluster again", func() error { return d.cleanUp(ctx) }); err != nil {
			fmt.Printf("  Cleaning up failed: %v\n", err)
			passed = false
		}
	}
	if d.server != nil {
		if err := d.server.Stop(); err != nil {
			fmt.Printf("  Stopping the control plane failed: %v\n", err)
			passed = false
		}
	}
	if passed || d.log == "" {
		_ = os.RemoveAll(d.dir) // a folder in the system's own temporary folder
	} else {
		_ = os.Remove(d.kubeconfigOfManager()) // it holds a token
		fmt.Printf("  The manager's log is kept: %s\n", d.log)
	}
	return passed
}

// orCause returns why the context ended rather than what that led to.
func orCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	utilruntime.Must(snapshotv1.AddToScheme(scheme))
	return scheme
}
