// Package command is the command line of "kubectl incident". It parses flags; the answers come from packages below controllers.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"cofferdam.dev/cofferdam/controllers/explain"
)

// exitCode is the outcome of a command that has said all there is to say.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Run runs the command line and returns the exit code: 0 after help; after explain 0 if the pod is isolated, 1 if it leaks, and 2 if that is not known; after plan 0 if nothing blocks the recovery and 1 if something does; after evidence list 0; after evidence export 0 if
// the archive is complete and 1 if something is missing in it; after evidence verify 0 if the archive is genuine and 1 if it is not; and 2 after every error. An error is one line on errOut.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot(genericiooptions.IOStreams{In: in, Out: out, ErrOut: errOut})
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for the arguments of the process
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return explain.ExitIsolated
	case errors.As(err, &code):
		return int(code)
	}
	// The message may quote what was read.
	fmt.Fprintln(errOut, "error: "+explain.Clean(err.Error()))
	return explain.ExitUnknown
}

func newRoot(streams genericiooptions.IOStreams) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-incident",
		Short: "Answers questions about incidents, their evidence and quarantined pods",
		Annotations: map[string]string{
			cobra.CommandDisplayNameAnnotation: "kubectl incident",
		},
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	cluster := genericclioptions.NewConfigFlags(true)
	cluster.CacheDir = nil // nothing is kept
	cluster.AddFlags(root.PersistentFlags())
	root.AddCommand(newExplain(streams, cluster), newPlan(streams, cluster), newEvidence(streams, cluster))
	return root
}
