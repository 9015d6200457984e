// Package cluster runs a Kubernetes control plane as child processes of this
// one, on loopback ports, for development and tests.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cofferdam.dev/cofferdam/hack/controlplane/internal/sim"
)

// Options describe the control plane to run.
type Options struct {
	Bin          string    // folder with the programs
	Dir          string    // state folder; emptied at every start
	Kubeconfig   string    // where the administrator's kubeconfig goes
	Nodes        int       // number of simulated nodes
	SnapshotCRDs bool      // install the VolumeSnapshot API and its controller
	Log          io.Writer // progress
}

// Cluster is a running control plane.
type Cluster struct {
	opts  Options
	state *state
	ports ports
	trust *trust

	ctx  context.Context // cancelled, with the reason, when a part stops
	fail context.CancelCauseFunc

	mu       sync.Mutex
	stopping bool
	running  []*process // in the order in which they were started
	simDone  chan struct{}
}

// Start runs a control plane and returns when it can be used. If another
// program takes one of the chosen ports meanwhile, it starts over once.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if err := checkPrograms(opts); err != nil {
		return nil, err
	}
	state, err := openState(opts.Dir)
	if err != nil {
		return nil, err
	}
	cluster, err := startOnce(ctx, opts, state)
	var exit *exitError
	if errors.As(err, &exit) && exit.portTaken() {
		fmt.Fprintf(opts.Log, "%s found its port taken; starting over\n", exit.name)
		if err := state.reset(); err != nil {
			return nil, err
		}
		cluster, err = startOnce(ctx, opts, state)
	}
	if err != nil {
		return nil, errors.Join(err, state.close(false))
	}
	return cluster, nil
}

// Wait returns nil when the context ends, or the reason why a part of the
// control plane stopped.
func (c *Cluster) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// Stop ends everything, clients before servers, and removes the state folder
// when asked to.
func (c *Cluster) Stop(removeState bool) error {
	c.stopProcesses()
	return c.state.close(removeState)
}

func startOnce(ctx context.Context, opts Options, state *state) (*Cluster, error) {
	c := &Cluster{opts: opts, state: state}
	c.ctx, c.fail = context.WithCancelCause(ctx)
	if err := c.start(); err != nil {
		c.stopProcesses()
		return nil, err
	}
	return c, nil
}

// start brings the parts up in the order of their needs. Each step has its own
// line of progress, so that a slow one can be seen.
func (c *Cluster) start() error {
	started := time.Now()
	steps := []struct {
		name string
		run  func() error
	}{
		{"certificates", c.prepare},
		{"etcd", c.startEtcd},
		{"kube-apiserver", c.startAPIServer},
		{"kube-controller-manager, kube-scheduler", c.startControllers},
		{"volume snapshots", c.startSnapshots},
		{"simulated nodes and storage", c.startSimulator},
		{"service accounts and nodes", c.waitUsable},
	}
	for _, step := range steps {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(c.opts.Log, "%5.1fs %s\n", time.Since(started).Seconds(), step.name)
	}
	return c.trust.writeKubeconfig(c.opts.Kubeconfig, adminIdentity)
}

func (c *Cluster) prepare() (err error) {
	if c.ports, err = choosePorts(); err != nil {
		return err
	}
	if c.trust, err = writeTrust(c.state, url(c.ports.apiServer)); err != nil {
		return err
	}
	for name, id := range map[string]identity{
		"kube-controller-manager": managerIdentity,
		"kube-scheduler":          schedulerIdentity,
		"snapshot-controller":     snapshotIdentity,
	} {
		if err := c.trust.writeKubeconfig(c.state.pki(name+".kubeconfig"), id); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startEtcd() error {
	if err := c.run("etcd", etcdArgs(c.state, c.ports)); err != nil {
		return err
	}
	// The API server retries a missing etcd only once a second.
	return c.waitListening(c.ports.etcd)
}

func (c *Cluster) startAPIServer() error {
	if err := c.run("kube-apiserver", apiServerArgs(c.state, c.ports)); err != nil {
		return err
	}
	return c.waitReadyz()
}

func (c *Cluster) startControllers() error {
	if err := c.run("kube-controller-manager", managerArgs(c.state, c.ports)); err != nil {
		return err
	}
	return c.run("kube-scheduler", schedulerArgs(c.state, c.ports))
}

func (c *Cluster) startSnapshots() error {
	if !c.opts.SnapshotCRDs {
		return nil
	}
	if err := c.installCRDs(filepath.Join(c.opts.Bin, snapshotCRDsFolder)); err != nil {
		return err
	}
	return c.run("snapshot-controller", snapshotControllerArgs(c.state))
}

// startSimulator runs the part of the cluster that is not real. It ends with
// the cluster's context, and the cluster ends with it.
func (c *Cluster) startSimulator() error {
	admin, err := c.trust.config(csiIdentity)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(c.state.log("simulator.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of the simulator: %w", err)
	}
	simulator := &sim.Simulator{Config: admin, Snapshots: c.opts.SnapshotCRDs, Log: log}
	for _, name := range sim.NodeNames(c.opts.Nodes) {
		node, err := c.trust.node(name)
		if err != nil {
			return errors.Join(err, log.Close())
		}
		simulator.Nodes = append(simulator.Nodes, node)
	}
	if err := simulator.Prepare(c.ctx); err != nil {
		return errors.Join(c.why(err), log.Close())
	}
	c.simDone = make(chan struct{})
	go func() {
		defer close(c.simDone)
		defer func() { _ = log.Close() }()
		if err := simulator.Run(c.ctx); err != nil {
			c.fail(fmt.Errorf("simulator stopped: %w", err))
		}
	}()
	return nil
}

// run starts one program; if it ends before Stop, the whole cluster fails.
func (c *Cluster) run(name string, args []string) error {
	program := filepath.Join(c.opts.Bin, name)
	p, err := startProcess(name, program, c.state.log(name+".log"), args, func(p *process) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.stopping {
			c.fail(newExitError(p))
		}
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = append(c.running, p)
	return nil
}

// stopGrace is how long each component may take to end by itself.
const stopGrace = 3 * time.Second

// stopProcesses ends the simulator, then the programs in reverse order.
func (c *Cluster) stopProcesses() {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	c.fail(errors.New("control plane is stopping"))
	if c.simDone != nil {
		<-c.simDone
	}
	for _, p := range slices.Backward(c.running) {
		p.stop(stopGrace)
	}
}

// checkPrograms explains what to do when a program is missing, instead of
// building for minutes in a command that is expected to take seconds.
func checkPrograms(opts Options) error {
	names := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	if opts.SnapshotCRDs {
		names = append(names, "snapshot-controller", snapshotCRDsFolder)
	}
	var missing []string
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(opts.Bin, name)); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s misses %s: run \"controlplane build --bin %s\" first",
			opts.Bin, strings.Join(missing, ", "), opts.Bin)
	}
	return nil
}
