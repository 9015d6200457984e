package binaries

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// plan lists every artifact with the stamp it should have. It runs the go
// command once and the ready-made binaries, and builds nothing.
func plan(ctx context.Context, opts Options) ([]artifact, error) {
	goVersion, err := goEnv(ctx, opts.Sources, "GOVERSION")
	if err != nil {
		return nil, err
	}
	var artifacts []artifact
	for _, b := range all {
		path, version, err := findAsset(ctx, opts.Assets, opts.Bin, b)
		if err != nil {
			fmt.Fprintf(opts.Log, "KUBEBUILDER_ASSETS: not used: %v\n", err)
		}
		if path != "" {
			artifacts = append(artifacts, linkArtifact(opts, b, path, version))
			continue
		}
		built, err := buildArtifact(opts, b, goVersion)
		if err != nil {
			return nil, err
		}
		artifacts = append(artifacts, built)
	}
	crds, err := crdsArtifact(opts)
	if err != nil {
		return nil, err
	}
	return append(artifacts, crds), nil
}

func linkArtifact(opts Options, b binary, asset, version string) artifact {
	return artifact{
		name: b.name, verb: "link to " + asset,
		want: stamp{Version: version, Asset: asset},
		make: func(context.Context) error {
			temp := tempPath(opts.Bin, b.name)
			_ = os.Remove(temp)
			if err := os.Symlink(asset, temp); err != nil {
				return err
			}
			return os.Rename(temp, filepath.Join(opts.Bin, b.name))
		},
	}
}

func buildArtifact(opts Options, b binary, goVersion string) (artifact, error) {
	dir := filepath.Join(opts.Sources, b.folder)
	want, err := moduleStamp(dir, b.module)
	if err != nil {
		return artifact{}, err
	}
	var vars []string
	if b.stampVars != nil {
		vars = b.stampVars(want.Version)
	}
	args := []string{"build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=" + linkerFlags(vars)}
	want.Go, want.OS, want.Arch = goVersion, runtime.GOOS, runtime.GOARCH
	want.Inputs += ":" + inputsDigest(nil, nil, args)

	return artifact{
		name: b.name, verb: "build", want: want,
		make: func(ctx context.Context) error {
			temp, err := filepath.Abs(tempPath(opts.Bin, b.name))
			if err != nil {
				return err
			}
			defer func() { _ = os.Remove(temp) }()
			if _, err := goCommand(ctx, dir, append(args, "-o", temp, b.pkg)...); err != nil {
				return err
			}
			return os.Rename(temp, filepath.Join(opts.Bin, b.name))
		},
	}, nil
}

// crdsArtifact copies the VolumeSnapshot definitions out of the module that
// publishes them, so that no copy of them has to live in this repository.
func crdsArtifact(opts Options) (artifact, error) {
	dir := filepath.Join(opts.Sources, "snapshotter")
	want, err := moduleStamp(dir, snapshotAPIModule)
	if err != nil {
		return artifact{}, err
	}
	want.Inputs += ":" + inputsDigest(nil, nil, []string{snapshotCRDsPattern})
	return artifact{
		name: snapshotCRDsFolder, verb: "copy", want: want,
		make: func(ctx context.Context) error {
			output, err := goCommand(ctx, dir, "mod", "download", "-json", snapshotAPIModule)
			if err != nil {
				return err
			}
			var module struct{ Dir string }
			if err := json.Unmarshal(output, &module); err != nil {
				return fmt.Errorf("read answer of go mod download: %w", err)
			}
			return copyCRDs(filepath.Join(module.Dir, "config", "crd"), filepath.Join(opts.Bin, snapshotCRDsFolder))
		},
	}, nil
}

func copyCRDs(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, snapshotCRDsPattern))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no %s in %s", snapshotCRDsPattern, from)
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// moduleStamp describes what a pinned module resolves to.
func moduleStamp(dir, module string) (stamp, error) {
	goMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return stamp{}, fmt.Errorf("read pinned modules: %w", err)
	}
	goSum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return stamp{}, fmt.Errorf("read pinned modules: %w", err)
	}
	version, err := pinnedVersion(goMod, module)
	if err != nil {
		return stamp{}, fmt.Errorf("%s: %w", dir, err)
	}
	return stamp{Module: module, Version: version, Inputs: inputsDigest(goMod, goSum, nil)}, nil
}

func tempPath(bin, name string) string {
	return filepath.Join(bin, ".controlplane", name+".tmp")
}

func goEnv(ctx context.Context, dir, name string) (string, error) {
	output, err := goCommand(ctx, dir, "env", name)
	return strings.TrimSpace(string(output)), err
}

// goCommand runs the go command for this machine, whatever the caller's
// environment says about workspaces, targets or flags: the same pinned inputs
// have to give the same programs everywhere.
func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		// An empty GOFLAGS would fall back to the one of "go env -w".
		"GOFLAGS=-mod=readonly", "GOWORK=off", "GO111MODULE=on", "CGO_ENABLED=0",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	// Interrupted rather than killed, go removes its work folder and keeps what
	// it has compiled so far, so that the next attempt continues from there.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, errors.New("interrupted; repeat the command to continue")
		}
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, tail(stderr.String(), 4096))
	}
	return stdout.Bytes(), nil
}

func tail(text string, limit int) string {
	if len(text) > limit {
		text = "..." + text[len(text)-limit:]
	}
	return strings.TrimSpace(text)
}
