package cluster

import (
	"context"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const (
	snapshotCRDsFolder = "snapshot-crds"
	pollInterval       = 50 * time.Millisecond
	// startTimeout is generous: the machine may be busy compiling.
	startTimeout = 90 * time.Second
)

// waitFor polls until the condition holds. Its error says what was still
// missing, or why the cluster stopped meanwhile.
func (c *Cluster) waitFor(condition func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(c.ctx, pollInterval, startTimeout, true, func(ctx context.Context) (bool, error) {
		last = condition(ctx)
		return last == nil, nil
	})
	if err == nil {
		return nil
	}
	return c.why(fmt.Errorf("not ready after %s: %w", startTimeout, last))
}

// why prefers the reason why the cluster stopped to its consequences.
func (c *Cluster) why(err error) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	return err
}

func (c *Cluster) waitListening(port int) error {
	return c.waitFor(func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address(port))
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

func (c *Cluster) waitReadyz() error {
	client, err := c.adminClient()
	if err != nil {
		return err
	}
	return c.waitFor(func(ctx context.Context) error {
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func (c *Cluster) adminClient() (*kubernetes.Clientset, error) {
	config, err := c.trust.config(adminIdentity)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// waitUsable waits until a pod could be created and scheduled: the default
// service account exists and every node is Ready and free of start-up taints.
func (c *Cluster) waitUsable() error {
	client, err := c.adminClient()
	if err != nil {
		return err
	}
	return c.waitFor(func(ctx context.Context) error {
		if _, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		return nodesUsable(nodes.Items, c.opts.Nodes)
	})
}

func nodesUsable(nodes []corev1.Node, want int) error {
	if len(nodes) != want {
		return fmt.Errorf("%d of %d nodes exist", len(nodes), want)
	}
	for _, node := range nodes {
		if len(node.Spec.Taints) > 0 {
			return fmt.Errorf("node %s still has taint %s", node.Name, node.Spec.Taints[0].Key)
		}
	}
	return nil
}

// installCRDs creates the definitions in the folder and waits until they are
// served.
func (c *Cluster) installCRDs(folder string) error {
	config, err := c.trust.config(adminIdentity)
	if err != nil {
		return err
	}
	_, err = envtest.InstallCRDs(config, envtest.CRDInstallOptions{
		Paths:              []string{folder},
		ErrorIfPathMissing: true,
		MaxTime:            startTimeout,
		PollInterval:       pollInterval,
	})
	if err != nil {
		return c.why(fmt.Errorf("install definitions: %w", err))
	}
	return nil
}
