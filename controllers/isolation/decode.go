package isolation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// decodeSpec reads the spec of an object of another API into a type that names the fields that the package knows. A field that it does not know is an error: it could change the
// meaning of all others. field names what is wrong, for people.
func decodeSpec(u *unstructured.Unstructured, into any) (field string, err error) {
	spec, found := u.Object["spec"]
	if !found {
		return "spec", errors.New("there is none")
	}
	return decodePart("spec", spec, into)
}

// decodePart does for the part of an object at path what decodeSpec does for the spec.
func decodePart(path string, part, into any) (field string, err error) {
	raw, err := json.Marshal(part)
	if err != nil {
		return path, fmt.Errorf("reading it: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(into)
	if err == nil {
		return "", nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return path + "." + wrong.Field, errors.New("it has a type that the API does not have")
	}
	if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return path, fmt.Errorf("its field %s is not known to this version of Cofferdam", name)
	}
	return path, err
}

// refOf names the object that a policy is read from.
func refOf(u *unstructured.Unstructured) Ref {
	gvk := u.GroupVersionKind()
	return Ref{Group: gvk.Group, Kind: gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), Generation: u.GetGeneration()}
}

// undecidedPolicy is what is left of an object whose meaning cannot be decided: it may apply to every pod that it can reach and may allow everything to it. It denies nothing.
func undecidedPolicy(ref Ref, field string, err error) *Policy {
	p := &Policy{Ref: ref, subject: subject{undecided: fmt.Sprintf("%s: %v", field, err)}, notReported: "its meaning cannot be decided"}
	for _, d := range Directions() {
		p.addSection(d, &section{
			tier: tier{order: math.Inf(-1)}, additive: true, // it may belong before everything that denies
			rules: []rule{{index: noRule, action: accept, peers: anyPeers(), ports: allPorts()}},
		})
	}
	return p
}
