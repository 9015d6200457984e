package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"cofferdam.dev/cofferdam/test/cluster"
)

const (
	serviceAccount = "cofferdam-controller-manager"
	tokenLifetime  = time.Hour
	stopTimeout    = 15 * time.Second
)

// manager is the running operator.
type manager struct {
	cmd     *exec.Cmd
	metrics string
	exited  chan struct{}
	cancel  context.CancelCauseFunc
}

// startManager runs bin/manager as the operator's service account, with the rights that config/rbac gives to it and no others.
func (d *demo) startManager(ctx context.Context) (*manager, context.Context, error) {
	program := filepath.Join(d.server.Root, "bin", "manager")
	if _, err := os.Stat(program); err != nil {
		return nil, ctx, fmt.Errorf("the manager is not built (%w): run \"make build\" first", err)
	}
	if err := d.writeManagerKubeconfig(ctx); err != nil {
		return nil, ctx, err
	}
	metrics, probes, err := freeAddresses()
	if err != nil {
		return nil, ctx, err
	}
	d.log = filepath.Join(d.dir, "manager.log")
	log, err := os.Create(d.log)
	if err != nil {
		return nil, ctx, fmt.Errorf("create the manager's log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child has a handle of its own
	m := &manager{metrics: metrics, exited: make(chan struct{})}
	m.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, "--leader-elect", "--operator-namespace="+cluster.OperatorNamespace,
		"--evidence-store=file://"+d.storeDir(), "--metrics-bind-address="+metrics, "--health-probe-bind-address="+probes)
	m.cmd.Env = append(os.Environ(), "KUBECONFIG="+d.kubeconfigOfManager())
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = childAttributes()
	if err := m.cmd.Start(); err != nil {
		return nil, ctx, fmt.Errorf("start the manager: %w", err)
	}
	running, cancel := context.WithCancelCause(ctx)
	m.cancel = cancel
	go func() {
		_ = m.cmd.Wait() // its state says it all
		cancel(fmt.Errorf("the manager has ended by itself (%s): see its log", m.cmd.ProcessState))
		close(m.exited)
	}()
	return m, running, d.until(running, "the manager is ready", func(ctx context.Context) (string, error) { return "", isReady(ctx, probes) })
}

// stop ends the manager and waits until it has ended.
func (m *manager) stop() {
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // it has ended already if this fails
	select {
	case <-m.exited:
	case <-time.After(stopTimeout):
		_ = m.cmd.Process.Kill()
		<-m.exited
	}
}

// storeDir is where the operator keeps evidence: on an installation this is a volume, or a bucket.
func (d *demo) storeDir() string { return filepath.Join(d.dir, "evidence") }

// writeManagerKubeconfig makes a kubeconfig for the same server in which the administrator is replaced by the operator's token.
func (d *demo) writeManagerKubeconfig(ctx context.Context) error {
	token, err := d.tokenFor(ctx, cluster.OperatorNamespace, serviceAccount)
	if err != nil {
		return err
	}
	config, err := clientcmd.LoadFromFile(d.server.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{serviceAccount: {Token: token}}
	config.Contexts[config.CurrentContext].AuthInfo = serviceAccount
	if err := clientcmd.WriteToFile(*config, d.kubeconfigOfManager()); err != nil {
		return fmt.Errorf("write the manager's kubeconfig: %w", err)
	}
	return nil
}

func (d *demo) tokenFor(ctx context.Context, ns, name string) (string, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenLifetime.Seconds()))}}
	if err := d.admin.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("request a token for service account %s/%s: %w", ns, name, err)
	}
	return request.Status.Token, nil
}

// freeAddresses returns two loopback addresses that nobody listens on now.
func freeAddresses() (first, second string, err error) {
	var found [2]string
	for i := range found {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close() //nolint:errcheck // nothing was sent
		found[i] = listener.Addr().String()
	}
	return found[0], found[1], nil
}

func isReady(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // only the status counts
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}
