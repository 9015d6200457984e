// Package binaries makes sure that the programs of the local control plane
// exist: it takes them from KUBEBUILDER_ASSETS or builds them from pinned Go
// modules, and builds again only when something they are made of changed.
package binaries

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/modfile"
)

// binary is one program of the control plane.
type binary struct {
	name   string // file name in the bin folder
	folder string // folder under hack/build whose go.mod pins the module
	module string
	pkg    string
	// stampVars are the string variables set at link time, as a function of
	// the module's version. Without them the programs do not know what they are.
	stampVars func(version string) []string
	// minMinor is the oldest 1.x release that a ready-made binary may report;
	// zero accepts every version.
	minMinor int
}

const (
	kubernetesModule   = "k8s.io/kubernetes"
	snapshotterModule  = "github.com/kubernetes-csi/external-snapshotter/v8"
	snapshotAPIModule  = "github.com/kubernetes-csi/external-snapshotter/client/v8"
	snapshotCRDsFolder = "snapshot-crds"
	minKubernetesMinor = 36
	// snapshotCRDsPattern finds the definitions of snapshots and of group snapshots.
	snapshotCRDsPattern = "*snapshot.storage.k8s.io_*.yaml"
)

// all lists the programs in the order in which they are built.
var all = []binary{
	{name: "etcd", folder: "etcd", module: "go.etcd.io/etcd/server/v3", pkg: "go.etcd.io/etcd/server/v3"},
	kubernetesBinary("kube-apiserver"),
	kubernetesBinary("kube-controller-manager"),
	kubernetesBinary("kube-scheduler"),
	kubernetesBinary("kubectl"),
	{
		name: "snapshot-controller", folder: "snapshotter",
		module: snapshotterModule, pkg: snapshotterModule + "/cmd/snapshot-controller",
		stampVars: func(version string) []string { return []string{"main.version=" + version} },
	},
}

func kubernetesBinary(name string) binary {
	return binary{
		name: name, folder: "kubernetes",
		module: kubernetesModule, pkg: kubernetesModule + "/cmd/" + name,
		stampVars: kubernetesStampVars,
		minMinor:  minKubernetesMinor,
	}
}

// FindSources returns the hack/build folder with the pinned modules: it looks
// in the working directory, then beside the running program, then upwards of
// each, so that the tool works from anywhere inside a checkout.
func FindSources() (string, error) {
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	for _, start := range starts {
		for dir := start; ; dir = filepath.Dir(dir) {
			candidate := filepath.Join(dir, "hack", "build")
			if _, err := os.Stat(filepath.Join(candidate, "kubernetes", "go.mod")); err == nil {
				return candidate, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("no hack/build folder found upwards of the working directory; run this inside a checkout or pass --sources")
}

// pinnedVersion reads the version of a module from the go.mod that pins it, so
// that a version is written down in one place only.
func pinnedVersion(goMod []byte, module string) (string, error) {
	file, err := modfile.ParseLax("go.mod", goMod, nil)
	if err != nil {
		return "", fmt.Errorf("parse go.mod: %w", err)
	}
	for _, require := range file.Require {
		if require.Mod.Path == module {
			return require.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("go.mod does not require %s", module)
}
