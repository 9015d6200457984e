package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/controllers/explain"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	genericiooptions.IOStreams
	cluster *genericclioptions.ConfigFlags
	files   []string
	output  string
}

func newExplain(streams genericiooptions.IOStreams, cluster *genericclioptions.ConfigFlags) *cobra.Command {
	o := &explainOptions{IOStreams: streams, cluster: cluster}
	cmd := &cobra.Command{
		Use:   "explain (pod/NAME | NAME)",
		Short: "Says what can still reach a pod, what it can still reach, why, and what closes it",
		Long: `Says what can still reach a pod and what the pod can still reach: every flow with the policy and the rule that allows it, and the edit that closes
it. The pod need not be quarantined.

It reads from the cluster, as you, and changes nothing. With -f it needs no cluster and reads the pod, the policies and the rest from files.

The exit code is
  0  the pod is isolated: policies allow nothing but declared exceptions
  1  the pod leaks: something is allowed for certain
  2  that is not known, because something could not be read or decided, or there was an error

A pod that policies cannot isolate never exits with 0: with 1 if it uses its node's network, with 2 otherwise.`,
		Example: `  # What can still reach the pod?
  kubectl incident explain pod/web-5d4f9-x2x7k -n shop

  # The same from files, before anything is applied
  kubectl incident explain pod/web -n shop -f manifests/

  # From what a cluster exported, for a program
  kubectl get pods,networkpolicies,namespaces -A -o yaml | kubectl incident explain pod/web -n shop -f - -o yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args)
		},
	}
	cmd.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "file, folder (with everything below it) or - to read from instead of a cluster; may be repeated")
	cmd.Flags().StringVarP(&o.output, "output", "o", outputText, "text, yaml or json")
	return cmd
}

const outputText = "text"

// printers write an explanation, by the value of -o.
var printers = map[string]func(io.Writer, *explain.PodExplanation) error{
	outputText: func(w io.Writer, x *explain.PodExplanation) error { return x.WriteText(w) },
	"yaml": func(w io.Writer, x *explain.PodExplanation) error {
		raw, err := yaml.Marshal(x)
		if err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	},
	"json": func(w io.Writer, x *explain.PodExplanation) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(x)
	},
}

func (o *explainOptions) run(ctx context.Context, args []string) error {
	printer, known := printers[o.output]
	if !known {
		return fmt.Errorf("-o %s is not an output; use text, yaml or json", o.output)
	}
	name, err := podName(args)
	if err != nil {
		return err
	}
	facts, err := o.facts(ctx, name)
	if err != nil {
		return err
	}
	x := explain.Explain(facts)
	if err := printer(o.Out, x); err != nil {
		return fmt.Errorf("writing the explanation: %w", err)
	}
	if x.ExitCode != explain.ExitIsolated {
		return exitCode(x.ExitCode)
	}
	return nil
}

// podName takes pod/NAME, "pod NAME" or NAME.
func podName(args []string) (string, error) {
	kind, name := "pod", ""
	switch len(args) {
	case 1:
		name = args[0]
		if before, after, found := strings.Cut(name, "/"); found {
			kind, name = before, after
		}
	case 2:
		kind, name = args[0], args[1]
	}
	switch {
	case name == "" || kind == "":
		return "", errors.New("say which pod to explain: kubectl incident explain pod/NAME -n NAMESPACE")
	case !slices.Contains([]string{"pod", "pods", "po"}, strings.ToLower(kind)):
		return "", fmt.Errorf("only pods can be explained, not %q; kubectl get pods shows the pods of a workload", kind)
	case strings.Contains(name, "/"):
		return "", fmt.Errorf("%q is not the name of a pod; give the namespace with -n", name)
	}
	return name, nil
}

func (o *explainOptions) facts(ctx context.Context, name string) (*explain.Facts, error) {
	if len(o.files) > 0 {
		files, err := explain.ReadFiles(o.files, o.In, *o.cluster.Namespace)
		if err != nil {
			return nil, err
		}
		return files.Facts(name)
	}
	namespace, _, err := o.cluster.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("finding a cluster: %w", err)
	}
	config, err := o.cluster.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding a cluster: %w; choose one with --kubeconfig or --context, or read from files with -f", err)
	}
	cluster, err := clusterOf(config)
	if err != nil {
		return nil, err
	}
	facts, err := cluster.Facts(ctx, types.NamespacedName{Namespace: namespace, Name: name})
	if _, unreachable := errors.AsType[*url.Error](err); unreachable {
		return nil, fmt.Errorf("%w; choose another cluster with --kubeconfig or --context, or read from files with -f", err)
	}
	return facts, err
}

// clusterOf makes clients. Discovery is asked anew each time: kubectl's cache would hide a policy API that was installed in the last hours.
func clusterOf(config *rest.Config) (explain.Cluster, error) {
	// The API server's priority and fairness protects it better than a limit on our side, which would keep a responder waiting.
	config.QPS, config.Burst = -1, -1
	// What an API server warns of is mostly the age of an API version; that is not what was asked.
	config.WarningHandler = rest.NoWarnings{}
	config.WarningHandlerWithContext = rest.NoWarnings{}
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		return explain.Cluster{}, fmt.Errorf("connecting to the cluster: %w", err)
	}
	other, err := dynamic.NewForConfig(config)
	if err != nil {
		return explain.Cluster{}, fmt.Errorf("connecting to the cluster: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return explain.Cluster{}, fmt.Errorf("connecting to the cluster: %w", err)
	}
	return explain.Cluster{Core: core, Dynamic: other, Discovery: kinds}, nil
}
