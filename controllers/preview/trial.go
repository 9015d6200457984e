package preview

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// What can come of a trial.
const (
	accepted = "accepted"
	refused  = "refused"
	notTried = "not tried"
)

// maxFields is how many fields of one change are named.
const maxFields = 16

// trial has the API server try every write without making it (server-side dry run), and notes what it says.
type trial struct {
	client  client.Client
	changes []Change
}

// Write tries a write.
func (t *trial) Write(ctx context.Context, op v1alpha1.PlannedAction, fn func(context.Context, client.Client) error) error {
	change := Change{Verb: op.Verb, Object: op.Object, Detail: op.Detail, Tried: notTried}
	if op.Verb != "notify" {
		try := &trying{Client: client.NewDryRunClient(t.client)}
		err := fn(ctx, try)
		switch {
		case err == nil:
			change.Tried, change.Fields = accepted, try.fields
		case mayNot(err):
			change.Why = "you may not do it, so that nobody knows whether it would be accepted: " + err.Error()
		default:
			change.Tried, change.Why = refused, err.Error()
		}
	}
	t.changes = append(t.changes, change)
	return nil
}

// mayNot reports whether RBAC has refused a request, so that nothing is known of it. Quotas and admission answer with the same reason, and what they refuse is refused to the operator as well.
func mayNot(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ") && strings.Contains(err.Error(), " resource ")
}

// trying notes what a patch changes.
type trying struct {
	client.Client
	fields []string
}

// Patch tries a patch, and compares.
func (t *trying) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	before := obj.DeepCopyObject()
	if err := t.Client.Patch(ctx, obj, patch, opts...); err != nil {
		return err
	}
	t.fields = append(t.fields, differences(before, obj)...)
	return nil
}

// differences names the fields that differ, but for those that every change changes.
func differences(before, after runtime.Object) []string {
	a, b := content(before), content(after)
	if a == nil || b == nil {
		return nil
	}
	var out []string
	compare("", a, b, &out)
	slices.Sort(out)
	if n := len(out); n > maxFields {
		out = append(out[:maxFields], fmt.Sprintf("and %d more", n-maxFields))
	}
	return out
}

func content(obj runtime.Object) map[string]any {
	raw, err := json.Marshal(obj)
	if err != nil {
		return nil
	}
	var out map[string]any
	if json.Unmarshal(raw, &out) != nil {
		return nil
	}
	if meta, ok := out["metadata"].(map[string]any); ok {
		for _, field := range []string{"resourceVersion", "generation", "managedFields"} {
			delete(meta, field)
		}
	}
	delete(out, "status")
	return out
}

func compare(path string, a, b any, out *[]string) {
	mapA, okA := a.(map[string]any)
	mapB, okB := b.(map[string]any)
	listA, isListA := a.([]any)
	listB, isListB := b.([]any)
	switch {
	case reflect.DeepEqual(a, b):
	case okA && okB:
		for key := range mapA {
			compare(join(path, key), mapA[key], mapB[key], out)
		}
		for key := range mapB {
			if _, both := mapA[key]; !both {
				compare(join(path, key), nil, mapB[key], out)
			}
		}
	case isListA && isListB && len(listA) == len(listB):
		for i := range listA {
			compare(fmt.Sprintf("%s[%d]", path, i), listA[i], listB[i], out)
		}
	default:
		*out = append(*out, fmt.Sprintf("%s: %s -> %s", path, brief(a), brief(b)))
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func brief(value any) string {
	if value == nil {
		return "(not set)"
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return "?"
	}
	const most = 200
	if len(raw) > most {
		return string([]rune(string(raw))[:most/2]) + "..."
	}
	return string(raw)
}
