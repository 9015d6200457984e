package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Exit codes of kubectl incident evidence verify.
const (
	exitGenuine  = 0
	exitDamaged  = 1
	archiveName  = "evidence-" + incidentName + ".tar"
	tamperedName = "evidence-" + incidentName + "-tampered.tar"
)

// handOver exports the evidence into one file, and looks whether the file can be trusted by somebody who trusts nobody.
func (d *demo) handOver(ctx context.Context) error {
	inc := d.closed
	if err := d.kubectl(ctx, responder, "incident", "evidence", "list", incidentName); err != nil {
		return err
	}
	dist := filepath.Join(d.server.Root, "dist")
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return fmt.Errorf("make the folder for the archive: %w", err)
	}
	d.archive = filepath.Join(dist, archiveName)
	if err := d.kubectl(ctx, responder, "incident", "evidence", "export", incidentName, "-o", "dist/"+archiveName, "--force"); err != nil {
		return err
	}
	err := d.verified(ctx, archiveName, exitGenuine, "--key-id", inc.Status.Custody.KeyID,
		"--head", fmt.Sprintf("%d:%s", inc.Status.Custody.Entries, inc.Status.Custody.Digest))
	d.check("kubectl incident evidence verify accepts the archive, offline, with the key and the head that the Incident's status names", err)
	d.check("the demo itself finds every stored item of status.evidence in the archive, with its digest", d.archived(inc))
	if err := flipByte(d.archive, filepath.Join(dist, tamperedName)); err != nil {
		return err
	}
	d.check("after one bit of one byte is changed, it is refused, and the place is named", d.verified(ctx, tamperedName, exitDamaged))
	if err := os.Remove(filepath.Join(dist, tamperedName)); err != nil {
		return fmt.Errorf("remove the changed copy: %w", err)
	}
	blank()
	say("The archive is dist/%s. README.txt in it says how to check it without Cofferdam.", archiveName)
	return d.deleteIncident(ctx, inc)
}

// verified runs kubectl incident evidence verify, and returns an error when it ends with another code than expected.
func (d *demo) verified(ctx context.Context, name string, code int, flags ...string) error {
	_, _, err := d.shown(ctx, responder, append([]string{"incident", "evidence", "verify", "dist/" + name}, flags...)...)
	got := exitGenuine
	if exit, failed := errors.AsType[*exec.ExitError](err); failed {
		got, err = exit.ExitCode(), nil
	}
	if err == nil && got != code {
		err = fmt.Errorf("it exited with %d", got)
	}
	return err
}

// archived says which item of status is not in the archive as it should be.
func (d *demo) archived(inc *v1alpha1.Incident) error {
	found, err := digestsIn(d.archive)
	if err != nil {
		return err
	}
	var problems []error
	items := 0
	for _, e := range inc.Status.Evidence {
		if !strings.HasPrefix(e.Location, "incidents/") {
			continue
		}
		items++
		if name := "items/" + strings.TrimPrefix(e.Digest, "sha256:"); found[name] != e.Digest {
			problems = append(problems, fmt.Errorf("%s of %s %s is not there as %s", e.Type, e.Subject.Kind, e.Subject.Name, name))
		}
	}
	if items == 0 {
		problems = append(problems, errors.New("status names no item that is in the store"))
	}
	return errors.Join(problems...)
}

// digestsIn computes the digest of every member of a tar archive.
func digestsIn(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	out := map[string]string{}
	for members := tar.NewReader(file); ; {
		header, err := members.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the archive: %w", err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, members); err != nil {
			return nil, fmt.Errorf("read %s in the archive: %w", header.Name, err)
		}
		out[header.Name] = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	}
}

// flipByte copies a file and changes one bit in the middle of the copy.
func flipByte(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(to, content, 0o600); err != nil {
		return fmt.Errorf("write the changed copy: %w", err)
	}
	return nil
}
