package recovery

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/gitops"
)

// The operator may patch Secrets where somebody lets it, and never reads them: config/rbac/secret_rotation_role.yaml. It sees an object's metadata in the answer to a patch that changes nothing, and asks the API server to answer
// with metadata only.

// operation is one operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

func secretMetadata(ref v1alpha1.ObjectRef) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name}}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(secretKind))
	return m
}

// lookAtSecret is the metadata of a Secret, after operations that would succeed.
func (r *rotation) lookAtSecret(ctx context.Context, ref v1alpha1.ObjectRef, operations ...operation) (*metav1.PartialObjectMetadata, error) {
	m := secretMetadata(ref)
	patch := client.RawPatch(types.MergePatchType, []byte("{}"))
	if len(operations) > 0 {
		body, err := json.Marshal(operations)
		if err != nil {
			return nil, fmt.Errorf("writing a patch: %w", err)
		}
		patch = client.RawPatch(types.JSONPatchType, body)
	}
	err := r.x.DryRun.Patch(ctx, m, patch)
	return m, err
}

// chooseGenerated makes the change on trial: it fails where an entry is missing, or the Secret is immutable.
func (r *rotation) chooseGenerated(ctx context.Context) ([]v1alpha1.StepChoice, string, error) {
	var out []v1alpha1.StepChoice
	for i := range r.want.Generate {
		secret := &r.want.Generate[i]
		ref := r.ref(secretKind, secret.SecretName, "")
		what := "patch " + secretKind + " " + ref.Namespace + "/" + ref.Name
		var trial []operation
		for _, key := range secret.Keys {
			trial = append(trial, replaced(key.Name, "dHJpYWw=")...)
		}
		m, err := r.lookAtSecret(ctx, ref, trial...)
		switch why := r.refusedHow(err, what); {
		case why != "":
			return nil, why, nil
		case apierrors.IsInvalid(err):
			return nil, fmt.Sprintf("%s %s/%s cannot be rotated: it is immutable, or lacks one of the entries: %v", secretKind, ref.Namespace, ref.Name, err), nil
		case err != nil:
			return nil, "", fmt.Errorf("looking whether the operator may %s: %w", what, err)
		}
		if keeper := keeperOf(m); keeper != "" {
			return nil, fmt.Sprintf("%s %s/%s is kept by %s, which would put the old values back: have it rotated there, or by what the step offers for its kind", secretKind, ref.Namespace, ref.Name, keeper), nil
		}
		ref.UID = string(m.UID)
		out = append(out, r.choice(ref, "%d entries get new random values", len(secret.Keys)))
	}
	return out, "", nil
}

// keeperOf is what writes the values of a Secret again and again, as far as its metadata tells for certain, or "".
func keeperOf(m *metav1.PartialObjectMetadata) string {
	if owner := metav1.GetControllerOf(m); owner != nil {
		return owner.Kind + " " + owner.Name
	}
	for _, claim := range gitops.Claims(secretKind, m) {
		if claim.Certain {
			return claim.Manager.String()
		}
	}
	return ""
}

// generate replaces the entries once. That it has done so is in an annotation, written in the same patch.
func (r *rotation) generate(ctx context.Context, ref v1alpha1.ObjectRef, secret *v1alpha1.GeneratedSecret) (Outcome, error) {
	name := secretKind + " " + ref.Name
	m, err := r.lookAtSecret(ctx, ref)
	switch why := r.refusedHow(err, "patch "+secretKind+" "+ref.Namespace+"/"+ref.Name); {
	case why != "":
		return waiting("%s", why).after(unwatched), nil
	case err != nil:
		return Outcome{}, fmt.Errorf("looking at %s: %w", name, err)
	case string(m.UID) != ref.UID:
		return failed("%s was made anew since the recovery began: have its entries replaced by hand, and the step skipped", name), nil
	}
	was, _, err := r.before(ref, rotated{Secret: ref.Name})
	if err != nil {
		return Outcome{}, err
	}
	if m.Annotations[v1alpha1.RotationAnnotation] == r.id {
		return done("%s has %d new values", name, len(secret.Keys)), r.renewed(v1alpha1.ActionRotateSecret, ref, was)
	}
	if !was.At.IsZero() {
		return failed("%s was written by somebody else after it was rotated, and what it has now is not known: retry the step, which rotates it once more, when nothing else rotates or restores it", name), nil
	}
	detail := fmt.Sprintf("replace %d entries by random values", len(secret.Keys))
	if !r.x.Journal.IntendAnew(v1alpha1.ActionRotateSecret, ref, detail) {
		return waiting("%s is about to get new values", name).after(time.Second), nil
	}
	op := v1alpha1.PlannedAction{Verb: "patch", Object: ref, Detail: detail}
	return waiting("%s is about to get new values", name).after(time.Second), r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error { return r.replace(ctx, c, m, secret) })
}

// replace writes new values into exactly this Secret, as it was seen.
func (r *rotation) replace(ctx context.Context, c client.Client, m *metav1.PartialObjectMetadata, secret *v1alpha1.GeneratedSecret) error {
	operations := append([]operation{{Op: "test", Path: "/metadata/uid", Value: m.UID}, {Op: "test", Path: "/metadata/resourceVersion", Value: m.ResourceVersion}}, annotated(m, r.id)...)
	var values []string
	for _, key := range secret.Keys {
		value, err := randomValue(int(key.Length), key.Charset)
		if err != nil {
			return err
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(value))
		values = append(values, value, encoded)
		operations = append(operations, replaced(key.Name, encoded)...)
	}
	body, err := json.Marshal(operations)
	if err != nil {
		return errors.New("writing the new values failed") // the error could have them in it
	}
	err = c.Patch(ctx, m, client.RawPatch(types.JSONPatchType, body))
	if changedMeanwhile(err) {
		return nil // the next pass sees what it is now
	}
	return without(err, values)
}

// annotated are the operations that set the rotation annotation.
func annotated(m *metav1.PartialObjectMetadata, id string) []operation {
	var out []operation
	if m.Annotations == nil {
		out = append(out, operation{Op: "add", Path: "/metadata/annotations", Value: map[string]string{}})
	}
	return append(out, operation{Op: "add", Path: "/metadata/annotations/" + escaped(v1alpha1.RotationAnnotation), Value: id})
}

// replaced are the operations that replace an entry. "replace" would not do: the API server's implementation of it adds what is missing.
func replaced(key, value string) []operation {
	path := "/data/" + escaped(key)
	return []operation{{Op: "remove", Path: path}, {Op: "add", Path: path, Value: value}}
}

// escaped makes a key a part of a JSON pointer.
func escaped(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

// changedMeanwhile recognises a patch that was not applied because the object is not what was seen. A failed test of a JSON patch is an Invalid without causes.
func changedMeanwhile(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
		return apierrors.IsConflict(err)
	}
	details := status.Status().Details
	return (details == nil || len(details.Causes) == 0) && strings.Contains(err.Error(), "testing value")
}

// without keeps secret values out of an error, whatever a webhook or the API server has put into it. What kind of error it is stays known.
func without(err error, values []string) error {
	if err == nil {
		return nil
	}
	for _, v := range values {
		if strings.Contains(err.Error(), v) {
			return fmt.Errorf("the API server has refused the new values (%s); what it said is not repeated, because it quoted them", apierrors.ReasonForError(err))
		}
	}
	return err
}

// charsets are the characters of generated values.
var charsets = map[v1alpha1.ValueCharset]string{
	v1alpha1.CharsetAlphanumeric: alphanumeric,
	v1alpha1.CharsetHex:          "0123456789abcdef",
	v1alpha1.CharsetPrintable:    alphanumeric + "!#$%&()*+,-./:;<=>?@[]^_{|}~",
}

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// randomValue is a value of so many characters, each as likely as the others.
func randomValue(length int, charset v1alpha1.ValueCharset) (string, error) {
	from := charsets[charset]
	if from == "" {
		from = alphanumeric
	}
	if length == 0 {
		length = 32
	}
	n := big.NewInt(int64(len(from)))
	out := make([]byte, length)
	for i := range out {
		at, err := rand.Int(rand.Reader, n)
		if err != nil {
			return "", fmt.Errorf("getting random numbers: %w", err)
		}
		out[i] = from[at.Int64()]
	}
	return string(out), nil
}
