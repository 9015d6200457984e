package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is one running component.
type process struct {
	name    string
	logPath string
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
	err     error         // why; set before done is closed
}

// startProcess runs the program with its output in the log file and calls
// onExit when it ends.
func startProcess(name, program, logPath string, args []string, onExit func(*process)) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the child has its own copy
	fmt.Fprintf(log, "+ %s %s\n", program, strings.Join(args, " "))

	p := &process{name: name, logPath: logPath, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = childAttributes()
	if err := spawn(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
		onExit(p)
	}()
	return p, nil
}

// stop asks the process to end, and makes it after the grace period.
func (p *process) stop(grace time.Duration) {
	// An error means that it has ended already.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// logTailSize is how much of a failed component's log is shown.
const logTailSize = 4096

// exitError describes a component that ended although nobody asked it to.
type exitError struct {
	name, logPath, tail string
	err                 error
}

func newExitError(p *process) *exitError {
	return &exitError{name: p.name, logPath: p.logPath, tail: fileTail(p.logPath, logTailSize), err: p.err}
}

func (e *exitError) Error() string {
	how := "ended without an error"
	if e.err != nil {
		how = e.err.Error()
	}
	return fmt.Sprintf("%s stopped: %s; end of %s:\n%s", e.name, how, e.logPath, e.tail)
}

func (e *exitError) Unwrap() error { return e.err }

// portTaken reports whether the component ended because someone else took a
// port that was free when it was chosen.
func (e *exitError) portTaken() bool {
	return strings.Contains(e.tail, "address already in use")
}

func fileTail(path string, size int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(data) > size {
		data = data[len(data)-size:]
	}
	return strings.TrimSpace(string(data))
}
