package main

import (
	"runtime"
	"syscall"
)

// The kernel sends Pdeathsig when the thread that started the child ends. main runs on the thread that lives as long as the process.
func init() { runtime.LockOSThread() }

// childAttributes makes the kernel end the manager when the demo is killed, and keeps Ctrl-C from reaching it: it is stopped in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
