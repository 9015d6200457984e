// Controlplane builds and runs a Kubernetes control plane on this machine, with
// simulated nodes and storage, for development and tests.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/hack/controlplane/internal/binaries"
	"cofferdam.dev/cofferdam/hack/controlplane/internal/cluster"
	"cofferdam.dev/cofferdam/hack/controlplane/internal/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		stop()
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "controlplane",
		Short:         "Build and run a local Kubernetes control plane with simulated nodes",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newBuildCommand(), newUpCommand())
	return root
}

func newBuildCommand() *cobra.Command {
	opts := binaries.Options{Assets: os.Getenv("KUBEBUILDER_ASSETS"), Log: os.Stderr}
	command := &cobra.Command{
		Use:   "build",
		Short: "Make sure that the programs of the control plane exist",
		Long: "Takes the programs from the folder in KUBEBUILDER_ASSETS where they are recent enough,\n" +
			"builds the others from pinned Go modules, and does nothing when all are up to date.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if opts.Sources == "" {
				if opts.Sources, err = binaries.FindSources(); err != nil {
					return err
				}
			}
			summary, err := binaries.Ensure(cmd.Context(), opts)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), summary)
			return nil
		},
	}
	command.Flags().StringVar(&opts.Bin, "bin", "bin", "folder that receives the programs")
	command.Flags().StringVar(&opts.Sources, "sources", "", "folder with the pinned modules (default: hack/build of this checkout)")
	return command
}

// upFlags are the flags of "up" that the cluster itself does not know about.
type upFlags struct {
	noSnapshots      bool
	untilStdinCloses bool
	remove           bool
}

func newUpCommand() *cobra.Command {
	opts := cluster.Options{Log: os.Stderr}
	var flags upFlags
	command := &cobra.Command{
		Use:   "up",
		Short: "Run a control plane until interrupted",
		Long: "Starts a new, empty control plane and prints the line \"ready kubeconfig=PATH\" when it can be\n" +
			"used. It runs until SIGINT or SIGTERM. Progress goes to standard error, logs to DIR/logs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return up(cmd.Context(), opts, flags, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	command.Flags().StringVar(&opts.Bin, "bin", "bin", "folder with the programs, filled by \"build\"")
	command.Flags().StringVar(&opts.Dir, "dir", "", "state folder; new, or one of an earlier run, which is emptied")
	command.Flags().StringVar(&opts.Kubeconfig, "kubeconfig", "", "where to write the administrator's kubeconfig (default DIR/kubeconfig)")
	command.Flags().IntVar(&opts.Nodes, "nodes", 2, "number of simulated nodes")
	command.Flags().BoolVar(&flags.noSnapshots, "no-snapshot-crds", false, "leave out the VolumeSnapshot API and its controller")
	command.Flags().BoolVar(&flags.untilStdinCloses, "until-stdin-closes", false, "also stop when standard input closes")
	command.Flags().BoolVar(&flags.remove, "rm", false, "remove the state folder when stopping, unless a component failed")
	// The flag exists, so marking it cannot fail.
	_ = command.MarkFlagRequired("dir")
	return command
}

func up(ctx context.Context, opts cluster.Options, flags upFlags, stdin io.Reader, stdout io.Writer) (err error) {
	if opts.Nodes < 1 || opts.Nodes > sim.MaxNodes {
		return fmt.Errorf("--nodes must be between 1 and %d", sim.MaxNodes)
	}
	opts.SnapshotCRDs = !flags.noSnapshots
	if opts.Kubeconfig == "" {
		opts.Kubeconfig = filepath.Join(opts.Dir, "kubeconfig")
	}
	if opts.Kubeconfig, err = filepath.Abs(opts.Kubeconfig); err != nil {
		return fmt.Errorf("resolve kubeconfig path: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if flags.untilStdinCloses {
		go func() {
			// Whatever ends the copy, the other side is gone.
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}

	running, err := cluster.Start(ctx, opts)
	if ctx.Err() != nil && err != nil {
		return errors.New("told to stop before the control plane was ready")
	}
	if err != nil {
		return err
	}
	// After a failure the logs are worth more than a tidy disk.
	defer func() { err = errors.Join(err, running.Stop(flags.remove && err == nil)) }()
	fmt.Fprintf(stdout, "ready kubeconfig=%s\n", opts.Kubeconfig)
	return running.Wait(ctx)
}
