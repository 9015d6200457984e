package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
)

// exitNotGood is the exit code that says that an archive is not genuine, or that what was exported is not complete. Every error has the code explain.ExitUnknown.
const exitNotGood = 1

// evidenceOptions are what the commands below evidence have in common.
type evidenceOptions struct {
	genericiooptions.IOStreams
	cluster *genericclioptions.ConfigFlags
	// now tells the time.
	now func() time.Time
}

func newEvidence(streams genericiooptions.IOStreams, cluster *genericclioptions.ConfigFlags) *cobra.Command {
	o := &evidenceOptions{IOStreams: streams, cluster: cluster, now: time.Now}
	cmd := &cobra.Command{
		Use:   "evidence",
		Short: "Lists, exports and verifies the evidence of an incident",
		Long: `Lists, exports and verifies the evidence of an incident.

An exported archive holds the ledger of the incident, its signed heads, the evidence and instructions in plain text. Whoever gets it can check it without
Cofferdam, the cluster and the store.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	cmd.AddCommand(newEvidenceList(o), newEvidenceExport(o), newEvidenceVerify(o))
	return cmd
}

// incidentName takes NAME, incident/NAME or inc/NAME.
func incidentName(arg string) (string, error) {
	name := arg
	if kind, after, found := strings.Cut(arg, "/"); found {
		switch strings.ToLower(kind) {
		case "incident", "incidents", "inc":
			name = after
		default:
			return "", fmt.Errorf("%q is not the name of an Incident; give the namespace with -n", arg)
		}
	}
	if name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is not the name of an Incident", arg)
	}
	return name, nil
}

// oneIncident checks that exactly one Incident is named.
func oneIncident(usage string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("say which incident is meant: kubectl incident evidence %s", usage)
		}
		return nil
	}
}

// incident reads an Incident from the cluster.
func (o *evidenceOptions) incident(ctx context.Context, name string) (*v1alpha1.Incident, error) {
	namespace, _, err := o.cluster.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("finding a cluster: %w", err)
	}
	config, err := o.cluster.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding a cluster: %w; choose one with --kubeconfig or --context", err)
	}
	cluster, err := clusterOf(config)
	if err != nil {
		return nil, err
	}
	found, err := cluster.Dynamic.Resource(v1alpha1.SchemeGroupVersion.WithResource("incidents")).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading Incident %s/%s: %w", namespace, name, err)
	}
	incident := &v1alpha1.Incident{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, incident); err != nil {
		return nil, fmt.Errorf("reading Incident %s/%s: %w", namespace, name, err)
	}
	return incident, nil
}

// cleaned is a document with every string fit for a terminal.
func cleaned(document any) (any, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	var value any
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber() // a size of many gigabytes stays a whole number
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return cleanedValue(value), nil
}

func cleanedValue(value any) any {
	switch v := value.(type) {
	case string:
		return explain.Clean(v)
	case []any:
		for i := range v {
			v[i] = cleanedValue(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = cleanedValue(v[key])
		}
	}
	return value
}

// sizeOf is a size for people.
func sizeOf(bytes int64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, prefixes := float64(bytes)/unit, "KMGTPE"
	for value >= unit && len(prefixes) > 1 {
		value, prefixes = value/unit, prefixes[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, prefixes[0])
}

// shortDigest is the beginning of a digest, which is enough to tell items apart.
func shortDigest(digest string) string {
	const digits = 12
	short := strings.TrimPrefix(digest, "sha256:")
	return short[:min(digits, len(short))]
}

// timeOf is a time for people; "-" if it is not known.
func timeOf(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// printer writes lines, each of them clean, and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

// linef writes a line. Only what is put into the format can be unclean, so cleaning the whole is enough.
func (p *printer) linef(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, explain.Clean(fmt.Sprintf(format, args...)))
	}
}
