package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// person is somebody in whose name a command is run. Everybody but the platform engineer is impersonated, and has only the rights that
// manifests/people.yaml gives.
type person string

const (
	platformEngineer person = "platform-engineer"
	responder        person = "responder"
	approver         person = "approver"
	tenant           person = "tenant"
)

// kubectl shows a command, runs it in the demo's namespace, and shows what it printed.
func (d *demo) kubectl(ctx context.Context, who person, args ...string) error {
	_, _, err := d.shown(ctx, who, args...)
	return err
}

// shown is kubectl; it returns what was printed, and when the command was given.
func (d *demo) shown(ctx context.Context, who person, args ...string) (output string, given time.Time, err error) {
	blank()
	showCommand(who, args)
	given = time.Now()
	output, err = d.run(ctx, who, args...)
	quote(output)
	if err != nil {
		err = fmt.Errorf("kubectl %s, as %s: %w", args[0], who, err)
	}
	return output, given, err
}

// refused runs a command that the API server has to refuse, and returns an error when it did not, or for another reason than expected.
func (d *demo) refused(ctx context.Context, who person, because string, args ...string) error {
	output, _, err := d.shown(ctx, who, args...)
	switch {
	case err == nil:
		return errors.New("it was not refused")
	case !strings.Contains(output, because):
		return fmt.Errorf("it was refused, but not because of %q: %s", because, output)
	}
	return nil
}

func (d *demo) run(ctx context.Context, who person, args ...string) (string, error) {
	flags := []string{"--kubeconfig", d.server.Kubeconfig, "--namespace", namespace}
	if who != platformEngineer {
		flags = append(flags, "--as", string(who))
	}
	// After the name of the command, so that plugins get the flags too.
	args = slices.Concat(args[:1], flags, args[1:])
	bin := filepath.Join(d.server.Root, "bin")
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), args...)
	cmd.Dir = d.server.Root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+d.server.Kubeconfig, "KUBECACHEDIR="+filepath.Join(d.dir, "cache"),
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	output, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return string(output), err
}

// showCommand prints a command as one would type it, broken into lines where it is long.
func showCommand(who person, args []string) {
	line := fmt.Sprintf("  %s$ kubectl", who)
	for _, arg := range args {
		if strings.ContainsAny(arg, " \n{}[]\"*") {
			arg = "'" + arg + "'"
		}
		first, _, _ := strings.Cut(arg, "\n")
		_, tail, _ := cutLast(line, "\n")
		if utf8.RuneCountInString(tail)+1+utf8.RuneCountInString(first) > width-2 {
			line += " \\\n     "
		}
		line += " " + arg
	}
	fmt.Println(strings.ReplaceAll(line, "\n{", "\n      {"))
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return "", text, false
}
