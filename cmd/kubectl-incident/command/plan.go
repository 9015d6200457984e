package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/explain"
	"cofferdam.dev/cofferdam/controllers/preview"
)

// planOptions are the flags of plan.
type planOptions struct {
	genericiooptions.IOStreams
	cluster *genericclioptions.ConfigFlags
	output  string
}

func newPlan(streams genericiooptions.IOStreams, cluster *genericclioptions.ConfigFlags) *cobra.Command {
	o := &planOptions{IOStreams: streams, cluster: cluster}
	cmd := &cobra.Command{
		Use:   "plan INCIDENT",
		Short: "Says what the recovery of an Incident would do, what stands in its way, and about how long it takes",
		Long: `Prints the resolved recovery plan of an Incident: which snapshots and images are chosen, what each step changes first, what stands in the way (paused rollouts,
finalizers, full quotas, pods that hold a claim, autoscalers, disruption budgets), and about how long it takes.

It reads from the cluster, as you. The API server tries every change without making it (server-side dry run), with your rights: what you may not do is not tried.
Before the recovery has begun, the plan is resolved now, and may be resolved otherwise when it begins.

The exit code is
  0  nothing was found that would keep the recovery from coming to its end
  1  something blocks it
  2  that is not known, because something could not be read, or not be tried with your rights, or there was an error`,
		Example: `  # What would the recovery do?
  kubectl incident plan miner -n shop`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", outputText, "text, yaml or json")
	return cmd
}

// exitBlocked is the exit code when something stands in the way.
const exitBlocked = exitCode(1)

var planPrinters = map[string]func(io.Writer, *preview.Preview) error{
	outputText: func(w io.Writer, p *preview.Preview) error { return p.WriteText(w) },
	"yaml": func(w io.Writer, p *preview.Preview) error {
		raw, err := yaml.Marshal(p)
		if err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	},
	"json": func(w io.Writer, p *preview.Preview) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(p)
	},
}

func (o *planOptions) run(ctx context.Context, args []string) error {
	printer, known := planPrinters[o.output]
	if !known {
		return fmt.Errorf("-o %s is not an output; use text, yaml or json", o.output)
	}
	if len(args) != 1 || args[0] == "" {
		return errors.New("say of which Incident: kubectl incident plan INCIDENT -n NAMESPACE")
	}
	namespace, _, err := o.cluster.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return fmt.Errorf("finding a cluster: %w", err)
	}
	config, err := o.cluster.ToRESTConfig()
	if err != nil {
		return fmt.Errorf("finding a cluster: %w; choose one with --kubeconfig or --context", err)
	}
	config.QPS, config.Burst = -1, -1
	config.WarningHandler, config.WarningHandlerWithContext = rest.NoWarnings{}, rest.NoWarnings{}
	c, err := client.New(config, client.Options{Scheme: controllers.NewScheme()})
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	p, err := preview.Of(ctx, c, client.ObjectKey{Namespace: namespace, Name: args[0]}, time.Now())
	if err != nil {
		return err
	}
	if err := printer(o.Out, p); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	switch {
	case p.Blocked():
		return exitBlocked
	case len(p.Unread) > 0, p.Untried():
		return exitCode(explain.ExitUnknown)
	}
	return nil
}
