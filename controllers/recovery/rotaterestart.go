package recovery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/target"
)

// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets;daemonsets,verbs=get;list;patch

// restartable are the kinds that are restarted, in the order in which they are where nobody has said otherwise.
var restartable = []string{"Deployment", "StatefulSet", "DaemonSet"}

// chooseConsumers decides what is restarted: what is listed, and then whatever else uses what is rotated.
func (r *rotation) chooseConsumers(ctx context.Context) ([]v1alpha1.StepChoice, string, error) {
	var out []v1alpha1.StepChoice
	for _, listed := range r.want.Workloads {
		w, why, err := readWorkload(ctx, r.x.Reader, r.x.Incident.Namespace, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(listed.Kind), Name: listed.Name})
		if err != nil || w == nil {
			return nil, why, err
		}
		out = append(out, r.choice(w.ref, "restarted, because the plan lists it"))
	}
	if r.want.Restart != v1alpha1.RestartConsumers {
		return out, "", nil
	}
	secrets, why, err := r.rotatedSecrets(ctx)
	if err != nil || why != "" {
		return nil, why, err
	}
	users, err := r.users(ctx, secrets)
	if err != nil {
		return nil, "", err
	}
	for _, c := range users {
		if !slices.ContainsFunc(out, func(o v1alpha1.StepChoice) bool { return o.Object == c.Object }) {
			out = append(out, c)
		}
	}
	return out, "", nil
}

// rotatedSecrets are the names of the Secrets that get new values.
func (r *rotation) rotatedSecrets(ctx context.Context) (names []string, why string, err error) {
	for _, g := range r.want.Generate {
		names = append(names, g.SecretName)
	}
	for _, name := range r.want.ExternalSecrets {
		u, why, err := r.readOwner(ctx, externalSecretKind, name, externalSecretVersions...)
		if err != nil || why != "" {
			return nil, why, err
		}
		names = append(names, targetOf(u))
	}
	for _, name := range r.want.Certificates {
		u, why, err := r.readOwner(ctx, certificateKind, name, "cert-manager.io/v1")
		if err != nil || why != "" {
			return nil, why, err
		}
		names = append(names, secretOf(u))
	}
	return names, "", nil
}

// users are the workloads whose templates refer to one of the Secrets.
func (r *rotation) users(ctx context.Context, secrets []string) ([]v1alpha1.StepChoice, error) {
	var out []v1alpha1.StepChoice
	add := func(kind string, meta *metav1.ObjectMeta, template *corev1.PodTemplateSpec) {
		if uses := common(evidence.SecretsOf(&template.Spec), secrets); len(uses) > 0 {
			out = append(out, r.choice(r.ref(kind, meta.Name, string(meta.UID)), "restarted, because it refers to Secret %s", strings.Join(uses, ", ")))
		}
	}
	in := client.InNamespace(r.x.Incident.Namespace)
	var (
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		daemonSets   appsv1.DaemonSetList
	)
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets} {
		if err := r.x.Reader.List(ctx, list, in); err != nil {
			return nil, fmt.Errorf("listing the workloads in namespace %s: %w", r.x.Incident.Namespace, err)
		}
	}
	for i := range deployments.Items {
		add("Deployment", &deployments.Items[i].ObjectMeta, &deployments.Items[i].Spec.Template)
	}
	for i := range statefulSets.Items {
		add("StatefulSet", &statefulSets.Items[i].ObjectMeta, &statefulSets.Items[i].Spec.Template)
	}
	for i := range daemonSets.Items {
		add("DaemonSet", &daemonSets.Items[i].ObjectMeta, &daemonSets.Items[i].Spec.Template)
	}
	slices.SortStableFunc(out, func(a, b v1alpha1.StepChoice) int {
		return cmp.Or(cmp.Compare(slices.Index(restartable, a.Object.Kind), slices.Index(restartable, b.Object.Kind)), cmp.Compare(a.Object.Name, b.Object.Name))
	})
	return out, nil
}

// common are the names that are in both.
func common(a, b []string) []string {
	var out []string
	for _, name := range a {
		if slices.Contains(b, name) {
			out = append(out, name)
		}
	}
	return out
}

// restart restarts what was chosen, one after the other, and then looks for pods that were overlooked.
func (r *rotation) restart(ctx context.Context) (Outcome, error) {
	var messages []string
	for _, c := range r.choices(restartable...) {
		out, err := r.restartOne(ctx, c.Object)
		if err != nil {
			return out, err
		}
		if !out.Done && r.x.Status(r.step.Name) != nil {
			return out, nil
		}
		messages = append(messages, out.Message)
	}
	if left := r.overlooked(); left != "" {
		return waiting("%s", left), nil
	}
	return done("%s", cmp.Or(strings.Join(messages, "; "), "nothing was restarted")), nil
}

func (r *rotation) restartOne(ctx context.Context, chosen v1alpha1.ObjectRef) (Outcome, error) {
	w, why, err := readWorkload(ctx, r.x.Reader, chosen.Namespace, v1alpha1.WorkloadRef{Kind: v1alpha1.RecoverableKind(chosen.Kind), Name: chosen.Name})
	if err != nil || w == nil {
		return waiting("%s", why), err
	}
	name := chosen.Kind + " " + chosen.Name
	if w.ref != chosen && r.younger(w) {
		return done("%s was made anew since", name), nil
	}
	if w.template.Annotations[v1alpha1.RotationAnnotation] == r.id {
		r.x.Journal.Done(v1alpha1.ActionRestart, w.ref)
		return r.rolledOut(w), nil
	}
	if why := cmp.Or(unsettled(r.x), r.unrecovered(w)); why != "" {
		return waiting("%s is not restarted yet: %s", name, why), nil
	}
	if above := ownerAbove(w.object); above != "" && r.restarted(w) {
		return waiting("%s was restarted, and %s, which keeps it, has taken that back: have that one restart it, or skip the step", name, above), nil
	}
	detail := "restart its pods, because secrets that they use were rotated"
	if !r.x.Journal.IntendAnew(v1alpha1.ActionRestart, w.ref, detail) {
		return waiting("%s is about to be restarted", name), nil
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: w.ref, Detail: detail}
	return waiting("%s is about to be restarted", name), r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		patch, err := r.restartPatch(w)
		if err != nil {
			return err
		}
		return ifUnchanged(c.Patch(ctx, w.object, patch))
	})
}

// restarted reports whether this step has restarted the workload, and seen that, in this try.
func (r *rotation) restarted(w *workload) bool {
	status := r.x.Status(r.step.Name)
	last, known := r.x.Journal.Last(v1alpha1.ActionRestart, w.ref)
	return status != nil && known && last.State == v1alpha1.JournalDone && !last.IntendedAt.Before(&status.StartedAt)
}

// younger reports whether a workload was made after the last secret had got its new value: its pods have never had another one.
func (r *rotation) younger(w *workload) bool {
	since := r.rotatedAt()
	for _, at := range since {
		if !w.object.GetCreationTimestamp().After(at.Time) {
			return false
		}
	}
	return len(since) > 0
}

// restartPatch changes one annotation of the template of exactly this workload, as it was read. All else in the template stays, the mark of a recovery and its images included.
func (r *rotation) restartPatch(w *workload) (client.Patch, error) {
	var body any = map[string]any{"metadata": map[string]any{"annotations": map[string]any{v1alpha1.RotationAnnotation: r.id}}}
	for _, field := range slices.Backward(w.path) {
		body = map[string]any{field: body}
	}
	body.(map[string]any)["metadata"] = map[string]any{"uid": w.ref.UID, "resourceVersion": w.object.GetResourceVersion()}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("restarting %s %s: %w", w.ref.Kind, w.ref.Name, err)
	}
	return client.RawPatch(types.MergePatchType, raw), nil
}

// unrecovered says why a workload of the Incident must not be restarted yet, or "": a restart makes another revision, and another revision of what is compromised would come out of its quarantine for a moment.
func (r *rotation) unrecovered(w *workload) string {
	held := slices.ContainsFunc(r.x.Incident.Status.Revisions, func(rev v1alpha1.RevisionStatus) bool {
		return rev.State != v1alpha1.RevisionReleased && rev.Workload.Kind == w.ref.Kind && rev.Workload.Namespace == w.ref.Namespace && rev.Workload.Name == w.ref.Name
	})
	rehearsed := r.x.Status(r.step.Name) == nil // then it is as if the steps before had rolled it back
	if !held || rehearsed || RecoveredBy(r.x.Incident)(w.ref, w.template.Annotations, &w.template.Spec) {
		return ""
	}
	return "the Incident holds it, and it is not rolled back; have that done by a step that this one depends on, or restart none, since rolling back restarts it as well"
}

// rolledOut believes only pods, as with images: all that the workload has are of the new revision and ready.
func (r *rotation) rolledOut(w *workload) Outcome {
	name := w.ref.Kind + " " + w.ref.Name
	switch {
	case w.paused:
		return waiting("%s is paused: resume its rollout (kubectl rollout resume)", name)
	case !w.observed || w.hash == "":
		return waiting("%s: its controller has not yet seen the change", name)
	}
	var old, notReady []string
	ready := int32(0)
	for _, p := range workloadPods(r.x.All, w) {
		switch {
		case target.Ended(p):
		case p.Labels[w.hashLabel] != w.hash:
			old = append(old, p.Name)
		case !isReady(p) || !p.DeletionTimestamp.IsZero():
			notReady = append(notReady, p.Name)
		default:
			ready++
		}
	}
	switch {
	case len(old) > 0 && (w.onDelete || w.partition > 0):
		return waiting("%s: its update strategy leaves pods as they are, delete them: %s", name, strings.Join(old, ", "))
	case len(old) > 0:
		return waiting("%s: pods from before the restart still run: %s", name, strings.Join(old, ", "))
	case len(notReady) > 0:
		return waiting("%s: pods are not ready: %s", name, strings.Join(notReady, ", "))
	case ready < w.wanted && blockers(r.x, w) != "":
		return waiting("%s: %d of %d pods are ready; %s", name, ready, w.wanted, blockers(r.x, w))
	case ready < w.wanted:
		return waiting("%s: %d of %d pods are ready", name, ready, w.wanted)
	}
	return done("%s was restarted, and its %d pods are ready", name, ready)
}

// overlooked says which pods still use what was rotated and are older than that, or "". Quarantined pods are evidence and stay as they are.
func (r *rotation) overlooked() string {
	if r.want.Restart != v1alpha1.RestartConsumers {
		return ""
	}
	since := r.rotatedAt()
	var names []string
	for _, p := range r.x.All {
		if p.Namespace != r.x.Incident.Namespace || target.Ended(p) || p.Annotations[v1alpha1.RotationAnnotation] == r.id || measure.Holds(p, r.x.Incident.UID) || len(measure.HeldByOthers(p, r.x.Incident.UID)) > 0 {
			continue
		}
		for _, secret := range evidence.SecretsOf(&p.Spec) {
			if at, known := since[secret]; known && !p.CreationTimestamp.After(at.Time) {
				names = append(names, p.Name)
				break
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return fmt.Sprintf("pods still use what was rotated, and were there before: %s; have them replaced", strings.Join(names, ", "))
}

// rotatedAt is when each Secret got its new value.
func (r *rotation) rotatedAt() map[string]metav1.Time {
	out := map[string]metav1.Time{}
	for _, c := range r.choices(secretKind, externalSecretKind, certificateKind) {
		record := r.x.Recorded(r.step.Name, c.Object)
		if record == nil {
			continue
		}
		var what rotated
		if err := json.Unmarshal([]byte(record.Data), &what); err == nil && what.Secret != "" && !what.At.IsZero() {
			out[what.Secret] = what.At
		}
	}
	return out
}
