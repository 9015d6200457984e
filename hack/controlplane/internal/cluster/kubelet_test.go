package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"cofferdam.dev/cofferdam/hack/controlplane/internal/sim"
)

// startCluster runs a control plane if its programs are in bin/ of the checkout.
func startCluster(t *testing.T) (*Cluster, *kubernetes.Clientset) {
	t.Helper()
	bin, err := filepath.Abs("../../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opts := Options{Bin: bin, Dir: filepath.Join(dir, "state"), Kubeconfig: filepath.Join(dir, "kubeconfig"), Nodes: 1, Log: io.Discard}
	if err := checkPrograms(opts); err != nil {
		t.Skip(err)
	}
	c, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(false); err != nil {
			t.Error(err)
		}
	})
	client, err := c.adminClient()
	if err != nil {
		t.Fatal(err)
	}
	return c, client
}

// runPod creates a pod and waits until it runs.
func runPod(t *testing.T, client *kubernetes.Clientset, name string, annotations map[string]string) {
	t.Helper()
	pods := client.CoreV1().Pods(metav1.NamespaceDefault)
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.org/app:1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(t.Context(), pollInterval, startTimeout, true, func(ctx context.Context) (bool, error) {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning, err
	})
	if err != nil {
		t.Fatalf("pod %s does not run: %v", name, err)
	}
}

// The API server gets logs from the simulated kubelets as from real ones.
func TestKubelet(t *testing.T) {
	c, client := startCluster(t)
	raw := []byte("\x00\x1b[31m\xff\xfe no text\n")
	runPod(t, client, "plain", nil)
	runPod(t, client, "long", map[string]string{sim.LogLinesAnnotation: "1000000"})
	runPod(t, client, "raw", map[string]string{sim.LogRawAnnotation: base64.StdEncoding.EncodeToString(raw)})
	runPod(t, client, "endless", map[string]string{sim.LogEndlessAnnotation: "true"})
	runPod(t, client, "frozen", map[string]string{sim.CheckpointAnnotation: "ok"})

	read := func(name string, opts corev1.PodLogOptions) (string, error) {
		stream, err := client.CoreV1().Pods(metav1.NamespaceDefault).GetLogs(name, &opts).Stream(t.Context())
		if err != nil {
			return "", err
		}
		data, err := io.ReadAll(stream)
		return string(data), errors.Join(err, stream.Close())
	}
	t.Run("plain", func(t *testing.T) {
		got, err := read("plain", corev1.PodLogOptions{Container: "main", Timestamps: true})
		if err != nil || !strings.HasSuffix(got, "default/plain main run 0 line 4\n") || !strings.HasPrefix(got, "20") {
			t.Errorf("log = %q, %v", got, err)
		}
	})
	t.Run("long", func(t *testing.T) {
		if got, err := read("long", corev1.PodLogOptions{}); err != nil || strings.Count(got, "\n") != 1_000_000 {
			t.Errorf("%d lines, %v, want a million", strings.Count(got, "\n"), err)
		}
	})
	t.Run("limited", func(t *testing.T) {
		if got, err := read("long", corev1.PodLogOptions{LimitBytes: new(int64(1000))}); err != nil || len(got) != 1000 {
			t.Errorf("%d bytes, %v, want 1000", len(got), err)
		}
	})
	t.Run("raw", func(t *testing.T) {
		if got, err := read("raw", corev1.PodLogOptions{}); err != nil || got != string(raw) {
			t.Errorf("log = %q, %v, want %q", got, err, raw)
		}
	})
	t.Run("previous", func(t *testing.T) {
		if got, err := read("plain", corev1.PodLogOptions{Previous: true}); err == nil || !strings.Contains(err.Error(), "not found") {
			t.Errorf("log = %q, %v, want the kubelet's error", got, err)
		}
	})
	t.Run("endless", func(t *testing.T) { readEndless(t, client) })
	t.Run("checkpoint", func(t *testing.T) { checkpoint(t, c, client) })
}

// readEndless reads some of a log that goes on, and leaves.
func readEndless(t *testing.T, client *kubernetes.Clientset) {
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	stream, err := client.CoreV1().Pods(metav1.NamespaceDefault).GetLogs("endless", &corev1.PodLogOptions{}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }() // what it says is of no interest
	var got bytes.Buffer
	for strings.Count(got.String(), "\n") < 20 {
		buf := make([]byte, 100)
		n, err := stream.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("the log ended after %q: %v", got.String(), err)
		}
	}
}

// checkpoint asks the kubelet itself, with tokens.
func checkpoint(t *testing.T, c *Cluster, client *kubernetes.Clientset) {
	may, mayNot := token(t, client, "may"), token(t, client, "may-not")
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "may"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes/checkpoint"}, Verbs: []string{"create"}}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "may"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "may"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: metav1.NamespaceDefault, Name: "may"}},
	}
	if _, err := client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	base := kubeletURL(t, client, "node-a")
	for name, tc := range map[string]struct {
		token, pod string
		status     int
		text       string
	}{
		"ok":           {may, "frozen", http.StatusOK, "/var/lib/kubelet/checkpoints/checkpoint-frozen_default-main-"},
		"unsupported":  {may, "plain", http.StatusInternalServerError, "code = Unimplemented"},
		"no such pod":  {may, "none", http.StatusNotFound, "does not exist"},
		"may not":      {mayNot, "frozen", http.StatusForbidden, "Forbidden"},
		"nobody":       {"", "frozen", http.StatusUnauthorized, "Unauthorized"},
		"a wrong name": {"nonsense", "frozen", http.StatusUnauthorized, "Unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			// RBAC reaches the API server's authorizer a moment after it is written.
			err := wait.PollUntilContextTimeout(t.Context(), pollInterval, 10*time.Second, true, func(ctx context.Context) (bool, error) {
				status, text := post(ctx, t, c, base+"/checkpoint/default/"+tc.pod+"/main", tc.token)
				if status == tc.status && strings.Contains(text, tc.text) {
					return true, nil
				}
				t.Logf("%d %q, want %d %q", status, text, tc.status, tc.text)
				return false, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func token(t *testing.T, client *kubernetes.Clientset, name string) string {
	t.Helper()
	accounts := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	request, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

func kubeletURL(t *testing.T, client *kubernetes.Clientset, name string) string {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("https://%s:%d", loopback, node.Status.DaemonEndpoints.KubeletEndpoint.Port)
}

func post(ctx context.Context, t *testing.T, c *Cluster, url, token string) (int, string) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.trust.ca.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(body)
}
