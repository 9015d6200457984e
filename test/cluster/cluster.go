// Package cluster gives tests a real Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler with
// simulated nodes, as hack/controlplane runs them. Every suite starts one of its own and installs the part of config/ that it needs.
package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// OperatorNamespace is the namespace that config/ installs the operator into.
	OperatorNamespace = "cofferdam-system"

	// OperatorUser is the operator's identity, as the guards in config/guard know it.
	OperatorUser = "system:serviceaccount:" + OperatorNamespace + ":cofferdam-controller-manager"

	binaryVariable = "COFFERDAM_CONTROLPLANE"
	startTimeout   = 3 * time.Minute
	stopTimeout    = 30 * time.Second
)

// Cluster is a running control plane.
type Cluster struct {
	// RESTConfig belongs to a cluster administrator and is not rate-limited.
	RESTConfig *rest.Config
	// Kubeconfig is the path of a kubeconfig file for the same administrator.
	Kubeconfig string
	// Root is the folder of the checkout.
	Root string

	kubectl string
	dir     string
	cmd     *exec.Cmd
	stdin   io.Closer
	log     *tail
	exited  chan error
	stop    sync.Once
	stopErr error
}

// Start runs a control plane and waits until it is ready. It ends with Stop, or with this process, however that ends.
// The context bounds the start only; flags are further flags of "controlplane up", such as --no-snapshot-crds.
func Start(ctx context.Context, flags ...string) (*Cluster, error) {
	c, program, err := locate()
	if err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "cofferdam-test-"); err != nil {
		return nil, fmt.Errorf("create a folder for the control plane: %w", err)
	}
	ready, err := c.launch(ctx, program, flags)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	if err := c.awaitReady(ctx, ready); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.RESTConfig, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the kubeconfig of the control plane: %w", err), c.Stop())
	}
	unlimited(c.RESTConfig)
	return c, nil
}

// StartInstalled runs a control plane and installs config/<overlay> into it.
func StartInstalled(ctx context.Context, overlay string, flags ...string) (*Cluster, error) {
	c, err := Start(ctx, flags...)
	if err != nil {
		return nil, err
	}
	if err := c.Install(ctx, overlay); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// locate finds the checkout and the programs that make has built.
func locate() (c *Cluster, program string, err error) {
	root, err := findRoot()
	if err != nil {
		return nil, "", err
	}
	bin := filepath.Join(root, "bin")
	if program = os.Getenv(binaryVariable); program == "" {
		program = filepath.Join(bin, "controlplane")
	}
	for _, needed := range []string{program, filepath.Join(bin, "kubectl"), filepath.Join(bin, "kube-apiserver")} {
		if _, err := os.Stat(needed); err != nil {
			return nil, "", fmt.Errorf("the local control plane is not built (%w): run \"make controlplane\" first, or all tests by \"make test\"", err)
		}
	}
	return &Cluster{Root: root, kubectl: filepath.Join(bin, "kubectl"), log: &tail{limit: 16 << 10}, exited: make(chan error, 1)}, program, nil
}

// launch starts the process and returns where the path of the kubeconfig arrives once the control plane is ready.
func (c *Cluster) launch(ctx context.Context, program string, flags []string) (<-chan string, error) {
	// The context bounds the start: when it ends later, the control plane stays.
	flags = append([]string{"up", "--bin", filepath.Join(c.Root, "bin"), "--dir", filepath.Join(c.dir, "run"), "--until-stdin-closes", "--rm"}, flags...)
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, flags...)
	c.cmd.Dir = c.Root
	c.cmd.Stderr = c.log
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("connect to the control plane: %w", err)
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("connect to the control plane: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	ready := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if path, found := strings.CutPrefix(lines.Text(), "ready kubeconfig="); found {
				ready <- path
			}
		}
		// All output is read: Wait closes the pipe.
		c.exited <- c.cmd.Wait()
	}()
	return ready, nil
}

func (c *Cluster) awaitReady(ctx context.Context, ready <-chan string) error {
	select {
	case c.Kubeconfig = <-ready:
		return nil
	case err := <-c.exited:
		c.exited <- err
		return fmt.Errorf("the control plane ended before it was ready: %w\n%s", err, c.log)
	case <-ctx.Done():
		return fmt.Errorf("the control plane was not ready in time: %w\n%s", ctx.Err(), c.log)
	case <-time.After(startTimeout):
		return fmt.Errorf("the control plane was not ready after %s\n%s", startTimeout, c.log)
	}
}

// Stop ends the control plane and removes its folder. It may be called more than once.
func (c *Cluster) Stop() error {
	c.stop.Do(func() {
		if c.cmd == nil { // it ran before us and goes on
			c.stopErr = os.RemoveAll(c.dir)
			return
		}
		_ = c.stdin.Close() // it has ended already if this fails
		select {
		case err := <-c.exited:
			if err != nil {
				c.stopErr = fmt.Errorf("the control plane ended with %w\n%s", err, c.log)
			}
		case <-time.After(stopTimeout):
			c.stopErr = fmt.Errorf("the control plane did not end within %s\n%s", stopTimeout, c.log)
			_ = c.cmd.Process.Kill() // its own children end when it does
		}
		c.stopErr = errors.Join(c.stopErr, os.RemoveAll(c.dir))
	})
	return c.stopErr
}

// Log returns the end of what the control plane has logged.
func (c *Cluster) Log() string {
	return c.log.String()
}

// Client returns a client for the administrator.
func (c *Cluster) Client() (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(c.RESTConfig)
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	return client, nil
}

// Impersonate returns a configuration that acts as somebody else, with that person's permissions.
func (c *Cluster) Impersonate(user string, groups ...string) *rest.Config {
	config := rest.CopyConfig(c.RESTConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return config
}

// OperatorConfig returns a configuration that acts as the operator, so that tests meet the permissions of config/rbac and the guards
// as the operator does in production.
func (c *Cluster) OperatorConfig() *rest.Config {
	return c.Impersonate(OperatorUser,
		"system:serviceaccounts", "system:serviceaccounts:"+OperatorNamespace, "system:authenticated")
}

// Kubectl runs kubectl as the administrator in the folder of the checkout and returns what it printed.
func (c *Cluster) Kubectl(args ...string) ([]byte, error) {
	return c.KubectlContext(context.Background(), args...)
}

// KubectlContext is Kubectl with a context that can end it.
func (c *Cluster) KubectlContext(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	cmd.Dir = c.Root
	// Nobody's settings decide what a test sees.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "KUBECTL_EXTERNAL_DIFF=", "KUBECACHEDIR="+filepath.Join(c.dir, "cache"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return output, fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return output, nil
}

func unlimited(config *rest.Config) {
	config.QPS, config.Burst = -1, -1
}

// findRoot walks up to the folder with the go.mod of the module.
func findRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.Contains(content, []byte("module cofferdam.dev/cofferdam\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no checkout of cofferdam.dev/cofferdam found upwards of %s", start)
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	limit int
	data  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if len(t.data) > t.limit {
		t.data = append([]byte(nil), t.data[len(t.data)-t.limit:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}
