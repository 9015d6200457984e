package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
)

// Values of -o for people.
const (
	outputTable = "table"
	// outputWide is a table with the columns that are too wide for most screens.
	outputWide = "wide"
)

// evidenceList is what "evidence list" prints for programs.
type evidenceList struct {
	APIVersion string                  `json:"apiVersion"`
	Kind       string                  `json:"kind"`
	Incident   v1alpha1.ObjectRef      `json:"incident"`
	Custody    *v1alpha1.CustodyStatus `json:"custody,omitempty"`
	Items      []v1alpha1.EvidenceItem `json:"items"`
}

func newEvidenceList(o *evidenceOptions) *cobra.Command {
	var output string
	const usage = "list INCIDENT [-n NAMESPACE] [-o wide]"
	cmd := &cobra.Command{
		Use:   usage,
		Short: "Lists the evidence of an incident and the head of its ledger",
		Long: `Lists the evidence of an incident, as its status has it, and the head of its ledger. Keep the head: whoever knows it can tell later whether the ledger was
cut off.

The table has the first digits of digests and the beginning of messages; -o wide adds the name of each item and where it is kept, and -o yaml and -o json have everything
in full.

The exit code is 0, or 2 after an error.`,
		Example: `  kubectl incident evidence list leak-4711 -n security

  # With the names of the items and where they are kept
  kubectl incident evidence list leak-4711 -n security -o wide`,
		Args: oneIncident(usage),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.list(cmd.Context(), args[0], output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", outputTable, "table, wide, yaml or json")
	return cmd
}

func (o *evidenceOptions) list(ctx context.Context, arg, output string) error {
	printList, known := map[string]func(*evidenceList) error{
		outputTable: func(list *evidenceList) error { return o.printTable(list, false) },
		outputWide:  func(list *evidenceList) error { return o.printTable(list, true) },
		"yaml":      o.printYAML, "json": o.printJSON,
	}[output]
	if !known {
		return fmt.Errorf("-o %s is not an output; use table, wide, yaml or json", output)
	}
	name, err := incidentName(arg)
	if err != nil {
		return err
	}
	incident, err := o.incident(ctx, name)
	if err != nil {
		return err
	}
	list := &evidenceList{
		APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "EvidenceList",
		Incident: v1alpha1.ObjectRef{Kind: "Incident", Namespace: incident.Namespace, Name: incident.Name, UID: string(incident.UID)},
		Custody:  incident.Status.Custody, Items: incident.Status.Evidence,
	}
	if list.Items == nil {
		list.Items = []v1alpha1.EvidenceItem{}
	}
	if err := printList(list); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	return nil
}

func (o *evidenceOptions) printYAML(list *evidenceList) error {
	document, err := cleaned(list)
	if err != nil {
		return err
	}
	// By way of JSON, so that numbers keep their form.
	raw, err := json.Marshal(document)
	if err != nil {
		return err
	}
	if raw, err = yaml.JSONToYAML(raw); err != nil {
		return err
	}
	_, err = o.Out.Write(raw)
	return err
}

func (o *evidenceOptions) printJSON(list *evidenceList) error {
	document, err := cleaned(list)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(o.Out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}

func (o *evidenceOptions) printTable(list *evidenceList, wide bool) error {
	p := &printer{w: o.Out}
	if len(list.Items) == 0 {
		p.linef("Incident %s/%s has no evidence yet.", list.Incident.Namespace, list.Incident.Name)
	} else {
		for line := range strings.Lines(table(list.Items, wide)) {
			p.linef("%s", strings.TrimRight(line, " \n"))
		}
	}
	p.linef("")
	c := list.Custody
	if c == nil {
		p.linef("Nothing is in the ledger yet.")
		return p.err
	}
	p.linef("Ledger:  %d entries; the last one has the digest %s", c.Entries, c.Digest)
	if c.KeyID == "" {
		p.linef("Signed:  no")
	} else {
		stamp := ""
		if !c.AttestedAt.IsZero() {
			stamp = ", with a time stamp of " + timeOf(c.AttestedAt.Time)
		}
		p.linef("Signed:  at %s by the key %s%s", timeOf(c.SignedAt.Time), c.KeyID, stamp)
	}
	p.linef("Store:   %s", c.Store)
	return p.err
}

// table lays items out in columns. What is in them is cleaned first, so that the columns are as wide as they look. The names of items and their places have UIDs and digests in them, so they are only in the
// wide one.
func table(items []v1alpha1.EvidenceItem, wide bool) string {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 8, 3, ' ', 0)
	header := []string{"TYPE", "SUBJECT", "STATE", "SIZE", "TAKEN AT", "DIGEST", "MESSAGE"}
	if wide {
		header = append(header, "ITEM", "LOCATION")
	}
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for i := range items {
		item := &items[i]
		size := "-"
		if item.Size > 0 {
			size = sizeOf(item.Size)
		}
		cells := []string{
			string(item.Type), subjectText(&item.Subject), string(item.State), size, timeOf(item.TakenAt.Time), orDash(shortDigest(item.Digest)), cut(item.Message),
		}
		if wide {
			cells = append(cells, item.ID, orDash(item.Location))
		}
		for i := range cells {
			cells[i] = explain.Clean(cells[i])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // into memory
	return out.String()
}

func orDash(text string) string { return cmp.Or(text, "-") }

// cut shortens a message to what a table has room for.
func cut(message string) string {
	const room = 60
	runes := []rune(message)
	if len(runes) > room {
		runes = append(runes[:room-1:room-1], '…')
	}
	return string(runes)
}

// subjectText is kind/namespace/name, or kind/name for what has no namespace.
func subjectText(ref *v1alpha1.ObjectRef) string {
	if ref.Namespace == "" {
		return ref.Kind + "/" + ref.Name
	}
	return ref.Kind + "/" + ref.Namespace + "/" + ref.Name
}
