package sim

import (
	"context"
	"fmt"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	heartbeatInterval  = 10 * time.Second
	leaseSeconds       = int32(40) // as the kubelet's default
	containerRuntime   = "containerd://2.4.2"
	simulatedOSImage   = "Cofferdam simulated node"
	simulatedKernel    = "0.0.0-simulated"
	maxPodsPerNode     = "1000"
	nodeCPU, nodeMem   = "64", "256Gi"
	nodeEphemeralSpace = "1Ti"
)

// kubelet is the part of a simulated node that talks to the API server, under
// the node's own name.
type kubelet struct {
	name, ip  string
	port      int32 // where its server listens, on loopback
	clientset kubernetes.Interface
	client    client.Client
}

func nodeIP(index int) string {
	return fmt.Sprintf("100.66.0.%d", index+1)
}

// register creates the node object and its first lease.
func (k *kubelet) register(ctx context.Context) error {
	version, err := k.clientset.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("read server version: %w", err)
	}
	node := k.node(version.GitVersion, metav1.Now())
	if _, err := k.clientset.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("register %s: %w", k.name, err)
	}
	return nil
}

func (k *kubelet) node(version string, now metav1.Time) *corev1.Node {
	resources := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse(nodeCPU),
		corev1.ResourceMemory:           resource.MustParse(nodeMem),
		corev1.ResourceEphemeralStorage: resource.MustParse(nodeEphemeralSpace),
		corev1.ResourcePods:             resource.MustParse(maxPodsPerNode),
	}
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{
			Type: kind, Status: status, Reason: reason,
			LastHeartbeatTime: now, LastTransitionTime: now,
		}
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: k.name,
			Labels: map[string]string{
				corev1.LabelHostname:   k.name,
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: runtime.GOARCH,
			},
		},
		Status: corev1.NodeStatus{
			Capacity:    resources,
			Allocatable: resources,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: k.ip},
				{Type: corev1.NodeHostName, Address: k.name},
				// Where the server can be reached, which the API server prefers.
				{Type: corev1.NodeExternalIP, Address: kubeletAddress},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: k.port}},
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
				condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
			},
			NodeInfo: corev1.NodeSystemInfo{
				OperatingSystem: "linux", Architecture: runtime.GOARCH,
				OSImage: simulatedOSImage, KernelVersion: simulatedKernel,
				ContainerRuntimeVersion: containerRuntime, KubeletVersion: version,
			},
		},
	}
}

// heartbeat renews the node's lease until the context ends. The node
// controller takes a node without a fresh lease for dead.
func (k *kubelet) heartbeat(ctx context.Context) error {
	ticker := time.NewTicker(heartbeatInterval)
	defer ticker.Stop()
	for {
		if err := k.renewLease(ctx); err != nil && ctx.Err() == nil {
			logf.FromContext(ctx).Error(err, "cannot renew lease; trying again", "node", k.name)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (k *kubelet) renewLease(ctx context.Context) error {
	leases := k.clientset.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NowMicro()
	lease, err := leases.Get(ctx, k.name, metav1.GetOptions{})
	if err == nil {
		lease.Spec.RenewTime = &now
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		return err
	}
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	_, err = leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: k.name},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       new(k.name),
			LeaseDurationSeconds: new(leaseSeconds),
			RenewTime:            &now,
		},
	}, metav1.CreateOptions{})
	return err
}
