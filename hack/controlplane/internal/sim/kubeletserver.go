package sim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// CheckpointAnnotation set to "ok" lets the containers of a pod be
// checkpointed; without it the runtime cannot do that.
const CheckpointAnnotation = "sim.cofferdam.dev/checkpoint"

// kubeletAddress is where the kubelets of all simulated nodes listen. The
// address of the node itself leads nowhere.
const kubeletAddress = "127.0.0.1"

// kubeletServer is the HTTPS side of a simulated node: logs and checkpoints. As
// the real one it knows callers by client certificate or by token, and asks the
// API server what they may do.
type kubeletServer struct {
	kubelet  *kubelet
	pods     client.Reader
	listener net.Listener
	tls      *tls.Config
}

// listen takes a port, so that the node can say where its kubelet is.
func (k *kubelet) listen(pods client.Reader, node Node) (*kubeletServer, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(kubeletAddress, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen as the kubelet of %s: %w", k.name, err)
	}
	k.port = int32(listener.Addr().(*net.TCPAddr).Port)
	return &kubeletServer{kubelet: k, pods: pods, listener: listener, tls: &tls.Config{
		Certificates: []tls.Certificate{node.Serving}, ClientCAs: node.ClientCAs, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12,
	}}, nil
}

// serve answers until the context ends.
func (s *kubeletServer) serve(ctx context.Context) error {
	log := logf.FromContext(ctx).WithValues("node", s.kubelet.name)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.allowed("proxy", s.containerLogs))
	mux.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.allowed("checkpoint", s.checkpoint))
	server := &http.Server{Handler: mux, TLSConfig: s.tls, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		_ = server.Close() // streams that go on are not waited for
	}()
	err := server.Serve(tls.NewListener(s.listener, s.tls))
	if ctx.Err() == nil {
		return fmt.Errorf("serve as the kubelet of %s: %w", s.kubelet.name, err)
	}
	<-done
	log.Info("kubelet stopped")
	return nil
}

// allowed lets those in who may do this to the node, as the real kubelet with
// webhook authentication and authorization does.
func (s *kubeletServer) allowed(subresource string, next http.HandlerFunc) http.HandlerFunc {
	verbs := map[string]string{http.MethodGet: "get", http.MethodPost: "create"}
	return func(w http.ResponseWriter, r *http.Request) {
		user, err := s.caller(r)
		if err != nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, Groups: user.Groups, UID: user.UID,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verbs[r.Method], Version: "v1", Resource: "nodes", Subresource: subresource, Name: s.kubelet.name,
			},
		}}
		review, err = s.kubelet.clientset.AuthorizationV1().SubjectAccessReviews().Create(r.Context(), review, metav1.CreateOptions{})
		switch {
		case err != nil:
			http.Error(w, "Authorization error: "+err.Error(), http.StatusInternalServerError)
		case !review.Status.Allowed:
			http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=[%s])", user.Username, verbs[r.Method], subresource), http.StatusForbidden)
		default:
			next(w, r)
		}
	}
}

var errAnonymous = errors.New("neither a certificate nor a valid token")

func (s *kubeletServer) caller(r *http.Request) (authenticationv1.UserInfo, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		subject := r.TLS.VerifiedChains[0][0].Subject
		return authenticationv1.UserInfo{Username: subject.CommonName, Groups: append(slices.Clone(subject.Organization), "system:authenticated")}, nil
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		return authenticationv1.UserInfo{}, errAnonymous
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	review, err := s.kubelet.clientset.AuthenticationV1().TokenReviews().Create(r.Context(), review, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, fmt.Errorf("review token: %w", err)
	}
	if !review.Status.Authenticated {
		return authenticationv1.UserInfo{}, errAnonymous
	}
	return review.Status.User, nil
}

// find returns the pod of this node that the path names, or answers that there
// is none.
func (s *kubeletServer) find(w http.ResponseWriter, r *http.Request) (pod *corev1.Pod, container string) {
	pod = &corev1.Pod{}
	key := client.ObjectKey{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}
	if err := s.pods.Get(r.Context(), key, pod); err != nil || pod.Spec.NodeName != s.kubelet.name {
		http.Error(w, fmt.Sprintf("pod %q does not exist", key.Name), http.StatusNotFound)
		return nil, ""
	}
	container = r.PathValue("container")
	if !slices.Contains(containerNames(pod), container) {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", container, key.Name), http.StatusNotFound)
		return nil, ""
	}
	return pod, container
}

func containerNames(pod *corev1.Pod) []string {
	var names []string
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name)
	}
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		names = append(names, c.Name)
	}
	return names
}

func (s *kubeletServer) containerLogs(w http.ResponseWriter, r *http.Request) {
	pod, container := s.find(w, r)
	if pod == nil {
		return
	}
	query := r.URL.Query()
	flag := func(name string) bool { return query.Get(name) == "true" }
	request := logRequest{container: container, previous: flag("previous"), timestamps: flag("timestamps"), follow: flag("follow"), limit: -1}
	if limit, err := strconv.ParseInt(query.Get("limitBytes"), 10, 64); err == nil {
		request.limit = limit
	}
	instance, err := instanceOf(pod, request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	flush := http.NewResponseController(w).Flush
	err = writeLog(r.Context(), w, func() { _ = flush() }, pod, request, instance) // who has gone needs no flush
	if err == nil && request.follow && instance.running {
		_ = flush()
		s.awaitEnd(r.Context(), pod, request)
	}
}

// awaitEnd keeps a log open that is followed: this container prints nothing
// more, but it has not ended.
func (s *kubeletServer) awaitEnd(ctx context.Context, pod *corev1.Pod, request logRequest) {
	ticker := time.NewTicker(followPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := &corev1.Pod{}
		if err := s.pods.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil || now.UID != pod.UID {
			return
		}
		if find(allStatuses(now), request.container).State.Running == nil {
			return
		}
	}
}

// checkpoint answers as the kubelet does; no archive is made.
func (s *kubeletServer) checkpoint(w http.ResponseWriter, r *http.Request) {
	pod, container := s.find(w, r)
	if pod == nil {
		return
	}
	failed := func(why string) {
		http.Error(w, fmt.Sprintf("checkpointing of %s/%s/%s failed (%s)", pod.Namespace, pod.Name, container, why), http.StatusInternalServerError)
	}
	switch {
	case pod.Annotations[CheckpointAnnotation] != "ok":
		failed("rpc error: code = Unimplemented desc = method CheckpointContainer not implemented")
	case find(allStatuses(pod), container).State.Running == nil:
		failed("container " + container + " not found")
	default:
		path := fmt.Sprintf("/var/lib/kubelet/checkpoints/checkpoint-%s_%s-%s-%s.tar", pod.Name, pod.Namespace, container, time.Now().Format(time.RFC3339))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string][]string{"items": {path}}) // who has gone needs no answer
	}
}
