package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

const (
	secretKind         = "Secret"
	externalSecretKind = "ExternalSecret"
	certificateKind    = "Certificate"
)

// rotateSecrets replaces secrets, and then restarts those that use them.
type rotateSecrets struct{}

// Choose finds out what will be rotated and restarted, and whether it could be now: it asks for everything, without having it done.
func (rotateSecrets) Choose(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) ([]v1alpha1.StepChoice, string, error) {
	r := newRotation(x, step)
	var out []v1alpha1.StepChoice
	for _, choose := range []func(context.Context) ([]v1alpha1.StepChoice, string, error){
		r.chooseGenerated, r.chooseExternal, r.chooseCertificates, r.chooseTokens, r.chooseConsumers,
	} {
		got, why, err := choose(ctx)
		if err != nil || why != "" {
			return nil, why, err
		}
		out = append(out, got...)
	}
	return out, "", nil
}

func (rotateSecrets) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	r := newRotation(x, step)
	renewed, err := each(r.choices(secretKind, externalSecretKind, certificateKind), func(c v1alpha1.StepChoice) (Outcome, error) { return r.rotate(ctx, c.Object) })
	rehearsed := x.Status(step.Name) == nil
	if err != nil || !renewed.Done && !rehearsed {
		return renewed.after(unwatched), err // Secrets are neither read nor watched
	}
	restarted, err := r.restart(ctx)
	if err != nil || !restarted.Done {
		return restarted, err
	}
	return done("%s; %s", renewed.Message, restarted.Message), nil
}

// Undo says what cannot be: nobody knows the old values, and they were replaced because somebody may.
func (rotateSecrets) Undo(context.Context, *Execution, v1alpha1.RecoveryStep) (Outcome, error) {
	return done("what was rotated stays rotated"), nil
}

// rotation is one try of a step.
type rotation struct {
	x    *Execution
	step v1alpha1.RecoveryStep
	want *v1alpha1.RotateSecretsStep
	// id tells this try from every other one. It is on what was changed, so that a repeat finds it done.
	id string
}

func newRotation(x *Execution, step v1alpha1.RecoveryStep) *rotation {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", x.Incident.UID, step.Name, x.tries(step.Name)))
	return &rotation{x: x, step: step, want: step.RotateSecrets, id: hex.EncodeToString(sum[:16])}
}

// choices are what was chosen for the step of these kinds, in order.
func (r *rotation) choices(kinds ...string) []v1alpha1.StepChoice {
	var out []v1alpha1.StepChoice
	for _, c := range r.x.Choices {
		if c.Step == r.step.Name && slices.Contains(kinds, c.Object.Kind) {
			out = append(out, c)
		}
	}
	return out
}

func (r *rotation) choice(ref v1alpha1.ObjectRef, why string, args ...any) v1alpha1.StepChoice {
	return v1alpha1.StepChoice{Step: r.step.Name, Object: ref, Why: fmt.Sprintf(why, args...)}
}

func (r *rotation) ref(kind, name, uid string) v1alpha1.ObjectRef {
	return v1alpha1.ObjectRef{Kind: kind, Namespace: r.x.Incident.Namespace, Name: name, UID: uid}
}

// rotate brings the rotation of one chosen object on.
func (r *rotation) rotate(ctx context.Context, ref v1alpha1.ObjectRef) (Outcome, error) {
	switch ref.Kind {
	case externalSecretKind:
		return r.syncExternal(ctx, ref)
	case certificateKind:
		return r.renew(ctx, ref)
	}
	for i := range r.want.Generate {
		if r.want.Generate[i].SecretName == ref.Name {
			return r.generate(ctx, ref, &r.want.Generate[i])
		}
	}
	return r.deleteToken(ctx, ref)
}

// rotated is what is recorded of an object: how it was before this try, and since when the new value is there.
type rotated struct {
	Try int32 `json:"try"`
	// Secret is the name of the Secret that has the value.
	Secret string `json:"secret,omitempty"`
	// Seen is when the record was made, and At when the new value was first seen.
	Seen metav1.Time `json:"seen"`
	At   metav1.Time `json:"at,omitzero"`
	// Version is what an ExternalSecret had synchronised, Revision the revision of a Certificate, and Content the resourceVersion of the Secret of an ExternalSecret.
	Version  string `json:"version,omitempty"`
	Revision int64  `json:"revision,omitempty"`
	Content  string `json:"content,omitempty"`
}

// before returns what was recorded of the object when this try began, or else records it now, in which case nothing may be changed before the record is durable.
func (r *rotation) before(ref v1alpha1.ObjectRef, now rotated) (was rotated, fresh bool, err error) {
	now.Try, now.Seen = r.x.tries(r.step.Name), r.x.Now
	if record := r.x.Recorded(r.step.Name, ref); record != nil {
		if err := json.Unmarshal([]byte(record.Data), &was); err != nil {
			return was, false, fmt.Errorf("reading what was recorded of %s %s: %w", ref.Kind, ref.Name, err)
		}
		if was.Try == now.Try {
			return was, false, nil
		}
	}
	return now, true, r.note(ref, now)
}

// note records what has become of the object.
func (r *rotation) note(ref v1alpha1.ObjectRef, what rotated) error {
	data, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("recording %s %s: %w", ref.Kind, ref.Name, err)
	}
	r.x.Record(r.step.Name, v1alpha1.StepRecord{Object: ref, Data: string(data)})
	if record := r.x.Recorded(r.step.Name, ref); record != nil {
		record.Data = string(data)
	}
	return nil
}

// renewed notes that the new value is there.
func (r *rotation) renewed(action v1alpha1.Action, ref v1alpha1.ObjectRef, was rotated) error {
	r.x.Journal.Done(action, ref)
	if !was.At.IsZero() {
		return nil
	}
	was.At = r.x.Now
	return r.note(ref, was)
}

// refusedHow says what a person can do about a request that was refused, or "" when it is no refusal.
func (r *rotation) refusedHow(err error, what string) string {
	ns := r.x.Incident.Namespace
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("%s does not exist: create it, or correct the plan", what)
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("the operator may not %s: bind the ClusterRole cofferdam-secret-rotation for it in namespace %s (kubectl create rolebinding cofferdam-secret-rotation -n %s --clusterrole=cofferdam-secret-rotation --serviceaccount=%s)",
			what, ns, ns, "cofferdam-system:cofferdam-controller-manager")
	}
	return ""
}
