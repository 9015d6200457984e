package cluster

import (
	"net"
	"strconv"
)

const (
	loopback            = "127.0.0.1"
	serviceRange        = "100.65.0.0/16"
	kubernetesServiceIP = "100.65.0.1"
	podRange            = "100.64.0.0/16"
)

// ports are the loopback ports of one cluster.
type ports struct {
	etcd, etcdPeer, apiServer, manager, scheduler int
}

func choosePorts() (ports, error) {
	free, err := freePorts(5)
	if err != nil {
		return ports{}, err
	}
	return ports{etcd: free[0], etcdPeer: free[1], apiServer: free[2], manager: free[3], scheduler: free[4]}, nil
}

func address(port int) string {
	return net.JoinHostPort(loopback, strconv.Itoa(port))
}

func url(port int) string {
	return "https://" + address(port)
}

func etcdArgs(s *state, p ports) []string {
	return []string{
		"--name=local",
		"--data-dir=" + s.path("etcd"),
		// The data lives as long as this run; waiting for the disk buys nothing.
		"--unsafe-no-fsync",
		"--log-level=warn",
		"--listen-client-urls=" + url(p.etcd),
		"--advertise-client-urls=" + url(p.etcd),
		"--listen-peer-urls=" + url(p.etcdPeer),
		"--initial-advertise-peer-urls=" + url(p.etcdPeer),
		"--initial-cluster=local=" + url(p.etcdPeer),
		// Other users of this machine can reach the port, so it asks for a
		// certificate of this cluster.
		"--client-cert-auth", "--trusted-ca-file=" + s.pki("ca.crt"),
		"--cert-file=" + s.pki("server.crt"), "--key-file=" + s.pki("server.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + s.pki("ca.crt"),
		"--peer-cert-file=" + s.pki("server.crt"), "--peer-key-file=" + s.pki("server.key"),
	}
}

func apiServerArgs(s *state, p ports) []string {
	return []string{
		"--etcd-servers=" + url(p.etcd),
		"--etcd-cafile=" + s.pki("ca.crt"),
		"--etcd-certfile=" + s.pki("server.crt"), "--etcd-keyfile=" + s.pki("server.key"),
		"--bind-address=" + loopback, "--secure-port=" + strconv.Itoa(p.apiServer),
		"--advertise-address=" + loopback,
		// Endpoints of the kubernetes Service may not be loopback addresses.
		"--endpoint-reconciler-type=none",
		"--tls-cert-file=" + s.pki("server.crt"), "--tls-private-key-file=" + s.pki("server.key"),
		"--client-ca-file=" + s.pki("ca.crt"),
		// Nothing uses the front proxy, but without these settings every client
		// that could be asked through it fills its log with complaints. The
		// name keeps other certificates of the same authority out.
		"--requestheader-client-ca-file=" + s.pki("ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--feature-gates=" + scaleToZero,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + s.pki("sa.pub"),
		"--service-account-signing-key-file=" + s.pki("sa.key"),
		"--service-cluster-ip-range=" + serviceRange,
		// The simulated kubelets listen on loopback, which is the node's address of
		// this type; nobody answers at the others.
		"--kubelet-preferred-address-types=ExternalIP",
		"--kubelet-certificate-authority=" + s.pki("ca.crt"),
		"--kubelet-client-certificate=" + s.pki("kubelet-client.crt"), "--kubelet-client-key=" + s.pki("kubelet-client.key"),
		"--profiling=false",
	}
}

// scaleToZero lets HorizontalPodAutoscalers have no replicas at least (KEP-2021), as Kubernetes does by itself from 1.37.
const scaleToZero = "HPAScaleToZero=true"

func managerArgs(s *state, p ports) []string {
	return append(clientArgs(s, "kube-controller-manager", p.manager),
		"--use-service-account-credentials=true",
		"--feature-gates="+scaleToZero,
		"--service-account-private-key-file="+s.pki("sa.key"),
		"--root-ca-file="+s.pki("ca.crt"),
		"--cluster-signing-cert-file="+s.pki("ca.crt"), "--cluster-signing-key-file="+s.pki("ca.key"),
		"--allocate-node-cidrs=false",
		"--cluster-cidr="+podRange,
		"--pvclaimbinder-sync-period=2s",
		// On an overloaded machine a late heartbeat must not look like a dead node.
		"--node-monitor-grace-period=5m",
	)
}

func schedulerArgs(s *state, p ports) []string {
	return clientArgs(s, "kube-scheduler", p.scheduler)
}

// clientArgs are the flags that the controller manager and the scheduler share.
func clientArgs(s *state, name string, port int) []string {
	kubeconfig := s.pki(name + ".kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--leader-elect=false",
		"--bind-address=" + loopback, "--secure-port=" + strconv.Itoa(port),
		"--tls-cert-file=" + s.pki("server.crt"), "--tls-private-key-file=" + s.pki("server.key"),
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--profiling=false",
	}
}

func snapshotControllerArgs(s *state) []string {
	return []string{
		"--kubeconfig=" + s.pki("snapshot-controller.kubeconfig"),
		"--leader-election=false",
		"--kube-api-qps=500", "--kube-api-burst=1000",
		// A retry after minutes is of no use to a test.
		"--retry-interval-start=200ms",
		"--retry-interval-max=5s",
	}
}
