package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// lookAtToken is the UID of a Secret that has a token of the ServiceAccount, and of no other.
func (r *rotation) lookAtToken(ctx context.Context, ref v1alpha1.ObjectRef, account string) (types.UID, error) {
	m, err := r.lookAtSecret(ctx, ref,
		operation{Op: "test", Path: "/type", Value: string(corev1.SecretTypeServiceAccountToken)},
		operation{Op: "test", Path: "/metadata/annotations/" + escaped(corev1.ServiceAccountNameKey), Value: account},
	)
	return m.UID, err
}

func (r *rotation) chooseTokens(ctx context.Context) ([]v1alpha1.StepChoice, string, error) {
	var out []v1alpha1.StepChoice
	for _, token := range r.want.TokenSecrets {
		ref := r.ref(secretKind, token.SecretName, "")
		name := secretKind + " " + ref.Namespace + "/" + ref.Name
		uid, err := r.lookAtToken(ctx, ref, token.ServiceAccountName)
		if err == nil {
			err = r.mayDelete(ctx, ref)
		}
		switch why := r.refusedHow(err, "patch and delete "+name); {
		case why != "":
			return nil, why, nil
		case apierrors.IsInvalid(err):
			return nil, fmt.Sprintf("%s is no token of ServiceAccount %s: correct the plan", name, token.ServiceAccountName), nil
		case err != nil:
			return nil, "", fmt.Errorf("looking at %s: %w", name, err)
		}
		ref.UID = string(uid)
		out = append(out, r.choice(ref, "deleted, which makes this token of ServiceAccount %s invalid", token.ServiceAccountName))
	}
	return out, "", nil
}

// mayDelete asks the API server, and not by a deletion on trial: one mistake in that, and the Secret is gone.
func (r *rotation) mayDelete(ctx context.Context, ref v1alpha1.ObjectRef) error {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: ref.Namespace, Name: ref.Name, Verb: "delete", Resource: "secrets"},
	}}
	if err := r.x.DryRun.Create(ctx, review); err != nil {
		return fmt.Errorf("asking whether it may be deleted: %w", err)
	}
	if !review.Status.Allowed {
		return apierrors.NewForbidden(corev1.Resource("secrets"), ref.Name, errors.New("deleting it is not allowed"))
	}
	return nil
}

// deleteToken deletes exactly the Secret that was chosen.
func (r *rotation) deleteToken(ctx context.Context, ref v1alpha1.ObjectRef) (Outcome, error) {
	m, err := r.lookAtSecret(ctx, ref)
	gone := apierrors.IsNotFound(err) || err == nil && string(m.UID) != ref.UID
	switch why := r.refusedHow(err, "patch and delete "+secretKind+" "+ref.Namespace+"/"+ref.Name); {
	case gone:
		r.x.Journal.Done(v1alpha1.ActionDeleteToken, ref)
		return done("the token in %s %s is invalid; those in running pods are valid until these end", secretKind, ref.Name), nil
	case why != "":
		return waiting("%s", why).after(unwatched), nil
	case err != nil:
		return Outcome{}, fmt.Errorf("looking at %s %s: %w", secretKind, ref.Name, err)
	}
	const detail = "delete a token of a ServiceAccount"
	if !r.x.Journal.IntendAnew(v1alpha1.ActionDeleteToken, ref, detail) {
		return waiting("%s %s is about to be deleted", secretKind, ref.Name).after(time.Second), nil
	}
	op := v1alpha1.PlannedAction{Verb: "delete", Object: ref, Detail: detail}
	return waiting("%s %s is about to be deleted", secretKind, ref.Name).after(time.Second), r.x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		uid := types.UID(ref.UID)
		err := c.Delete(ctx, secretMetadata(ref), client.Preconditions{UID: &uid})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}
