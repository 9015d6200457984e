package recovery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/gitops"
)

// +kubebuilder:rbac:groups=argoproj.io,resources=applications;applicationsets,verbs=get;list;patch
// +kubebuilder:rbac:groups=kustomize.toolkit.fluxcd.io,resources=kustomizations,verbs=get;list;patch
// +kubebuilder:rbac:groups=helm.toolkit.fluxcd.io,resources=helmreleases,verbs=get;list;patch

// managersPoll is how soon it is looked again for managers that are missing, or that the declarer may not touch yet: nothing tells when that changes.
const managersPoll = 10 * time.Second

// How far managers are followed upwards.
const (
	maxManagerLevels = 8
	maxManagers      = v1alpha1.MaxGitOpsPauses
)

// managed is an object that a recovery changes.
type managed struct {
	kind   string
	object client.Object
	// workload is the workload whose images it decides on, which may be kept by it; nil for a claim.
	workload *workload
}

func (m managed) String() string { return m.kind + " " + m.object.GetName() }

// manager is what applies an object, or another manager, from Git.
type manager struct {
	object *unstructured.Unstructured
	// child is the Application for which an ApplicationSet is looked at.
	child string
	// applies are the objects that it applies itself.
	applies []managed
}

func (m *manager) ref() v1alpha1.ObjectRef { return managerRef(m.object) }

func managerRef(o *unstructured.Unstructured) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID())}
}

func nameOf(ref v1alpha1.ObjectRef) string {
	return gitops.Ref{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}.String()
}

// managedBy reads the objects that the managers of a pauseGitOps step apply. It says which of them is missing.
func managedBy(ctx context.Context, x *Execution, step *v1alpha1.PauseGitOpsStep) (out []managed, why string, err error) {
	workloads, claims := step.Workloads, []string(nil)
	if len(workloads) == 0 {
		workloads, claims = touched(x.Plan, x.Choices)
	}
	for _, ref := range workloads {
		w, why, err := readWorkload(ctx, x.Reader, x.Incident.Namespace, ref)
		if err != nil || w == nil {
			return nil, why, err
		}
		decisive, why, err := decisiveObjects(ctx, x, w)
		if err != nil || why != "" {
			return nil, why, err
		}
		out = append(out, decisive...)
	}
	for _, name := range claims {
		claim, err := readClaim(ctx, x, name)
		if err != nil {
			return nil, "", err
		}
		if claim != nil {
			out = append(out, managed{kind: "PersistentVolumeClaim", object: claim})
		}
	}
	return out, "", nil
}

// decisiveObjects are the objects that decide on the images of a workload: itself, a Deployment to which it refers for its template, and the owner that the plan changes. Whatever applies one of them from Git may put
// the former images back. It says which of them is missing.
func decisiveObjects(ctx context.Context, x *Execution, w *workload) (out []managed, why string, err error) {
	out = append(out, managed{kind: w.changed().Kind, object: w.object, workload: w})
	if w.self != nil {
		out = append(out, managed{kind: w.ref.Kind, object: w.self, workload: w})
	}
	good := knownGood(x.Plan, w.ref.Kind, w.ref.Name)
	if good == nil || good.Owner.Name == "" {
		return out, "", nil
	}
	owner, why, err := readOwner(ctx, x, w, good.Owner)
	if err != nil || why != "" {
		return nil, why, err
	}
	return append(out, managed{kind: owner.GetKind(), object: owner, workload: w}), "", nil
}

// touched are the workloads and the claims that a plan is about, those included that are made to name other claims.
func touched(plan v1alpha1.RecoveryPlanSpec, choices []v1alpha1.StepChoice) (workloads []v1alpha1.WorkloadRef, claims []string) {
	add := func(ref v1alpha1.WorkloadRef) {
		if !slices.Contains(workloads, ref) {
			workloads = append(workloads, ref)
		}
	}
	for _, good := range plan.Images {
		add(good.Workload)
	}
	for _, s := range plan.Steps {
		switch {
		case s.RollBackImages != nil:
			for _, ref := range s.RollBackImages.Workloads {
				add(ref)
			}
		case s.Scale != nil:
			for _, w := range s.Scale.Workloads {
				add(v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(w.Kind), Name: w.Name})
			}
		case s.RestoreVolumes != nil:
			claims = append(claims, s.RestoreVolumes.Claims...)
		}
	}
	for _, choice := range choices {
		for _, consumer := range choice.Consumers {
			add(v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(consumer.Kind), Name: consumer.Name})
		}
	}
	return workloads, claims
}

// ascent follows objects to their managers, and those to theirs.
type ascent struct {
	x *Execution
	// found are the managers, each after all that are above it.
	found []*manager
	path  []gitops.Ref
}

// managersOf are the managers of the objects, from the top down, and which objects nothing manages. It says why that is not known: a manager that is missing, that cannot be read, or that manages itself by way of others is
// named, and waited for.
func managersOf(ctx context.Context, x *Execution, objects []managed) (found []*manager, free []string, why string, err error) {
	a := &ascent{x: x}
	for _, o := range objects {
		direct, why, err := a.above(ctx, o.kind, o.object)
		if err != nil || why != "" {
			return nil, nil, why, err
		}
		if len(direct) == 0 {
			free = append(free, o.String())
		}
		for _, m := range direct {
			m.applies = append(m.applies, o)
		}
	}
	return a.found, free, "", nil
}

// above are the managers of one object. They, and all that are above them, are found then.
func (a *ascent) above(ctx context.Context, kind string, obj client.Object) ([]*manager, string, error) {
	var out []*manager
	for _, claim := range gitops.Claims(kind, obj) {
		if len(a.path) > 0 && claim.Manager.Kind == gitops.Kustomization {
			continue // a manager is fenced off from the Kustomization above it
		}
		object, why, err := a.x.findManager(ctx, claim, kind, obj)
		if err != nil || why != "" {
			return nil, why, err
		}
		if object == nil {
			continue
		}
		m, why, err := a.climb(ctx, object, obj.GetName())
		if err != nil || why != "" {
			return nil, why, err
		}
		out = append(out, m)
	}
	return out, "", nil
}

// climb finds a manager and all that are above it.
func (a *ascent) climb(ctx context.Context, object *unstructured.Unstructured, child string) (*manager, string, error) {
	ref := gitops.Ref{Kind: object.GetKind(), Namespace: object.GetNamespace(), Name: object.GetName()}
	if ref.Kind != gitops.ApplicationSet {
		child = ""
	}
	if i := slices.Index(a.path, ref); i >= 0 {
		var names []string
		for _, r := range append(slices.Clone(a.path[i:]), ref) {
			names = append(names, r.String())
		}
		return nil, "managers apply one another in a circle, and none of them is the top: " + strings.Join(names, " is applied by "), nil
	}
	for _, m := range a.found {
		if m.object.GetUID() == object.GetUID() && m.child == child {
			return m, "", nil
		}
	}
	if len(a.path) >= maxManagerLevels || len(a.found) >= maxManagers {
		return nil, fmt.Sprintf("there are more than %d levels, or %d managers, up to %s: pause it by hand, and have the step skipped", maxManagerLevels, maxManagers, ref), nil
	}
	a.path = append(a.path, ref)
	defer func() { a.path = a.path[:len(a.path)-1] }()
	if _, why, err := a.above(ctx, ref.Kind, object); err != nil || why != "" {
		return nil, why, err
	}
	m := &manager{object: object, child: child}
	a.found = append(a.found, m)
	return m, "", nil
}

// findManager reads the manager that an object names, or nil when what it says is no word of a manager after all.
func (x *Execution) findManager(ctx context.Context, claim gitops.Claim, kind string, obj client.Object) (*unstructured.Unstructured, string, error) {
	ref := claim.Manager
	says := fmt.Sprintf("%s %s says that %s manages it", kind, obj.GetName(), ref)
	mapping, err := x.Mapper.RESTMapping(gitops.GroupKind(ref.Kind))
	if apimeta.IsNoMatchError(err) {
		if !claim.Certain {
			return nil, "", nil // many things carry this label
		}
		return nil, says + ", and this cluster does not serve its kind: pause it where it is, and have the step skipped", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("looking up the kind %s: %w", ref.Kind, err)
	}
	candidates, err := x.candidates(ctx, ref, mapping.GroupVersionKind)
	if err != nil {
		return nil, fmt.Sprintf("%s, which cannot be read: %v", says, err), nil
	}
	if ref.Namespace == "" {
		candidates = slices.DeleteFunc(candidates, func(u *unstructured.Unstructured) bool {
			return !gitops.Lists(u, kind, obj.GetNamespace(), obj.GetName())
		})
	}
	switch {
	case len(candidates) == 1:
		return candidates[0], "", nil
	case len(candidates) == 0 && !claim.Certain:
		return nil, "", nil
	case len(candidates) == 0:
		return nil, says + ", and there is none, or none that lists it: create it, or take the mark off", nil
	}
	var names []string
	for _, c := range candidates {
		names = append(names, nameOf(managerRef(c)))
	}
	return nil, fmt.Sprintf("%s, and there are several that list it: %s", says, strings.Join(names, ", ")), nil
}

// candidates are the objects that a reference can mean: one, or those of that name in every namespace where it names none.
func (x *Execution) candidates(ctx context.Context, ref gitops.Ref, gvk schema.GroupVersionKind) ([]*unstructured.Unstructured, error) {
	if ref.Namespace != "" {
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(gvk)
		err := x.Reader.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, object)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return []*unstructured.Unstructured{object}, err
	}
	// Not every change of any Application in the cluster is to bring a pass: only those are read, and with that waited for, that are found.
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	if err := x.Live.List(ctx, list, client.MatchingFields{"metadata.name": ref.Name}); err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for i := range list.Items {
		found, err := x.candidates(ctx, gitops.Ref{Kind: ref.Kind, Namespace: list.Items[i].GetNamespace(), Name: ref.Name}, gvk)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// readManager reads a manager that was paused. It returns nil when that object does not exist any more.
func (x *Execution) readManager(ctx context.Context, ref v1alpha1.ObjectRef) (*unstructured.Unstructured, error) {
	object, err := x.readNamed(ctx, ref)
	if err != nil || object == nil || string(object.GetUID()) != ref.UID {
		return nil, err
	}
	return object, nil
}

// readNamed reads the manager that has the name now, or nil where there is none.
func (x *Execution) readNamed(ctx context.Context, ref v1alpha1.ObjectRef) (*unstructured.Unstructured, error) {
	mapping, err := x.Mapper.RESTMapping(gitops.GroupKind(ref.Kind))
	if apimeta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the kind %s: %w", ref.Kind, err)
	}
	found, err := x.candidates(ctx, gitops.Ref{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}, mapping.GroupVersionKind)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", nameOf(ref), err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[0], nil
}
