package binaries

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

var reportedVersion = regexp.MustCompile(`v?(\d+)\.(\d+)\.\d+[0-9A-Za-z.+-]*`)

// findAsset returns the ready-made binary of that name and the version it
// reports. It returns "" when there is none, and an error that says why when
// there is one that cannot be used.
func findAsset(ctx context.Context, assets, bin string, b binary) (path, version string, err error) {
	if assets == "" || sameFolder(assets, bin) {
		return "", "", nil
	}
	path, err = filepath.Abs(filepath.Join(assets, b.name))
	if err != nil {
		return "", "", fmt.Errorf("resolve %s: %w", assets, err)
	}
	if _, err := os.Stat(path); err != nil {
		return "", "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	output, err := exec.CommandContext(ctx, path, versionArgs(b.name)...).Output()
	if err != nil {
		return "", "", fmt.Errorf("%s does not run: %w", path, err)
	}
	version, err = acceptVersion(string(output), b.minMinor)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", path, err)
	}
	return path, version, nil
}

func versionArgs(name string) []string {
	if name == "kubectl" {
		return []string{"version", "--client"}
	}
	return []string{"--version"}
}

// acceptVersion finds the version in what a program printed and checks that it
// is 1.minMinor or later; minMinor zero accepts any.
func acceptVersion(output string, minMinor int) (string, error) {
	match := reportedVersion.FindStringSubmatch(output)
	if match == nil {
		return "", fmt.Errorf("no version in %q", output)
	}
	// The expression only matches digits, and numbers out of range are refused
	// below as too small.
	major, _ := strconv.Atoi(match[1])
	minor, _ := strconv.Atoi(match[2])
	if minMinor > 0 && (major < 1 || major == 1 && minor < minMinor) {
		return "", fmt.Errorf("reports %s, older than v1.%d", match[0], minMinor)
	}
	return match[0], nil
}

// sameFolder guards against linking a binary to itself when KUBEBUILDER_ASSETS
// points at the folder that this tool fills.
func sameFolder(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
