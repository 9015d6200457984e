package recovery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// forceSync is the annotation whose change has the External Secrets Operator synchronise an ExternalSecret: it does whenever annotations change, and its documentation uses this one.
const forceSync = "force-sync"

// externalSecretVersions are tried in this order.
var externalSecretVersions = []string{"external-secrets.io/v1", "external-secrets.io/v1beta1"}

// readOwner reads an object that keeps a Secret, in the first version that is served. It says why it cannot be read, or "".
func (r *rotation) readOwner(ctx context.Context, kind, name string, versions ...string) (*unstructured.Unstructured, string, error) {
	what := "get " + kind + " " + r.x.Incident.Namespace + "/" + name
	for _, version := range versions {
		u := &unstructured.Unstructured{}
		u.SetAPIVersion(version)
		u.SetKind(kind)
		err := r.x.Reader.Get(ctx, client.ObjectKey{Namespace: r.x.Incident.Namespace, Name: name}, u)
		if apimeta.IsNoMatchError(err) {
			continue
		}
		if why := r.refusedHow(err, what); why != "" {
			return nil, why, nil
		}
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", what, err)
		}
		return u, "", nil
	}
	return nil, fmt.Sprintf("the cluster does not serve %ss (%s)", kind, versions[0]), nil
}

// condition is a condition of an unstructured object; nil if it has none of that kind.
func condition(u *unstructured.Unstructured, kind string) map[string]any {
	all, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range all {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return m
		}
	}
	return nil
}

func isTrue(condition map[string]any) bool { return condition["status"] == "True" }

// text is a field of a condition.
func text(condition map[string]any, field string) string {
	s, _ := condition[field].(string)
	return s
}

func (r *rotation) chooseExternal(ctx context.Context) ([]v1alpha1.StepChoice, string, error) {
	var out []v1alpha1.StepChoice
	for _, name := range r.want.ExternalSecrets {
		u, why, err := r.readOwner(ctx, externalSecretKind, name, externalSecretVersions...)
		if err != nil || why != "" {
			return nil, why, err
		}
		if never := neverSynced(u); never != "" {
			return nil, never, nil
		}
		ref := r.ref(externalSecretKind, name, string(u.GetUID()))
		err = r.x.DryRun.Patch(ctx, u.DeepCopy(), syncPatch(ref, u, r.id))
		if why := r.refusedHow(err, "patch "+externalSecretKind+" "+ref.Namespace+"/"+name); why != "" || err != nil {
			return nil, why, cmpErr(why, err)
		}
		out = append(out, r.choice(ref, "its Secret %s is synchronised with the provider", targetOf(u)))
	}
	return out, "", nil
}

// cmpErr is the error, unless it was put into words.
func cmpErr(why string, err error) error {
	if why != "" {
		return nil
	}
	return err
}

// targetOf is the name of the Secret that an ExternalSecret keeps.
func targetOf(u *unstructured.Unstructured) string {
	name, _, _ := unstructured.NestedString(u.Object, "spec", "target", "name")
	return cmp.Or(name, u.GetName())
}

// neverSynced says why an ExternalSecret cannot be synchronised anew, or "".
func neverSynced(u *unstructured.Unstructured) string {
	if policy, _, _ := unstructured.NestedString(u.Object, "spec", "refreshPolicy"); policy == "CreatedOnce" {
		return fmt.Sprintf("%s %s has the refreshPolicy CreatedOnce and is never synchronised anew: delete its Secret %s by hand, or change the policy", externalSecretKind, u.GetName(), targetOf(u))
	}
	return ""
}

func syncPatch(ref v1alpha1.ObjectRef, u *unstructured.Unstructured, id string) client.Patch {
	return mergePatch(map[string]any{"metadata": map[string]any{"uid": ref.UID, "resourceVersion": u.GetResourceVersion(), "annotations": map[string]any{forceSync: id}}})
}

// mergePatch is a merge patch of strings and maps, which always can be written.
func mergePatch(body map[string]any) client.Patch {
	raw, err := json.Marshal(body)
	if err != nil {
		raw = []byte("{}")
	}
	return client.RawPatch(types.MergePatchType, raw)
}

// syncExternal has an ExternalSecret synchronised. It believes the version that the External Secrets Operator notes of what it has synchronised, which has the annotation in it.
func (r *rotation) syncExternal(ctx context.Context, ref v1alpha1.ObjectRef) (Outcome, error) {
	u, why, err := r.readOwner(ctx, externalSecretKind, ref.Name, externalSecretVersions...)
	if err != nil || why != "" {
		return waiting("%s", why), err
	}
	name := externalSecretKind + " " + ref.Name
	if why := cmp.Or(neverSynced(u), madeAnew(u, ref)); why != "" {
		return failed("%s", why), nil
	}
	version, _, _ := unstructured.NestedString(u.Object, "status", "syncedResourceVersion")
	content, err := r.contentOf(ctx, targetOf(u))
	if err != nil {
		return Outcome{}, err
	}
	was, fresh, err := r.before(ref, rotated{Secret: targetOf(u), Version: version, Content: content})
	if err != nil || fresh && r.x.Status(r.step.Name) != nil {
		_ = r.x.Journal.IntendAnew(v1alpha1.ActionSyncExternalSecret, ref, syncDetail)
		return waiting("%s is about to be synchronised", name), err
	}
	if u.GetAnnotations()[forceSync] != r.id {
		if !r.x.Journal.IntendAnew(v1alpha1.ActionSyncExternalSecret, ref, syncDetail) {
			return waiting("%s is about to be synchronised", name), nil
		}
		op := v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: syncDetail}
		return waiting("%s is about to be synchronised", name), r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
			return ifUnchanged(c.Patch(ctx, u, syncPatch(ref, u, r.id)))
		})
	}
	r.x.Journal.Done(v1alpha1.ActionSyncExternalSecret, ref)
	ready := condition(u, "Ready")
	refreshed, _, _ := unstructured.NestedString(u.Object, "status", "refreshTime")
	switch {
	case !isTrue(ready):
		return waiting("%s is not ready: %s", name, cmp.Or(text(ready, "message"), text(ready, "reason"), "it says nothing")), nil
	case version == was.Version || refreshed == "":
		return waiting("%s was not synchronised since: is the External Secrets Operator running?", name), nil
	}
	what := "and its Secret has changed"
	if was.Content == content {
		what = fmt.Sprintf("but its Secret %s is as it was: the provider still has the value that it had", was.Secret)
	}
	return done("%s was synchronised with its provider at %s, %s", name, refreshed, what), r.renewed(v1alpha1.ActionSyncExternalSecret, ref, was)
}

// contentOf is the version of a Secret, which changes when anything in it does; "" if there is none.
func (r *rotation) contentOf(ctx context.Context, secret string) (string, error) {
	m, err := r.lookAtSecret(ctx, r.ref(secretKind, secret, ""))
	if err != nil {
		if r.refusedHow(err, "") != "" {
			return "", nil
		}
		return "", fmt.Errorf("looking at %s %s: %w", secretKind, secret, err)
	}
	return m.ResourceVersion, nil
}

const syncDetail = "annotate " + forceSync

// ifUnchanged lets a write pass that came too late: the next pass sees what the object is now.
func ifUnchanged(err error) error {
	if changedMeanwhile(err) {
		return nil
	}
	return err
}

func madeAnew(u *unstructured.Unstructured, ref v1alpha1.ObjectRef) string {
	if string(u.GetUID()) == ref.UID {
		return ""
	}
	return fmt.Sprintf("%s %s was made anew since the recovery began: look what has become of its Secret, and have the step skipped", ref.Kind, ref.Name)
}

func (r *rotation) chooseCertificates(ctx context.Context) ([]v1alpha1.StepChoice, string, error) {
	var out []v1alpha1.StepChoice
	for _, name := range r.want.Certificates {
		u, why, err := r.readOwner(ctx, certificateKind, name, "cert-manager.io/v1")
		if err != nil || why != "" {
			return nil, why, err
		}
		ref := r.ref(certificateKind, name, string(u.GetUID()))
		err = r.x.DryRun.Status().Patch(ctx, u.DeepCopy(), issuePatch(ref, u, r.id, r.x.Now))
		if why := r.refusedHow(err, "patch the status of "+certificateKind+" "+ref.Namespace+"/"+name); why != "" || err != nil {
			return nil, why, cmpErr(why, err)
		}
		rotationPolicy, _, _ := unstructured.NestedString(u.Object, "spec", "privateKey", "rotationPolicy")
		key := "with a new key"
		switch rotationPolicy {
		case "Never":
			key = "with the SAME key, because its rotationPolicy is Never"
		case "":
			key = "with a new key from cert-manager 1.18 on, and with the SAME key before: set its spec.privateKey.rotationPolicy to Always to be sure"
		}
		out = append(out, r.choice(ref, "issued anew into Secret %s, %s", secretOf(u), key))
	}
	return out, "", nil
}

const issuing = "Issuing"

// issuePatch asks cert-manager to issue a certificate as its own command line does: by the condition Issuing.
func issuePatch(ref v1alpha1.ObjectRef, u *unstructured.Unstructured, id string, now metav1.Time) client.Patch {
	all, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	var conditions []any
	for _, c := range all {
		if m, ok := c.(map[string]any); !ok || m["type"] != issuing {
			conditions = append(conditions, c)
		}
	}
	conditions = append(conditions, map[string]any{
		"type": issuing, "status": "True", "reason": "ManuallyTriggered", "message": "Cofferdam has it issued anew (" + id + ")",
		"lastTransitionTime": now.UTC().Format(time.RFC3339), "observedGeneration": u.GetGeneration(),
	})
	return mergePatch(map[string]any{
		"metadata": map[string]any{"uid": ref.UID, "resourceVersion": u.GetResourceVersion()}, "status": map[string]any{"conditions": conditions},
	})
}

// renew has a Certificate issued. It believes the revision, which cert-manager counts up when the new certificate is in the Secret.
func (r *rotation) renew(ctx context.Context, ref v1alpha1.ObjectRef) (Outcome, error) {
	u, why, err := r.readOwner(ctx, certificateKind, ref.Name, "cert-manager.io/v1")
	if err != nil || why != "" {
		return waiting("%s", why), err
	}
	name := certificateKind + " " + ref.Name
	if why := madeAnew(u, ref); why != "" {
		return failed("%s", why), nil
	}
	revision, _, _ := unstructured.NestedInt64(u.Object, "status", "revision")
	was, fresh, err := r.before(ref, rotated{Secret: secretOf(u), Revision: revision})
	if err != nil || fresh && r.x.Status(r.step.Name) != nil {
		_ = r.x.Journal.IntendAnew(v1alpha1.ActionRenewCertificate, ref, issueDetail)
		return waiting("%s is about to be issued anew", name), err
	}
	now := condition(u, issuing)
	switch {
	case isTrue(now):
		r.x.Journal.Done(v1alpha1.ActionRenewCertificate, ref)
		return waiting("%s is being issued: %s", name, text(now, "message")), nil
	case revision > was.Revision && isTrue(condition(u, "Ready")):
		return done("%s was issued anew, as revision %d", name, revision), r.renewed(v1alpha1.ActionRenewCertificate, ref, was)
	case revision > was.Revision:
		return waiting("%s was issued anew and is not ready: %s", name, text(condition(u, "Ready"), "message")), nil
	case failedSince(u, was.Seen):
		return failed("%s could not be issued: %s. See its CertificateRequest, and have the step retried", name, text(now, "message")), nil
	case !r.x.Journal.IntendAnew(v1alpha1.ActionRenewCertificate, ref, issueDetail):
		return waiting("%s is about to be issued anew", name), nil
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: issueDetail}
	return waiting("%s is about to be issued anew", name), r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return ifUnchanged(c.Status().Patch(ctx, u, issuePatch(ref, u, r.id, r.x.Now)))
	})
}

const issueDetail = "status condition " + issuing + ": True"

// failedSince reports whether an issuance has failed after that time.
func failedSince(u *unstructured.Unstructured, since metav1.Time) bool {
	at, _, _ := unstructured.NestedString(u.Object, "status", "lastFailureTime")
	failure, err := time.Parse(time.RFC3339, at)
	return err == nil && failure.After(since.Time)
}

// secretOf is the name of the Secret that a Certificate is issued into.
func secretOf(u *unstructured.Unstructured) string {
	name, _, _ := unstructured.NestedString(u.Object, "spec", "secretName")
	return name
}
