package guard

import (
	"fmt"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Problem is what is wrong with a part of the guard.
type Problem string

const (
	// Missing is an object that does not exist, or is being deleted.
	Missing Problem = "Missing"
	// Changed is an object whose spec is not the shipped one.
	Changed Problem = "Changed"
	// NotWorking is a policy with the shipped spec, in which the API server's type checking found mistakes: it was made for other versions of the API.
	NotWorking Problem = "NotWorking"
)

// Finding is one thing that is wrong with the guard.
type Finding struct {
	// Kind and Name are of the policy or the binding.
	Kind, Name string
	// Problem is what is wrong with it.
	Problem Problem
	// Field is the path of the first field that differs from what was shipped, or that does not work. Empty when the object is missing.
	Field string
	// Manager is the field manager that wrote a difference last. It is what a client calls itself, not a user name. Empty when metadata.managedFields does not
	// tell: an update that only takes something away leaves no trace there.
	Manager string
	// At is when the manager did that. Zero when it is not known, and when the object is missing.
	At time.Time
	// Detail says more for a person. May be empty.
	Detail string
}

// String says in one sentence what is wrong, who did it and when as far as that is known, and what to do next.
func (f Finding) String() string {
	object := f.Kind + " " + f.Name
	switch f.Problem {
	case Missing:
		what := "is missing"
		if f.Detail != "" {
			what = f.Detail
		}
		return fmt.Sprintf("%s %s, and the API does not record who did that; apply config/guard again", object, what)
	case NotWorking:
		return fmt.Sprintf("%s is what was shipped, but this API server finds a mistake in %s (%s); apply the config/guard of a release that supports this version of Kubernetes",
			object, f.Field, f.Detail)
	default:
		return fmt.Sprintf("%s is not what was shipped: %s differs, %s; apply config/guard again by \"kubectl replace -k config/guard\", "+
			"because \"kubectl apply\" keeps what others have added", object, f.Field, f.writer())
	}
}

func (f Finding) writer() string {
	if f.Manager == "" {
		return "and metadata.managedFields does not tell who did it"
	}
	if f.At.IsZero() {
		return fmt.Sprintf("last written by field manager %q at an unknown time", f.Manager)
	}
	return fmt.Sprintf("last written by field manager %q at %s", f.Manager, f.At.UTC().Format(time.RFC3339))
}

// Examine compares what a cluster has with what was shipped, and returns what is wrong in the order of shipped. Policies that were not shipped do not matter:
// they can only refuse more. An additional binding does not either.
func Examine(shipped []Policy, policies []admissionregistrationv1.ValidatingAdmissionPolicy, bindings []admissionregistrationv1.ValidatingAdmissionPolicyBinding) []Finding {
	livePolicies := map[string]*admissionregistrationv1.ValidatingAdmissionPolicy{}
	for i := range policies {
		livePolicies[policies[i].Name] = &policies[i]
	}
	liveBindings := map[string]*admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	for i := range bindings {
		liveBindings[bindings[i].Name] = &bindings[i]
	}
	var out []Finding
	for i := range shipped {
		if f := examinePolicy(&shipped[i].Policy, livePolicies[shipped[i].Policy.Name]); f != nil {
			out = append(out, *f)
		}
		if f := examineBinding(&shipped[i].Binding, liveBindings[shipped[i].Binding.Name]); f != nil {
			out = append(out, *f)
		}
	}
	return out
}

// examinePolicy returns nil when the policy is what was shipped and works.
func examinePolicy(want, got *admissionregistrationv1.ValidatingAdmissionPolicy) *Finding {
	if got == nil {
		return &Finding{Kind: policyKind, Name: want.Name, Problem: Missing}
	}
	if f := examine(policyKind, &got.ObjectMeta, policySpec(want.Spec), policySpec(got.Spec)); f != nil {
		return f
	}
	// Warnings about an older spec are not about this one.
	if got.Status.TypeChecking == nil || got.Status.ObservedGeneration != got.Generation || len(got.Status.TypeChecking.ExpressionWarnings) == 0 {
		return nil
	}
	first := got.Status.TypeChecking.ExpressionWarnings[0]
	return &Finding{Kind: policyKind, Name: want.Name, Problem: NotWorking, Field: first.FieldRef, Detail: brief(first.Warning)}
}

// examineBinding returns nil when the binding is what was shipped.
func examineBinding(want, got *admissionregistrationv1.ValidatingAdmissionPolicyBinding) *Finding {
	if got == nil {
		return &Finding{Kind: bindingKind, Name: want.Name, Problem: Missing}
	}
	return examine(bindingKind, &got.ObjectMeta, bindingSpec(want.Spec), bindingSpec(got.Spec))
}

func examine(kind string, meta *metav1.ObjectMeta, want, got map[string]any) *Finding {
	if meta.DeletionTimestamp != nil {
		return &Finding{Kind: kind, Name: meta.Name, Problem: Missing, Detail: "is being deleted"}
	}
	field := difference("spec", want, got)
	if field == "" {
		return nil
	}
	manager, at := lastWriter(meta.ManagedFields, want, got)
	return &Finding{Kind: kind, Name: meta.Name, Problem: Changed, Field: field, Manager: manager, At: at}
}

// maxDetail bounds what is repeated of the type checker's words, which quote whole expressions.
const maxDetail = 200

// brief is the first mistake of a warning, on one line. The type checker draws the place under it.
func brief(warning string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(warning), "\n")
	line = strings.ToValidUTF8(strings.Join(strings.Fields(line), " "), "")
	if len(line) > maxDetail {
		line = strings.ToValidUTF8(line[:maxDetail], "") + "…"
	}
	return line
}
