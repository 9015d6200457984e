// Package guard holds the admission policies that are shipped, so that the operator can compare a cluster with exactly these files.
package guard

import (
	"embed"
	"fmt"
)

// Its subfolder is not among them: servers before Kubernetes 1.36 run without it.
//
//go:embed *.yaml
var files embed.FS

// kustomization lists the other files; it is not installed itself.
const kustomization = "kustomization.yaml"

// Manifests returns the content of every file that config/guard installs, by file name.
func Manifests() map[string][]byte {
	out := map[string][]byte{}
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(fmt.Sprintf("an embedded folder can always be read: %v", err))
	}
	for _, entry := range entries {
		if entry.Name() == kustomization {
			continue
		}
		content, err := files.ReadFile(entry.Name())
		if err != nil {
			panic(fmt.Sprintf("an embedded file can always be read: %v", err))
		}
		out[entry.Name()] = content
	}
	return out
}
