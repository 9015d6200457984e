package command

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/controllers/custody"
)

// verifyOptions are the flags of verify.
type verifyOptions struct {
	*evidenceOptions
	keyIDs []string
	head   string
	roots  string
}

func newEvidenceVerify(evidence *evidenceOptions) *cobra.Command {
	o := &verifyOptions{evidenceOptions: evidence}
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Checks an archive, without a cluster, a store or a network",
		Long: `Checks an archive: that every byte is accounted for, that no entry of the ledger was changed, removed, inserted or moved, that the heads are signed and cover it, and that every item is
there as it was stored. It needs no cluster, no store and no network. If the archive is not genuine, it names the first bad entry or item and where it is.

Of the signed heads, of which there is one for each addition to the ledger, it tells how many there are, the first and the last, which key signed which entries, every
change of keys on a line of its own, and each time stamp.

The archive cannot say whose key has signed it, or whether its end was cut off together with the last heads. Give what you know from elsewhere, such as
status.custody of the Incident, with --key-id and --head.

The exit code is
  0  the archive is genuine
  1  the archive is not genuine
  2  the archive could not be read, or there was another error`,
		Example: `  kubectl incident evidence verify leak-4711.tar --key-id 5e0c… --head 145:sha256:9f2b…`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("say which archive to verify: kubectl incident evidence verify FILE")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return o.run(args[0])
		},
	}
	cmd.Flags().StringArrayVar(&o.keyIDs, "key-id", nil, "id of the key that has to have signed the last head; may be repeated, if keys were changed")
	cmd.Flags().StringVar(&o.head, "head", "", "number and digest of an entry as they were seen before, as NUMBER:sha256:DIGEST")
	cmd.Flags().StringVar(&o.roots, "roots", "", "file with the certificates, in PEM, that are trusted to vouch for time-stamp authorities")
	return cmd
}

func (o *verifyOptions) run(path string) error {
	options, err := o.options()
	if err != nil {
		return err
	}
	in, name := o.In, "standard input"
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		in, name = file, path
	}
	report, err := custody.VerifyArchive(in, options)
	if _, damaged := errors.AsType[*custody.DamageError](err); err != nil && !damaged {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := writeReport(o.Out, name, report); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if len(report.Problems) > 0 {
		return exitCode(exitNotGood)
	}
	return nil
}

func (o *verifyOptions) options() (custody.VerifyOptions, error) {
	var out custody.VerifyOptions
	for _, id := range o.keyIDs {
		id = strings.ToLower(strings.TrimSpace(id))
		if !isDigest(id) {
			return out, fmt.Errorf("--key-id %q is not the id of a key, which has 64 hexadecimal digits", id)
		}
		out.KeyIDs = append(out.KeyIDs, id)
	}
	if o.head != "" {
		number, text, _ := strings.Cut(o.head, ":")
		seq, err := strconv.ParseInt(number, 10, 64)
		text = strings.ToLower(strings.TrimPrefix(text, "sha256:"))
		if err != nil || seq < 1 || !isDigest(text) {
			return out, fmt.Errorf("--head %q is not a head; write it as NUMBER:sha256:DIGEST, as status.custody has entries and digest", o.head)
		}
		out.Head = &custody.Pin{Seq: seq, Digest: "sha256:" + text}
	}
	if o.roots != "" {
		raw, err := os.ReadFile(o.roots)
		if err != nil {
			return out, err
		}
		out.Roots = x509.NewCertPool()
		if !out.Roots.AppendCertsFromPEM(raw) {
			return out, fmt.Errorf("%s has no certificate in PEM", o.roots)
		}
	}
	return out, nil
}

func isDigest(text string) bool {
	return len(text) == 64 && strings.Trim(text, "0123456789abcdef") == ""
}

// maxShown bounds the problems that are printed.
const maxShown = 20

// writeReport prints a report for people.
func writeReport(w io.Writer, name string, r *custody.Report) error {
	p := &printer{w: w}
	if len(r.Problems) == 0 {
		p.linef("GENUINE: %s", name)
	} else {
		p.linef("NOT GENUINE: %s", name)
		p.linef("First: %v", r.Problems[0])
		for _, problem := range r.Problems[1:min(len(r.Problems), maxShown)] {
			p.linef("Then:  %v", problem)
		}
		if more := len(r.Problems) - maxShown; more > 0 {
			p.linef("and %d more", more)
		}
		p.linef("")
		p.linef("What follows is what could be read; it is not to be relied on.")
	}
	p.linef("")
	p.linef("Incident:  %s/%s, UID %s", r.Incident.Namespace, r.Incident.Name, r.Incident.UID)
	p.linef("Exported:  %s by %s", timeOf(r.ExportedAt), r.Tool)
	p.linef("Ledger:    %d entries, recorded from %s to %s", r.Entries, timeOf(r.First), timeOf(r.Last))
	p.linef("Last:      entry %d, %s", r.Entries, r.Digest)
	p.linef("Signed:    up to entry %d of %d", r.Signed, r.Entries)
	writeHeads(p, r.Heads)
	p.linef("Items:     %d, %s; %d encrypted, %d removed as the ledger tells", r.Items, sizeOf(r.ItemBytes), r.Encrypted, r.Removed)
	if len(r.Notes) > 0 {
		p.linef("")
		p.linef("Notes:")
	}
	for _, note := range r.Notes {
		p.linef("- %s", note)
	}
	return p.err
}

// writeHeads says what the heads cover. There is one for each addition to the ledger, so that only what differs between them is told: the first and the last, whose keys they are, and the time stamps.
func writeHeads(p *printer, heads []custody.HeadReport) {
	if len(heads) == 0 {
		return
	}
	first, last := &heads[0], &heads[len(heads)-1]
	if len(heads) == 1 {
		p.linef("Heads:     1, of entry %d at %s", first.Seq, timeOf(first.At))
	} else {
		p.linef("Heads:     %d, the first of entry %d at %s, the last of entry %d at %s", len(heads), first.Seq, timeOf(first.At), last.Seq, timeOf(last.At))
	}
	writeBounded(p, "keys", keyLines(heads))
	writeBounded(p, "time stamps", stampLines(heads))
}

// keyLines say which key signed which entries, in the order of the entries. A key that follows another one is a line of its own, also one that comes back: who reads this has to see every change. A head signs
// all entries up to its own that no head before it has signed.
func keyLines(heads []custody.HeadReport) []string {
	var lines []string
	from := int64(1)
	for i := range heads {
		h := &heads[i]
		if i+1 < len(heads) && heads[i+1].KeyID == h.KeyID {
			continue
		}
		what := "Signed by"
		if from > 1 {
			what = "then by"
		}
		lines = append(lines, fmt.Sprintf("%s the key %s: %s", what, h.KeyID, entriesText(from, h.Seq)))
		from = h.Seq + 1
	}
	return lines
}

func entriesText(from, to int64) string {
	if from == to {
		return fmt.Sprintf("entry %d", to)
	}
	return fmt.Sprintf("entries %d to %d", from, to)
}

func stampLines(heads []custody.HeadReport) []string {
	var lines []string
	for i := range heads {
		t := heads[i].Timestamp
		if t == nil {
			continue
		}
		by := "an authority whose certificate is not in it"
		if t.Authority != "" || t.Issuer != "" {
			by = fmt.Sprintf("%s, certified by %s", t.Authority, t.Issuer)
		}
		trust := "whether it can be trusted was not established"
		if t.Trusted {
			trust = "the given roots vouch for it"
		}
		lines = append(lines, fmt.Sprintf("Time stamp of %s on the head of entry %d, by %s: %s", timeOf(t.Time), heads[i].Seq, by, trust))
	}
	return lines
}

// writeBounded writes lines below another one. Of very many, which somebody may have made on purpose, it leaves out those in the middle: the first and the last ones say most.
func writeBounded(p *printer, what string, lines []string) {
	const most = 100
	for i, line := range lines {
		left := len(lines) - most
		switch {
		case left <= 0 || i < most/2 || i >= most/2+left:
			p.linef("  %s", line)
		case i == most/2:
			p.linef("  … %d %s are left out here …", left, what)
		}
	}
}
