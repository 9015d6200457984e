package binaries

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/semver"
)

// stamp says what a file in the bin folder was made of. A file is made again
// when the stamp stored beside it differs from the one wanted.
type stamp struct {
	Module  string `json:"module,omitempty"`
	Version string `json:"version"`
	Go      string `json:"go,omitempty"`
	OS      string `json:"os,omitempty"`
	Arch    string `json:"arch,omitempty"`
	// Inputs is a digest of go.mod, go.sum and the build flags.
	Inputs string `json:"inputs,omitempty"`
	// Asset is the ready-made binary used instead of a build.
	Asset string `json:"asset,omitempty"`
}

// inputsDigest covers what decides the result of a build besides the compiler.
// Every part is preceded by its length, so that no two lists share a digest.
func inputsDigest(goMod, goSum []byte, args []string) string {
	hash := sha256.New()
	parts := [][]byte{goMod, goSum}
	for _, arg := range args {
		parts = append(parts, []byte(arg))
	}
	for _, part := range parts {
		fmt.Fprintf(hash, "%d\n", len(part))
		hash.Write(part)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// kubernetesStampVars sets the version that the server, its clients' user
// agents and kubectl report. Clients that parse versions fail without it.
func kubernetesStampVars(version string) []string {
	major, minor, _ := strings.Cut(strings.TrimPrefix(semver.MajorMinor(version), "v"), ".")
	var vars []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		vars = append(vars,
			pkg+".gitVersion="+version,
			pkg+".gitMajor="+major,
			pkg+".gitMinor="+minor,
		)
	}
	return vars
}

// linkerFlags drops symbol tables, which halves the files, and sets variables.
func linkerFlags(vars []string) string {
	flags := []string{"-s", "-w"}
	for _, v := range vars {
		flags = append(flags, "-X", v)
	}
	return strings.Join(flags, " ")
}

func stampPath(bin, name string) string {
	return filepath.Join(bin, ".controlplane", name+".stamp")
}

// current reports whether the named file exists and was made of exactly this.
func (s stamp) current(bin, name string) bool {
	if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
		return false
	}
	stored, err := os.ReadFile(stampPath(bin, name))
	return err == nil && bytes.Equal(stored, s.encode())
}

func (s stamp) encode() []byte {
	// A struct of strings always encodes.
	data, _ := json.MarshalIndent(s, "", "  ")
	return append(data, '\n')
}

func (s stamp) save(bin, name string) error {
	if err := os.WriteFile(stampPath(bin, name), s.encode(), 0o644); err != nil {
		return fmt.Errorf("save stamp of %s: %w", name, err)
	}
	return nil
}
