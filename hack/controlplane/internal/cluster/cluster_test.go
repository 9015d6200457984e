package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFreePortsAreDifferent(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range ports {
		if seen[port] {
			t.Errorf("port %d came up twice", port)
		}
		seen[port] = true
	}
}

func parse(t *testing.T, pair keyPair) *x509.Certificate {
	t.Helper()
	loaded, err := tls.X509KeyPair(pair.cert, pair.key)
	if err != nil {
		t.Fatalf("certificate and key do not fit: %v", err)
	}
	return loaded.Leaf
}

func TestCertificates(t *testing.T) {
	ca, err := newAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	other, err := newAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	serverPair, err := ca.serverCert("server", []string{"localhost"}, []net.IP{net.ParseIP(loopback)})
	if err != nil {
		t.Fatal(err)
	}
	clientPair, err := ca.clientCert("alice", "staff", "admins")
	if err != nil {
		t.Fatal(err)
	}
	server, client := parse(t, serverPair), parse(t, clientPair)

	trusting := func(a *authority) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(a.cert)
		return pool
	}
	if _, err := server.Verify(x509.VerifyOptions{DNSName: loopback, Roots: trusting(ca)}); err != nil {
		t.Errorf("server certificate is not valid for its address: %v", err)
	}
	if _, err := server.Verify(x509.VerifyOptions{Roots: trusting(other)}); err == nil {
		t.Error("another cluster's authority vouches for the server")
	}
	clientUse := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := client.Verify(x509.VerifyOptions{Roots: trusting(ca), KeyUsages: clientUse}); err != nil {
		t.Errorf("client certificate is not valid: %v", err)
	}
	if _, err := client.Verify(x509.VerifyOptions{Roots: trusting(ca)}); err == nil {
		t.Error("a client certificate can pose as a server")
	}
	if diff := cmp.Diff([]string{"staff", "admins"}, client.Subject.Organization); client.Subject.CommonName != "alice" || diff != "" {
		t.Errorf("client certificate names %s: %s", client.Subject, diff)
	}
}

func TestOpenState(t *testing.T) {
	t.Run("a folder of someone else is left alone", func(t *testing.T) {
		dir := t.TempDir()
		precious := filepath.Join(dir, "thesis")
		if err := os.WriteFile(precious, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openState(dir); err == nil {
			t.Error("openState() took a folder that is not its own")
		}
		if _, err := os.Stat(precious); err != nil {
			t.Error(err)
		}
	})
	t.Run("an earlier run is emptied and a running one refused", func(t *testing.T) {
		dir := t.TempDir()
		first, err := openState(dir)
		if err != nil {
			t.Fatal(err)
		}
		leftover := first.path("etcd")
		if err := os.Mkdir(leftover, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := openState(dir); err == nil {
			t.Error("openState() took the folder of a running cluster")
		}
		if err := first.close(false); err != nil {
			t.Fatal(err)
		}
		second, err := openState(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(leftover); err == nil {
			t.Error("data of the earlier run is still there")
		}
		if err := second.close(true); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("the folder was not removed")
		}
	})
}

func TestNodesUsable(t *testing.T) {
	clean := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}
	tainted := *clean.DeepCopy()
	tainted.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeNotReady}}
	cases := map[string]struct {
		nodes []corev1.Node
		ok    bool
	}{
		"all there and clean": {nodes: []corev1.Node{clean}, ok: true},
		"one missing":         {nodes: nil},
		"one still tainted":   {nodes: []corev1.Node{tainted}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := nodesUsable(tc.nodes, 1); (err == nil) != tc.ok {
				t.Errorf("nodesUsable() = %v, want ok: %v", err, tc.ok)
			}
		})
	}
}

func TestPortTaken(t *testing.T) {
	cases := map[string]struct {
		tail string
		want bool
	}{
		"taken":            {"listen tcp 127.0.0.1:1: bind: address already in use", true},
		"something else":   {"unknown flag: --x", false},
		"no output at all": {"", false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := (&exitError{tail: tc.tail}).portTaken(); got != tc.want {
				t.Errorf("portTaken() = %v, want %v", got, tc.want)
			}
		})
	}
}
