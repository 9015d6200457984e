//go:build !linux

package cluster

import (
	"os/exec"
	"syscall"
)

// childAttributes: only Linux can tie the life of a child to this process, so
// elsewhere a SIGKILL of this tool leaves the components running.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

func spawn(cmd *exec.Cmd) error {
	return cmd.Start()
}
