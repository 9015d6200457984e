package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"cofferdam.dev/cofferdam/hack/controlplane/internal/sim"
)

// identity is one user of the API server, proven by a client certificate.
type identity struct {
	user   string
	groups []string
}

// The programs act under names of their own, as they do in a real cluster, so
// that audit, RBAC and admission policies can tell them apart.
var (
	adminIdentity     = identity{user: "cofferdam-admin", groups: []string{"system:masters"}}
	managerIdentity   = identity{user: "system:kube-controller-manager"}
	schedulerIdentity = identity{user: "system:kube-scheduler"}
	snapshotIdentity  = identity{user: "snapshot-controller", groups: []string{"system:masters"}}
	// kubeletClientIdentity is the API server when it asks a kubelet.
	kubeletClientIdentity = identity{user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}}
	csiIdentity           = identity{user: "csi.sim.cofferdam.dev", groups: []string{"system:masters"}}
	allowedServerNames    = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
)

func nodeIdentity(node string) identity {
	return identity{user: "system:node:" + node, groups: []string{"system:nodes"}}
}

// trust holds the keys of one cluster and hands out credentials.
type trust struct {
	ca     *authority
	server string // URL of the API server
}

// writeTrust creates the certificates and keys that the components read from
// files.
func writeTrust(s *state, server string) (*trust, error) {
	ca, err := newAuthority("cofferdam-local-control-plane")
	if err != nil {
		return nil, err
	}
	serving, err := ca.serverCert("cofferdam-server", allowedServerNames,
		[]net.IP{net.ParseIP(loopback), net.ParseIP(kubernetesServiceIP)})
	if err != nil {
		return nil, err
	}
	kubeletClient, err := ca.clientCert(kubeletClientIdentity.user, kubeletClientIdentity.groups...)
	if err != nil {
		return nil, err
	}
	private, public, err := newServiceAccountKeys()
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{
		"ca.crt": ca.cert, "ca.key": ca.key,
		"server.crt": serving.cert, "server.key": serving.key,
		"kubelet-client.crt": kubeletClient.cert, "kubelet-client.key": kubeletClient.key,
		"sa.key": private, "sa.pub": public,
	} {
		if err := os.WriteFile(s.pki(name), data, 0o600); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	return &trust{ca: ca, server: server}, nil
}

// config returns client settings for the identity. There is no client-side
// rate limit: the API server's own is the one that a test should meet.
func (t *trust) config(id identity) (*rest.Config, error) {
	pair, err := t.ca.clientCert(id.user, id.groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host: t.server,
		QPS:  -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: t.ca.cert, CertData: pair.cert, KeyData: pair.key,
		},
	}, nil
}

// node returns what a simulated node needs: its identity at the API server, and
// the certificate of its own server.
func (t *trust) node(name string) (sim.Node, error) {
	config, err := t.config(nodeIdentity(name))
	if err != nil {
		return sim.Node{}, err
	}
	pair, err := t.ca.serverCert("system:node:"+name, []string{name}, []net.IP{net.ParseIP(loopback)})
	if err != nil {
		return sim.Node{}, err
	}
	serving, err := tls.X509KeyPair(pair.cert, pair.key)
	if err != nil {
		return sim.Node{}, fmt.Errorf("load the certificate of %s: %w", name, err)
	}
	cas := x509.NewCertPool()
	cas.AppendCertsFromPEM(t.ca.cert)
	return sim.Node{Name: name, Config: config, Serving: serving, ClientCAs: cas}, nil
}

// writeKubeconfig stores credentials for the identity at path.
func (t *trust) writeKubeconfig(path string, id identity) error {
	pair, err := t.ca.clientCert(id.user, id.groups...)
	if err != nil {
		return err
	}
	const name = "cofferdam-local"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: t.server, CertificateAuthorityData: t.ca.cert}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.cert, ClientKeyData: pair.key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}
	return nil
}
