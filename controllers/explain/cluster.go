package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// Cluster is where facts are read from. It only reads, and as whoever its clients act for.
type Cluster struct {
	Core    kubernetes.Interface
	Dynamic dynamic.Interface
	// Discovery tells which kinds the API server serves. It must not answer from a cache: a policy API that was installed a moment ago matters.
	Discovery Discovery
}

// reading is the reading of the facts about one pod.
type reading struct {
	Cluster
	facts  *Facts
	served []resource
}

// Facts reads what it takes to explain the pod. What the caller may not read becomes a gap of the facts; an error means that nothing can be said, because the pod, or what the API server serves, could not be read.
func (c Cluster) Facts(ctx context.Context, pod types.NamespacedName) (*Facts, error) {
	found, err := c.Core.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no Pod %s in namespace %s; kubectl get pods -n %s shows those that there are", pod.Name, pod.Namespace, pod.Namespace)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("you may not read Pod %s; ask for the permission to get pods in namespace %s", pod, pod.Namespace)
	case err != nil:
		return nil, fmt.Errorf("reading Pod %s: %w", pod, err)
	}
	r := &reading{Cluster: c, facts: &Facts{Source: SourceCluster, Pod: found, PodsWithin: ScopeNone}}
	if err := r.discover(ctx); err != nil {
		return nil, err
	}
	for _, read := range []func(context.Context){r.networkPolicies, r.otherPolicies, r.unreadPolicies, r.ownNamespace, r.incidents, r.routes, r.peers} {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("reading what concerns Pod %s: %w", pod, context.Cause(ctx))
		}
		read(ctx)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("reading what concerns Pod %s: %w", pod, context.Cause(ctx))
	}
	return r.facts, nil
}

func (r *reading) namespace() string { return r.facts.Pod.Namespace }

// pageSize is how many objects are asked for at a time.
const pageSize = 500

// collect lists everything, page by page.
func collect[L metav1.ListInterface](ctx context.Context, list func(context.Context, metav1.ListOptions) (L, error), each func(L)) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := list(ctx, options)
		if err != nil {
			return err
		}
		each(page)
		if page.GetContinue() == "" {
			return nil
		}
		options.Continue = page.GetContinue()
	}
}

// all lists everything at once if it changes too fast to be listed page by page.
func all[L metav1.ListInterface, T any](ctx context.Context, list func(context.Context, metav1.ListOptions) (L, error), items func(L) []T) ([]T, error) {
	var out []T
	add := func(page L) { out = append(out, items(page)...) }
	err := collect(ctx, list, add)
	if apierrors.IsResourceExpired(err) {
		out = nil
		page, err := list(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		add(page)
		return out, nil
	}
	return out, err
}

// wide lists in all namespaces or, where that is forbidden, in the one given.
func wide[T any](namespace string, list func(namespace string) ([]T, error)) (items []T, within Scope, err error) {
	items, err = list(metav1.NamespaceAll)
	if !apierrors.IsForbidden(err) {
		return items, ScopeCluster, err
	}
	items, err = list(namespace)
	return items, ScopeNamespace, err
}

// why says why something could not be listed, and what to do about it.
func why(err error, what, where string) string {
	if apierrors.IsForbidden(err) {
		return fmt.Sprintf("you may not list %s %s; ask for that permission", what, where)
	}
	return err.Error()
}

func inNamespace(name string) string { return "in namespace " + name }

const inAllNamespaces = "in all namespaces"

func pointers[T any](items []T) []*T {
	out := make([]*T, 0, len(items))
	for i := range items {
		out = append(out, &items[i])
	}
	return out
}

func (r *reading) networkPolicies(ctx context.Context) {
	found, err := all(ctx, r.Core.NetworkingV1().NetworkPolicies(r.namespace()).List, func(l *networkingv1.NetworkPolicyList) []networkingv1.NetworkPolicy { return l.Items })
	if err != nil {
		r.facts.gap(true, "which NetworkPolicies there are", why(err, "networkpolicies.networking.k8s.io", inNamespace(r.namespace())))
	}
	r.facts.NetworkPolicies = pointers(found)
}

// list lists objects of a resource: of the namespace, or of all if it is empty or the resource has none.
func (r *reading) list(ctx context.Context, res resource, namespace string) ([]*unstructured.Unstructured, error) {
	if !res.listable {
		return nil, fmt.Errorf("the API server has no way to list %s", res)
	}
	client := dynamic.ResourceInterface(r.Dynamic.Resource(res.GroupVersionResource))
	if res.namespaced && namespace != "" {
		client = r.Dynamic.Resource(res.GroupVersionResource).Namespace(namespace)
	}
	found, err := all(ctx, client.List, func(l *unstructured.UnstructuredList) []unstructured.Unstructured { return l.Items })
	if apierrors.IsNotFound(err) {
		return nil, nil // its kind has gone since it was discovered
	}
	return pointers(found), err
}

func (r *reading) where(res resource) string {
	if res.namespaced {
		return inNamespace(r.namespace())
	}
	return "of the cluster"
}

func (r *reading) otherPolicies(ctx context.Context) {
	for _, res := range r.served {
		if !readable(res.kind) {
			continue
		}
		found, err := r.list(ctx, res, r.namespace())
		if err != nil {
			r.facts.gap(true, fmt.Sprintf("which objects of kind %s (%s) there are", res.kind.Kind, res.kind.Group), why(err, res.String(), r.where(res)))
		}
		r.facts.Others = append(r.facts.Others, found...)
	}
}

// unreadPolicies looks for policies that nobody can evaluate. One of a kind is enough.
func (r *reading) unreadPolicies(ctx context.Context) {
	for _, res := range r.served {
		if !unreadable(res.kind) {
			continue
		}
		found, err := r.list(ctx, res, r.namespace())
		switch {
		case err != nil:
			r.facts.gap(true, fmt.Sprintf("whether there are policies of kind %s (%s), which are not evaluated", res.kind.Kind, res.kind.Group), why(err, res.String(), r.where(res)))
		case len(found) > 0:
			// Not every API server tells the kind of what is in a list.
			found[0].SetGroupVersionKind(res.kind.WithVersion(res.Version))
			object := title(found[0])
			if len(found) > 1 {
				object += fmt.Sprintf(" and %d others", len(found)-1)
			}
			r.facts.notEvaluated(object)
		}
	}
}

// ownNamespace reads the pod's namespace, which people who may see nothing else of the cluster may mostly read.
func (r *reading) ownNamespace(ctx context.Context) {
	ns, err := r.Core.CoreV1().Namespaces().Get(ctx, r.namespace(), metav1.GetOptions{})
	if err == nil {
		r.facts.Namespaces = append(r.facts.Namespaces, ns)
		return
	}
	reason := err.Error()
	if apierrors.IsForbidden(err) {
		reason = fmt.Sprintf("you may not read it; ask for the permission to get namespace %s", r.namespace())
	}
	r.facts.noteNamespace(reason)
}

// incidents reads the Incidents, if the pod carries the label of one. Their namespaces are not known: policies that they wrote tell, and are not believed without the UID.
func (r *reading) incidents(ctx context.Context) {
	uids := holders(r.facts.Pod)
	if len(uids) == 0 {
		return
	}
	res, served := r.find(kindIncident)
	if !served {
		r.facts.IncidentsUnread = "this cluster does not serve the kind Incident"
		return
	}
	found, within, err := wide(r.namespace(), func(ns string) ([]*unstructured.Unstructured, error) { return r.list(ctx, res, ns) })
	if within == ScopeNamespace {
		found = append(found, r.named(ctx, res)...)
	}
	r.takeIncidents(found, uids)
	missing := slices.ContainsFunc(uids, func(uid string) bool {
		return !slices.ContainsFunc(r.facts.Incidents, func(inc *v1alpha1.Incident) bool { return string(inc.UID) == uid })
	})
	switch {
	case !missing || r.facts.IncidentsUnread != "":
	case err != nil:
		r.facts.IncidentsUnread = why(err, res.String(), inNamespace(r.namespace()))
	case within == ScopeNamespace:
		r.facts.IncidentsUnread = fmt.Sprintf("you may not list %s %s; ask for that permission", res, inAllNamespaces)
	}
}

// named gets the Incidents that policies of the namespace say they were written for.
func (r *reading) named(ctx context.Context, res resource) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	seen := map[string]bool{}
	for _, np := range r.facts.NetworkPolicies {
		key := np.Annotations[v1alpha1.IncidentAnnotation]
		ns, name, found := strings.Cut(key, "/")
		if !found || seen[key] || len(seen) == maxItems {
			continue
		}
		seen[key] = true
		if inc, err := r.Dynamic.Resource(res.GroupVersionResource).Namespace(ns).Get(ctx, name, metav1.GetOptions{}); err == nil {
			out = append(out, inc)
		}
	}
	return out
}

func (r *reading) takeIncidents(found []*unstructured.Unstructured, uids []string) {
	for _, u := range found {
		inc := &v1alpha1.Incident{}
		known := slices.ContainsFunc(r.facts.Incidents, func(i *v1alpha1.Incident) bool { return i.UID == u.GetUID() })
		if known || !slices.Contains(uids, string(u.GetUID())) {
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, inc); err != nil {
			r.facts.IncidentsUnread = fmt.Sprintf("Incident %s/%s cannot be read: %v", u.GetNamespace(), u.GetName(), err)
			continue
		}
		r.facts.Incidents = append(r.facts.Incidents, inc)
	}
}

// peers reads who could use what leaks, if anything does.
func (r *reading) peers(ctx context.Context) {
	if len(ask(r.facts).leaks()) == 0 {
		return
	}
	const unknown = "who can use the leaks now"
	if len(r.facts.Namespaces) == 0 {
		// Leaks that name namespaces by their labels could not be told apart.
		r.facts.gap(false, unknown, "the labels of namespace "+r.namespace()+" could not be read; every leak counts as active")
		return
	}
	namespaces, err := all(ctx, r.Core.CoreV1().Namespaces().List, func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items })
	if err == nil {
		r.facts.Namespaces = pointers(namespaces)
	}
	pods, within, podsErr := wide(r.namespace(), func(ns string) ([]corev1.Pod, error) {
		if ns == metav1.NamespaceAll && err != nil {
			return nil, errNarrow
		}
		return all(ctx, r.Core.CoreV1().Pods(ns).List, func(l *corev1.PodList) []corev1.Pod { return l.Items })
	})
	if podsErr != nil {
		r.facts.gap(false, unknown, why(podsErr, "pods", inNamespace(r.namespace()))+"; every leak counts as active")
		return
	}
	if within == ScopeNamespace {
		r.facts.gap(false, "which pods of other namespaces can use the leaks now", fmt.Sprintf(
			"you may not list namespaces and pods of the whole cluster; active and latent are about namespace %s only, and what is latent there may be in use from elsewhere", r.namespace()))
	}
	r.facts.Pods, r.facts.PodsWithin = pointers(pods), within
}

// errNarrow makes wide ask for one namespace only.
var errNarrow = apierrors.NewForbidden(corev1.Resource("namespaces"), "", errors.New("the labels of other namespaces are not known"))
