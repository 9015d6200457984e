package binaries

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAcceptVersion(t *testing.T) {
	cases := map[string]struct {
		output   string
		minMinor int
		want     string
		wantErr  bool
	}{
		"recent enough":         {output: "Kubernetes v1.36.3", minMinor: 36, want: "v1.36.3"},
		"newer":                 {output: "Client Version: v1.37.0\nKustomize Version: v5.8.1", minMinor: 36, want: "v1.37.0"},
		"a pre-release":         {output: "Kubernetes v1.37.0-rc.1", minMinor: 36, want: "v1.37.0-rc.1"},
		"too old":               {output: "Kubernetes v1.35.9", minMinor: 36, wantErr: true},
		"unstamped build":       {output: "Kubernetes v0.0.0-master+$Format:%H$", minMinor: 36, wantErr: true},
		"etcd without v":        {output: "etcd Version: 3.5.9\nGit SHA: x", want: "3.5.9"},
		"something else":        {output: "usage: foo", wantErr: true},
		"a number out of range": {output: "v99999999999999999999.1.1", minMinor: 36, want: "v99999999999999999999.1.1"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := acceptVersion(tc.output, tc.minMinor)
			if (err != nil) != tc.wantErr {
				t.Fatalf("acceptVersion() error = %v, want error: %v", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("acceptVersion() mismatch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLinkerFlags(t *testing.T) {
	want := "-s -w" +
		" -X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36" +
		" -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3 -X k8s.io/client-go/pkg/version.gitMajor=1 -X k8s.io/client-go/pkg/version.gitMinor=36"
	if diff := cmp.Diff(want, linkerFlags(kubernetesStampVars("v1.36.3"))); diff != "" {
		t.Errorf("linkerFlags() mismatch (-want +got):\n%s", diff)
	}
}

func TestPinnedVersion(t *testing.T) {
	goMod := []byte("module x\n\nrequire (\n\texample.org/a v1.2.3\n\texample.org/b v0.1.0 // indirect\n)\n")
	if got, err := pinnedVersion(goMod, "example.org/a"); err != nil || got != "v1.2.3" {
		t.Errorf("pinnedVersion() = %q, %v", got, err)
	}
	if _, err := pinnedVersion(goMod, "example.org/c"); err == nil {
		t.Error("a module that is not required was found")
	}
}

// TestCommittedPins makes sure that every program can be planned from the
// go.mod files in this repository.
func TestCommittedPins(t *testing.T) {
	for _, b := range all {
		if _, err := moduleStamp(filepath.Join("..", "..", "..", "build", b.folder), b.module); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
	}
}

func TestStampIsCurrent(t *testing.T) {
	made := stamp{Module: "m", Version: "v1", Go: "go1", OS: "linux", Arch: "amd64", Inputs: "abc"}
	cases := map[string]struct {
		want     stamp
		noFile   bool
		noStamp  bool
		upToDate bool
	}{
		"nothing changed":          {want: made, upToDate: true},
		"another module version":   {want: stamp{Module: "m", Version: "v2", Go: "go1", OS: "linux", Arch: "amd64", Inputs: "abc"}},
		"another compiler":         {want: stamp{Module: "m", Version: "v1", Go: "go2", OS: "linux", Arch: "amd64", Inputs: "abc"}},
		"other flags or sums":      {want: stamp{Module: "m", Version: "v1", Go: "go1", OS: "linux", Arch: "amd64", Inputs: "abd"}},
		"a ready-made one":         {want: stamp{Version: "v1", Asset: "/elsewhere"}},
		"the file is gone":         {want: made, noFile: true},
		"the build did not finish": {want: made, noStamp: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if err := os.Mkdir(filepath.Join(bin, ".controlplane"), 0o755); err != nil {
				t.Fatal(err)
			}
			if !tc.noFile {
				if err := os.WriteFile(filepath.Join(bin, "tool"), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if !tc.noStamp {
				if err := made.save(bin, "tool"); err != nil {
					t.Fatal(err)
				}
			}
			if got := tc.want.current(bin, "tool"); got != tc.upToDate {
				t.Errorf("current() = %v, want %v", got, tc.upToDate)
			}
		})
	}
}

func TestInputsDigestSeparatesItsParts(t *testing.T) {
	if inputsDigest([]byte("ab"), []byte("c"), nil) == inputsDigest([]byte("a"), []byte("bc"), nil) {
		t.Error("moving a byte between go.mod and go.sum kept the digest")
	}
}
