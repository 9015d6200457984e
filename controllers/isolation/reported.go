package isolation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Types of conditions that implementations report. The Network Policy API leaves it to them (api-overview, "Status").
const (
	// conditionReadyInZone is followed by the name of a zone of OVN-Kubernetes, mostly a node's.
	conditionReadyInZone = "Ready-In-Zone-"
	// conditionReady is what OVN-Kubernetes reports instead for all zones together (OKEP-6414), and what other APIs mean by it.
	conditionReady = "Ready"
	// conditionProgrammed says, by the policies of the Gateway API (GEP-713), that the dataplane has been set up.
	conditionProgrammed = "Programmed"
	// conditionAccepted says, by GEP-713 and by KEP-2943, that the object was understood. That does not mean that it is in effect.
	conditionAccepted = "Accepted"
)

// effect is what an object's status says of whether the object is in effect.
type effect struct {
	// reported says that it is, in the generation that was read; why says what is missing if it is not.
	reported bool
	why      string
	// refused says that the status speaks against it, so that nothing that is known of other objects can stand in for a report.
	refused bool
	// byZone says that there are conditions by zone.
	byZone bool
}

func (e *effect) refuse(why string) { e.reported, e.refused, e.why = false, true, why }

type reportedCondition struct {
	Type               string                 `json:"type"`
	Status             metav1.ConditionStatus `json:"status"`
	ObservedGeneration int64                  `json:"observedGeneration"`
}

// effectOf reads the conditions of an object. It is in effect if one says so, all are True, none is of a type that is not known, which could be the type of a failure, and none is about
// another generation.
func effectOf(u *unstructured.Unstructured) effect {
	conditions, err := conditionsOf(u)
	if err != nil {
		return effect{refused: true, why: "status.conditions cannot be read"}
	}
	e := effect{why: "no implementation has reported that it is in effect (status.conditions is empty)"}
	if len(conditions) > 0 {
		e.why = "an implementation has reported that it accepted it, and nothing has reported that it is in effect"
	}
	for _, c := range conditions {
		zone := strings.HasPrefix(c.Type, conditionReadyInZone)
		e.byZone = e.byZone || zone
		switch {
		case e.refused:
		case c.Status != metav1.ConditionTrue:
			e.refuse(fmt.Sprintf("its condition %s is %s", c.Type, cmp.Or(c.Status, metav1.ConditionUnknown)))
		case c.ObservedGeneration != 0 && c.ObservedGeneration != u.GetGeneration():
			e.refuse(fmt.Sprintf("its condition %s is about generation %d of it, and there is generation %d", c.Type, c.ObservedGeneration, u.GetGeneration()))
		case zone, c.Type == conditionReady, c.Type == conditionProgrammed:
			e.reported = true
		case c.Type != conditionAccepted:
			e.refuse(fmt.Sprintf("its condition %s is True, and what that type means is not known", c.Type))
		}
	}
	if e.reported {
		e.why = ""
	}
	return e
}

func conditionsOf(u *unstructured.Unstructured) ([]reportedCondition, error) {
	found, _, err := unstructured.NestedFieldNoCopy(u.Object, "status", "conditions")
	if err != nil {
		return nil, fmt.Errorf("finding the conditions: %w", err)
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return nil, fmt.Errorf("reading the conditions: %w", err)
	}
	var out []reportedCondition
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("reading the conditions: %w", err)
	}
	return out, nil
}
