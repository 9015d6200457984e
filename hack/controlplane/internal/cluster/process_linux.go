package cluster

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// childAttributes makes the kernel kill a component when this tool dies, even
// by SIGKILL. The process group of its own keeps Ctrl-C in a terminal from
// reaching the components, which have to stop in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

var (
	spawnRequests = make(chan func())
	startSpawner  sync.Once
)

// spawn starts the command on an operating system thread that lives as long as
// this process: the kernel sends Pdeathsig when the thread that started the
// child ends, and Go may end other threads at any time.
func spawn(cmd *exec.Cmd) error {
	startSpawner.Do(func() {
		go func() {
			runtime.LockOSThread()
			for request := range spawnRequests {
				request()
			}
		}()
	})
	result := make(chan error)
	spawnRequests <- func() { result <- cmd.Start() }
	return <-result
}
