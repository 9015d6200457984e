package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/explain"
	"cofferdam.dev/cofferdam/controllers/store"
)

// exportOptions are the flags of export.
type exportOptions struct {
	*evidenceOptions
	output string
	store  string
	uid    string
	force  bool
}

func newEvidenceExport(evidence *evidenceOptions) *cobra.Command {
	o := &exportOptions{evidenceOptions: evidence}
	const usage = "export INCIDENT -o FILE [-n NAMESPACE] [--store URL]"
	cmd := &cobra.Command{
		Use:   usage,
		Short: "Writes the evidence and the ledger of an incident into one archive",
		Long: `Writes the evidence and the ledger of an incident into one archive, a tar file with instructions to check it without Cofferdam.

It reads the store of status.custody of the Incident, or the one of --store, with the credentials that it finds in your environment. With --incident-uid and
--store it needs no cluster. Nothing is changed in the store, and the file has its name only once it is complete.

Of a ledger that is damaged, what there is goes into the archive: the entries before the damage, whatever follows them, the objects of the ledger as they are in the store,
and every item. The archive and the error output say where the damage begins.

The exit code is
  0  the archive is complete
  1  the archive was written, but the ledger is damaged, something is missing in the store, or the ledger does not fit what the Incident knows of it: verify will not accept it
  2  there is no archive, because of an error`,
		Example: `  kubectl incident evidence export leak-4711 -n security -o leak-4711.tar

  # Without a cluster, from a copy of the store
  kubectl incident evidence export --incident-uid 0f9a1c52-8f5e-4a62-9d0b-6f1c2f3e4d5a --store file:///mnt/evidence -o leak-4711.tar`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.uid != "" && len(args) == 0 {
				return nil
			}
			return oneIncident(usage)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the file to write; required")
	cmd.Flags().StringVar(&o.store, "store", "", "URL of the evidence store, if it is not that of status.custody: file:///DIRECTORY, s3://BUCKET, gs://BUCKET or azblob://CONTAINER, each with parameters")
	cmd.Flags().StringVar(&o.uid, "incident-uid", "", "UID of the Incident; no cluster is asked then, and --store has to be given")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace the file if it exists")
	return cmd
}

// source is where an export comes from.
type source struct {
	incident custody.Incident
	store    string
	// custody is what the Incident knows of its ledger; nil if it was not asked.
	custody *v1alpha1.CustodyStatus
}

func (o *exportOptions) run(ctx context.Context, args []string) error {
	switch {
	case o.output == "" || o.output == "-":
		return errors.New("say which file to write with -o FILE")
	case !o.force && exists(o.output):
		return fmt.Errorf("%s exists; choose another file, or replace it with --force", o.output)
	}
	from, err := o.source(ctx, args)
	if err != nil {
		return err
	}
	if err := checkLocalStore(from.store); err != nil {
		return err
	}
	s, err := store.Open(ctx, from.store, store.Options{})
	if err != nil {
		return fmt.Errorf("opening the evidence store: %w", err)
	}
	done, err := o.write(ctx, s, from)
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	return o.tell(from, done)
}

// source finds out what to export.
func (o *exportOptions) source(ctx context.Context, args []string) (*source, error) {
	from := &source{store: o.store}
	var err error
	if len(args) == 1 {
		if from.incident.Name, err = incidentName(args[0]); err != nil {
			return nil, err
		}
	}
	if o.uid != "" {
		if o.store == "" {
			return nil, errors.New("with --incident-uid no cluster is asked, so the evidence store has to be given with --store")
		}
		from.incident.UID = o.uid
		from.incident.Namespace = *o.cluster.Namespace
		return from, nil
	}
	incident, err := o.incident(ctx, from.incident.Name)
	if err != nil {
		return nil, err
	}
	from.incident = custody.Incident{Namespace: incident.Namespace, Name: incident.Name, UID: string(incident.UID)}
	from.custody = incident.Status.Custody
	if from.store == "" && from.custody != nil {
		from.store = from.custody.Store
	}
	if from.store == "" {
		return nil, fmt.Errorf("the status of Incident %s/%s names no evidence store, so nothing is in its ledger yet; another store can be given with --store", incident.Namespace, incident.Name)
	}
	return from, nil
}

// checkLocalStore says what is wrong with a directory that is not here. The store would make an empty one.
func checkLocalStore(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return nil //nolint:nilerr // opening the store says what is wrong with it
	}
	if u.Scheme != "file" {
		return nil
	}
	if info, err := os.Stat(filepath.FromSlash(u.Path)); err != nil || !info.IsDir() {
		return fmt.Errorf("the evidence store %s is a directory that is not on this machine, such as the operator's own volume; mount or copy it, and give it with --store file:///DIRECTORY", raw)
	}
	return nil
}

// write writes the archive under another name and renames it.
func (o *exportOptions) write(ctx context.Context, s custody.Objects, from *source) (done *custody.Exported, err error) {
	dir := filepath.Dir(o.output)
	file, err := os.CreateTemp(dir, ".evidence-*.part") // readable for its owner alone
	if err != nil {
		return nil, err
	}
	defer func() {
		// Nothing is left after an error. After success the name is gone already.
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	options := custody.ExportOptions{Now: o.now(), Tool: toolName(), Progress: newProgress(o.evidenceOptions).tell}
	if from.custody != nil {
		options.Head = &custody.Pin{Seq: from.custody.Entries, Digest: from.custody.Digest}
	}
	done, err = custody.Export(ctx, s, from.incident, file, options)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return nil, fmt.Errorf("writing %s: %w", file.Name(), err)
	}
	if err := o.place(file.Name()); err != nil {
		return nil, err
	}
	return done, syncDir(dir)
}

// place gives the file its name. Without --force, a file that has appeared meanwhile is kept.
func (o *exportOptions) place(temporary string) error {
	if o.force {
		return os.Rename(temporary, o.output)
	}
	err := os.Link(temporary, o.output)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist) || exists(o.output):
		return fmt.Errorf("%s exists; choose another file, or replace it with --force", o.output)
	}
	// A file system without hard links.
	return os.Rename(temporary, o.output)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// syncDir makes the name of a file durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// tell says what was written and how to verify it.
func (o *exportOptions) tell(from *source, done *custody.Exported) error {
	p := &printer{w: o.Out}
	p.linef("%s: %s, %d entries, %d items%s", o.output, sizeOf(done.Size), done.Entries, done.Items, removedText(done.Removed))
	p.linef("Verify it, here or anywhere else, with")
	p.linef("  %s", verifyCommand(o.output, from.custody))
	if from.custody == nil {
		p.linef("and, if they are known from elsewhere, such as status.custody of the Incident, with --key-id ID and --head ENTRIES:DIGEST.")
	}
	if p.err != nil {
		return fmt.Errorf("writing the result: %w", p.err)
	}
	if warned := o.warn(from, done); warned {
		return exitCode(exitNotGood)
	}
	return nil
}

func removedText(removed int) string {
	if removed == 0 {
		return ""
	}
	return fmt.Sprintf(", %d more were removed as the ledger tells", removed)
}

// warn says on the error output what is not as it should be, and whether verify will refuse the archive for it.
func (o *exportOptions) warn(from *source, done *custody.Exported) (refused bool) {
	p := &printer{w: o.ErrOut}
	if done.Damage != nil {
		p.linef("WARNING: the ledger is damaged; what there is of it was exported, of which %d entries are in order before the damage: %v", done.Entries, done.Damage)
	}
	if done.HeadProblem != nil {
		p.linef("WARNING: the ledger in the store is not the one that the Incident knows: %v", done.HeadProblem)
	}
	foreign := from.custody != nil && from.custody.KeyID != "" && done.KeyID != "" && done.KeyID != from.custody.KeyID
	if foreign {
		p.linef("WARNING: the end of the ledger is signed by the key %s, and the Incident knows the key %s. Unless the operator's key was just replaced, somebody else has written it.", done.KeyID, from.custody.KeyID)
	}
	const most = 20
	for i, digest := range slices.Sorted(maps.Keys(done.Missing)) {
		if i == most {
			p.linef("WARNING: %d more items are missing", len(done.Missing)-most)
			break
		}
		p.linef("WARNING: an item is missing: %s: %s", digest, done.Missing[digest])
	}
	for _, key := range done.Incomplete {
		p.linef("WARNING: the ledger is not complete: %s was cut off when it was written, or is somebody else's. The operator writes what is missing on its next pass; export again then.", key)
	}
	if done.Unsigned > 0 {
		p.linef("The last %d entries are not signed yet.", done.Unsigned)
	}
	return foreign || done.Damage != nil || done.HeadProblem != nil || len(done.Missing)+len(done.Incomplete) > 0
}

// verifyCommand is the command to verify an archive with everything that the Incident knows.
func verifyCommand(path string, known *v1alpha1.CustodyStatus) string {
	command := "kubectl incident evidence verify " + quoted(path)
	if known == nil {
		return command
	}
	if known.KeyID != "" {
		command += " --key-id " + quoted(known.KeyID)
	}
	return command + " --head " + quoted(fmt.Sprintf("%d:%s", known.Entries, known.Digest))
}

// quoted is a word for a shell.
func quoted(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// toolName is this program and its version.
func toolName() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return "kubectl-incident " + info.Main.Version
	}
	return "kubectl-incident"
}

// progressInterval is how long an export is silent, and how often it says then how far it is.
const progressInterval = 2 * time.Second

// progress says how far an export is.
type progress struct {
	o    *evidenceOptions
	last time.Time
}

func newProgress(o *evidenceOptions) *progress { return &progress{o: o, last: o.now()} }

func (p *progress) tell(step string, done, total int64) {
	now := p.o.now()
	if now.Sub(p.last) < progressInterval {
		return
	}
	p.last = now
	fmt.Fprintln(p.o.ErrOut, explain.Clean(fmt.Sprintf("%s: %s of %s", step, sizeOf(done), sizeOf(total))))
}
