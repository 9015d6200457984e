//go:build !linux

package main

import "syscall"

// childAttributes keeps Ctrl-C from reaching the manager: it is stopped in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
