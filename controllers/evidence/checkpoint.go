package evidence

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
)

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get
// +kubebuilder:rbac:groups="",namespace=cofferdam-system,resources=serviceaccounts/token,resourceNames=cofferdam-checkpointer,verbs=create

const (
	// CheckpointerAccount is the ServiceAccount, in the operator's namespace, as which kubelets are asked for checkpoints. It may do nothing else.
	CheckpointerAccount = "cofferdam-checkpointer"

	// tokenSeconds is how long a token is good for; the API server gives none for less.
	tokenSeconds = 600
	// maxKubeletAnswer bounds what is read of an answer, in bytes.
	maxKubeletAnswer = 64 << 10
	// maxLocation is how long the location of an item may be, in characters (api/v1alpha1).
	maxLocation = 512
)

// TokenSource gives tokens for kubelets.
type TokenSource interface {
	Token(ctx context.Context) (string, error)
}

// NewCheckpointerTokens asks for short-lived tokens of the ServiceAccount that may create checkpoints, in the operator's namespace.
func NewCheckpointerTokens(accounts corev1client.ServiceAccountsGetter, namespace string) TokenSource {
	return tokenSource{accounts: accounts, namespace: namespace}
}

type tokenSource struct {
	accounts  corev1client.ServiceAccountsGetter
	namespace string
}

func (s tokenSource) Token(ctx context.Context) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(tokenSeconds))}}
	got, err := s.accounts.ServiceAccounts(s.namespace).CreateToken(ctx, CheckpointerAccount, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for a token of ServiceAccount %s/%s: %w", s.namespace, CheckpointerAccount, err)
	}
	return got.Status.Token, nil
}

// Checkpoints asks kubelets to write the memory of running containers to the node's disk.
//
// The request is POST /checkpoint/{namespace}/{pod}/{container} to the kubelet itself; the API server has no way to it but the node proxy, which could do everything. The kubelet authorizes it as
// the verb "create" on the resource "nodes", subresource "checkpoint", with the node's name (kubernetes/pkg/kubelet/server/auth.go, GetRequestAttributes), and that is all that the account may do whose
// token is sent. A kubelet has the pod by name only, so the pod is looked at before and after.
type Checkpoints struct {
	// Pods reads pods live.
	Pods PodSource
	// Tokens authenticates us to kubelets.
	Tokens TokenSource
	// CAs vouch for the kubelets' serving certificates. Without them nothing is asked: whoever answers instead of a kubelet would get a token.
	CAs *x509.CertPool
	// AddressTypes are the addresses of nodes to try, the first that a node has; by default its InternalIP, its ExternalIP, its host name.
	AddressTypes []corev1.NodeAddressType

	known memory[podCheckpoints]
}

// CheckpointID is the ID of the checkpoint item of a pod.
func CheckpointID(podUID types.UID) string { return "checkpoint-" + string(podUID) }

// About says what the collector is.
func (c *Checkpoints) About() About {
	return About{
		Type:   v1alpha1.EvidenceCheckpoint,
		Needs:  "kubelets with the feature ContainerCheckpoint and a runtime that can do it (CRIU), reachable from the operator, and the authority of their serving certificates (--kubelet-ca-file)",
		Alters: "containers stand still while they are written out; archives with all that they had in memory, secrets included, stay on the node",
		Deadline: func(o v1alpha1.EvidenceOrders) time.Duration {
			return seconds(o.Checkpoints.DeadlineSeconds)
		},
	}
}

// Begin returns one item for each pod if the orders ask for checkpoints.
func (c *Checkpoints) Begin(x *Execution, pods []*corev1.Pod) []v1alpha1.EvidenceItem {
	if x.Orders.Checkpoints.Collect != v1alpha1.Collect {
		return nil
	}
	out := make([]v1alpha1.EvidenceItem, 0, len(pods))
	for _, p := range pods {
		item := podItem(x, CheckpointID(p.UID), v1alpha1.EvidenceCheckpoint, p, c.About().Deadline(x.Orders))
		if c.CAs == nil {
			item = gap(item, "no checkpoint was asked for: the operator has nothing to verify kubelets by (--kubelet-ca-file), and an unverified one is sent no token")
		}
		out = append(out, item)
	}
	return out
}

// Collect looks whether a pod has been checkpointed, and sees to it that it is.
func (c *Checkpoints) Collect(_ context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error) {
	switch {
	case item.State != v1alpha1.EvidencePending, x.DryRun:
		return item, nil
	case c.CAs == nil: // the operator that began it had one
		return gap(item, "no checkpoint was asked for: the operator has nothing to verify kubelets by (--kubelet-ca-file)"), nil
	}
	id, nodes := x.TaskID(item.ID), x.Reader
	out, err := inTheBackground(x, item, func(ctx context.Context, a attempt) Result {
		return (&checkpointRun{Checkpoints: c, attempt: a, nodes: nodes, item: item, pod: c.known.of(id)}).do(ctx)
	})
	if out.State != v1alpha1.EvidencePending {
		c.known.forget(id)
	}
	return out, err
}

// podCheckpoints is how far the checkpoints of one pod have come.
type podCheckpoints struct {
	node       string
	containers []*checkpoint
}

// checkpoint is what came of one container: the paths of its archives, or why there are none.
type checkpoint struct {
	container, problem string
	paths              []string
	done               bool
}

// merge adds the containers that run. One that runs no more by its turn is answered by the kubelet.
func (p *podCheckpoints) merge(pod *corev1.Pod) {
	p.node = pod.Spec.NodeName
	for _, log := range instances(pod) {
		if log.Instance == instanceCurrent && isRunning(pod, log.Container) && !p.has(log.Container) {
			p.containers = append(p.containers, &checkpoint{container: log.Container})
		}
	}
}

func (p *podCheckpoints) has(container string) bool {
	for _, c := range p.containers {
		if c.container == container {
			return true
		}
	}
	return false
}

func isRunning(pod *corev1.Pod, container string) bool {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		if statusOf(container, statuses).State.Running != nil {
			return true
		}
	}
	return false
}

// checkpointRun is one try at the checkpoints of one pod.
type checkpointRun struct {
	*Checkpoints
	attempt

	nodes client.Reader
	item  v1alpha1.EvidenceItem
	pod   *podCheckpoints
}

// do asks for the checkpoints that are missing, one after the other, and settles the item unless there is hope for more.
func (r *checkpointRun) do(ctx context.Context) Result {
	until, cancel := context.WithDeadline(ctx, r.until())
	defer cancel()
	err := r.ask(until)
	if ctx.Err() != nil {
		return Result{Err: fmt.Errorf("asking for checkpoints: %w", ctx.Err())}
	}
	lost := errors.Is(err, errGone) || errors.Is(err, errReplaced) || errors.Is(err, errNoKubelet)
	if err != nil && !lost && !r.over() {
		return Result{Err: err}
	}
	return Result{Item: r.settle(err)}
}

func (r *checkpointRun) ask(ctx context.Context) error {
	pod, err := samePod(ctx, r.Pods, r.item.Subject)
	if err != nil {
		return err
	}
	r.pod.merge(pod)
	if len(r.pod.containers) == 0 {
		return nil
	}
	host, err := r.kubelet(ctx)
	if err != nil {
		return err
	}
	token, err := r.Tokens.Token(ctx)
	if err != nil {
		return err
	}
	kubelet := newKubeletClient(host, token, r.CAs)
	defer kubelet.close()
	var unknown error
	for _, c := range r.pod.containers {
		if c.done {
			continue
		}
		if err := r.one(ctx, kubelet, c); errors.Is(err, errGone) || errors.Is(err, errReplaced) {
			return err
		} else if err != nil {
			unknown = err
		}
	}
	return unknown
}

// one asks for one checkpoint.
func (r *checkpointRun) one(ctx context.Context, kubelet *kubeletClient, c *checkpoint) error {
	paths, refusal, err := kubelet.checkpoint(ctx, r.item.Subject, c.container)
	if err != nil {
		c.problem = quote(err.Error()) + "; an archive may have been left"
		return fmt.Errorf("container %s: %w", c.container, err)
	}
	_, same := samePod(ctx, r.Pods, r.item.Subject)
	switch {
	case refusal != "":
		c.done, c.problem = true, refusal
	case errors.Is(same, errReplaced):
		c.done, c.problem = true, "the pod was replaced by a namesake meanwhile; what is in "+strings.Join(paths, ", ")+" may be the namesake's"
	default:
		c.done, c.problem, c.paths = true, "", paths
	}
	return same
}

// errNoKubelet says that there is nobody to ask.
var errNoKubelet = errors.New("no kubelet to ask")

// kubelet finds where the pod's kubelet listens.
func (r *checkpointRun) kubelet(ctx context.Context) (host string, _ error) {
	var node corev1.Node
	err := r.nodes.Get(ctx, client.ObjectKey{Name: r.pod.node}, &node)
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("%w: node %s is gone", errNoKubelet, r.pod.node)
	}
	if err != nil {
		return "", fmt.Errorf("reading node %s: %w", r.pod.node, err)
	}
	wanted := r.AddressTypes
	if len(wanted) == 0 {
		wanted = []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName}
	}
	port := node.Status.DaemonEndpoints.KubeletEndpoint.Port
	for _, kind := range wanted {
		for _, a := range node.Status.Addresses {
			if a.Type == kind && a.Address != "" && port > 0 {
				return net.JoinHostPort(a.Address, strconv.Itoa(int(port))), nil
			}
		}
	}
	return "", fmt.Errorf("%w: node %s does not say where its kubelet listens", errNoKubelet, r.pod.node)
}

// settle says what there is.
func (r *checkpointRun) settle(err error) v1alpha1.EvidenceItem {
	item := r.item
	var paths, kept, missing []string
	for _, c := range r.pod.containers {
		if len(c.paths) > 0 {
			paths, kept = append(paths, c.paths...), append(kept, c.container)
			continue
		}
		why := c.problem
		if why == "" && err != nil {
			why = quote(err.Error())
		}
		missing = append(missing, c.container+": "+why)
	}
	if len(paths) == 0 {
		switch {
		case len(missing) > 0:
			return gap(item, shorten("no checkpoint: "+listed(missing), maxMessage))
		case err != nil:
			return gap(item, shorten("no checkpoint: "+explain.Clean(err.Error()), maxMessage))
		}
		return gap(item, "no checkpoint: no container of the pod is running")
	}
	item.State, item.Location, item.TakenAt = v1alpha1.EvidenceCollected, checkpointLocation(r.pod.node, paths), metav1.NewTime(r.time())
	item.Message = "on the node's disk, from where it has to be fetched before the node goes; not verified by a digest; containers: " + listed(kept)
	if len(missing) > 0 {
		item.State = v1alpha1.EvidencePartial
		item.Message += "; missing: " + listed(missing)
	}
	item.Message = shorten(item.Message+"; every request makes another archive, so there may be older ones", maxMessage)
	return item
}

// checkpointLocation names the archives, or what the names of all of them begin with where there is no room for all.
func checkpointLocation(node string, paths []string) string {
	all := "node " + node + ": " + strings.Join(paths, ", ")
	if len([]rune(all)) <= maxLocation {
		return all
	}
	common := paths[0]
	for _, p := range paths[1:] {
		n := 0
		for n < min(len(common), len(p)) && common[n] == p[n] {
			n++
		}
		common = common[:n]
	}
	return shorten("node "+node+": "+explain.Clean(common)+"*", maxLocation)
}

// kubeletClient talks to one kubelet.
type kubeletClient struct {
	host, token string
	http        *http.Client
}

// newKubeletClient trusts only who has a certificate of the authorities for the address; goes through no proxy and follows no redirect, because each would be shown the token.
func newKubeletClient(host, token string, cas *x509.CertPool) *kubeletClient {
	return &kubeletClient{host: host, token: token, http: &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cas, MinVersion: tls.VersionTLS12}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (k *kubeletClient) close() { k.http.CloseIdleConnections() }

// checkpoint returns where the kubelet has put the archives, or why it refuses. An error means that it is not known whether it did anything.
func (k *kubeletClient) checkpoint(ctx context.Context, pod v1alpha1.ObjectRef, container string) (paths []string, refusal string, _ error) {
	target := url.URL{Scheme: "https", Host: k.host, Path: "/checkpoint/" + pod.Namespace + "/" + pod.Name + "/" + container}
	if deadline, ok := ctx.Deadline(); ok {
		// In seconds; without it the runtime's own, shorter timeout counts.
		target.RawQuery = "timeout=" + strconv.Itoa(max(1, int(time.Until(deadline).Seconds())))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), http.NoBody)
	if err != nil {
		return nil, "", fmt.Errorf("asking the kubelet: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+k.token)
	response, err := k.http.Do(request)
	if err != nil {
		return nil, "", fmt.Errorf("asking the kubelet: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxKubeletAnswer))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, "", fmt.Errorf("reading the kubelet's answer: %w", err)
	}
	switch response.StatusCode {
	case http.StatusOK:
		paths, refusal := archives(body)
		return paths, refusal, nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return nil, "", fmt.Errorf("the kubelet answers %s: %s", response.Status, quote(string(body)))
	default:
		return nil, refused(response.StatusCode, string(body)), nil
	}
}

// refused says what an answer of the kubelet means to people.
func refused(status int, body string) string {
	said := fmt.Sprintf(" (%d: %s)", status, quote(body))
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "the kubelet does not let ServiceAccount " + CheckpointerAccount + " create checkpoints" + said
	case status == http.StatusNotFound && !strings.Contains(body, "does not exist"), status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented:
		return "the kubelet does not offer checkpoints: its feature ContainerCheckpoint is off" + said
	case strings.Contains(body, "Unimplemented"), strings.Contains(strings.ToLower(body), "criu"), strings.Contains(body, "not supported"):
		return "the node's container runtime cannot make checkpoints" + said
	}
	return "the kubelet refuses" + said
}

// archives reads the paths in the kubelet's answer, or says why that is none: it has done what it was asked to, so that asking again would not help.
func archives(body []byte) (paths []string, refusal string) {
	var answer struct {
		Items []string `json:"items"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, "the kubelet says that it did, but its answer cannot be read: " + quote(string(body))
	}
	for _, path := range answer.Items {
		if path != "" {
			paths = append(paths, shorten(explain.Clean(path), maxLocation))
		}
	}
	if len(paths) == 0 {
		return nil, "the kubelet says that it did, but not where it is"
	}
	return paths, ""
}
