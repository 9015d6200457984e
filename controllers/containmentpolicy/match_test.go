package containmentpolicy

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/target"
)

func policy(name string, at v1alpha1.AppliesTo) v1alpha1.ContainmentPolicy {
	return v1alpha1.ContainmentPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ContainmentPolicySpec{AppliesTo: at}}
}

func ofTeam(team string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"team": team}}
}

func TestMatch(t *testing.T) {
	unreadable := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Like"}}}
	everything := policy("everything", v1alpha1.AppliesTo{})
	malware := policy("malware", v1alpha1.AppliesTo{Categories: []v1alpha1.Category{"Ransomware", "Malware"}})
	breach := policy("breach", v1alpha1.AppliesTo{Categories: []v1alpha1.Category{"DataBreach"}})
	severe := policy("severe", v1alpha1.AppliesTo{Severities: []v1alpha1.Severity{"High", "Critical"}})
	minor := policy("minor", v1alpha1.AppliesTo{Severities: []v1alpha1.Severity{"Low"}})
	shops := policy("shops", v1alpha1.AppliesTo{NamespaceSelector: ofTeam("shop")})
	banks := policy("banks", v1alpha1.AppliesTo{NamespaceSelector: ofTeam("bank")})
	broken := policy("broken", v1alpha1.AppliesTo{NamespaceSelector: unreadable})
	brokenBreach := policy("broken-breach", v1alpha1.AppliesTo{NamespaceSelector: unreadable, Categories: []v1alpha1.Category{"DataBreach"}})
	exact := policy("exact", v1alpha1.AppliesTo{NamespaceSelector: ofTeam("shop"), Categories: []v1alpha1.Category{"Malware"}, Severities: []v1alpha1.Severity{"High"}})
	nearly := policy("nearly", v1alpha1.AppliesTo{NamespaceSelector: ofTeam("shop"), Categories: []v1alpha1.Category{"Malware"}, Severities: []v1alpha1.Severity{"Low"}})

	cases := map[string]struct {
		named    string
		policies []v1alpha1.ContainmentPolicy
		want     string
		reason   string
		words    []string
	}{
		"none at all":                          {reason: v1alpha1.ReasonNoPolicy, words: []string{"Malware", "High", "namespace web"}},
		"none that matches":                    {policies: []v1alpha1.ContainmentPolicy{breach, minor, banks, nearly}, reason: v1alpha1.ReasonNoPolicy},
		"no criterion":                         {policies: []v1alpha1.ContainmentPolicy{breach, everything}, want: "everything"},
		"by category":                          {policies: []v1alpha1.ContainmentPolicy{breach, malware}, want: "malware"},
		"by severity":                          {policies: []v1alpha1.ContainmentPolicy{minor, severe}, want: "severe"},
		"by namespace":                         {policies: []v1alpha1.ContainmentPolicy{banks, shops}, want: "shops"},
		"by every criterion":                   {policies: []v1alpha1.ContainmentPolicy{nearly, exact}, want: "exact"},
		"two: the message names them in order": {policies: []v1alpha1.ContainmentPolicy{shops, malware, breach}, reason: v1alpha1.ReasonAmbiguousPolicy, words: []string{"malware, shops", "2 "}},
		"named":                                {named: "breach", policies: []v1alpha1.ContainmentPolicy{malware, breach}, want: "breach"},
		"named, though two match":              {named: "shops", policies: []v1alpha1.ContainmentPolicy{malware, shops}, want: "shops"},
		"named, missing, though one matches":   {named: "gone", policies: []v1alpha1.ContainmentPolicy{malware}, reason: v1alpha1.ReasonNoPolicy, words: []string{"gone"}},
		"named, though another is broken":      {named: "malware", policies: []v1alpha1.ContainmentPolicy{broken, malware}, want: "malware"},
		"a broken one might be the one":        {policies: []v1alpha1.ContainmentPolicy{malware, broken}, reason: v1alpha1.ReasonInvalidPolicy, words: []string{"broken"}},
		"a broken one that cannot be the one":  {policies: []v1alpha1.ContainmentPolicy{brokenBreach, malware}, want: "malware"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			inc := &v1alpha1.Incident{ObjectMeta: metav1.ObjectMeta{Namespace: "web"}}
			inc.Spec.Category, inc.Spec.Severity, inc.Spec.PolicyRef.Name = "Malware", "High", tc.named
			got, err := Match(inc, map[string]string{"team": "shop"}, tc.policies)
			var p *target.Problem
			switch {
			case tc.reason == "" && (err != nil || got.Name != tc.want):
				t.Fatalf("Match() = %v, %v, want %s", got, err, tc.want)
			case tc.reason != "" && (!errors.As(err, &p) || p.Reason != tc.reason || got != nil):
				t.Fatalf("Match() = %v, %v, want reason %s", got, err, tc.reason)
			}
			for _, word := range tc.words {
				if !strings.Contains(p.Message, word) {
					t.Errorf("message %q does not contain %q", p.Message, word)
				}
			}
		})
	}
}

// defaultsOf are the defaults of a schema, by path; those inside lists are left out, because the API server fills them in.
func defaultsOf(schema map[string]any, path string) map[string]any {
	out := map[string]any{}
	if d, ok := schema["default"]; ok {
		out[path] = d
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, p := range properties {
		maps.Copy(out, defaultsOf(p.(map[string]any), path+"."+name))
	}
	return out
}

// leavesOf are the values of an object that are set, by path.
func leavesOf(object any, path string) map[string]any {
	fields, ok := object.(map[string]any)
	if !ok {
		return map[string]any{path: object}
	}
	out := map[string]any{}
	for name, f := range fields {
		maps.Copy(out, leavesOf(f, path+"."+name))
	}
	return out
}

func specSchema(t *testing.T) map[string]any {
	t.Helper()
	raw, err := os.ReadFile("../../config/crd/bases/containment.cofferdam.dev_containmentpolicies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema struct {
						Properties map[string]map[string]any `json:"properties"`
					} `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(raw, &crd); err != nil {
		t.Fatal(err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
}

// The defaults in the CRD and those in Effective are the same, so that "isolation: {}" and no isolation at all mean the same.
func TestEffectiveFillsInTheDefaultsOfTheCRD(t *testing.T) {
	raw, err := json.Marshal(Effective(v1alpha1.ContainmentPolicySpec{}))
	if err != nil {
		t.Fatal(err)
	}
	var effective map[string]any
	if err := json.Unmarshal(raw, &effective); err != nil {
		t.Fatal(err)
	}
	want := defaultsOf(specSchema(t), "spec")
	if len(want) == 0 {
		t.Fatal("no defaults found in the CRD")
	}
	if diff := cmp.Diff(want, leavesOf(effective, "spec")); diff != "" {
		t.Errorf("Effective of an empty spec (-CRD +Effective):\n%s", diff)
	}
}

// A copy of the orders in status may be from before a field had its default, so that the defaults of what is in the list of jobs hold as well.
func TestEffectiveFillsInTheDefaultsOfJobs(t *testing.T) {
	raw, err := json.Marshal(Effective(v1alpha1.ContainmentPolicySpec{Evidence: v1alpha1.EvidenceOrders{Jobs: make([]v1alpha1.EvidenceJob, 2)}}).Evidence.Jobs[1])
	if err != nil {
		t.Fatal(err)
	}
	var effective map[string]any
	if err := json.Unmarshal(raw, &effective); err != nil {
		t.Fatal(err)
	}
	schema := specSchema(t)
	for _, name := range []string{"evidence", "jobs"} {
		schema = schema["properties"].(map[string]any)[name].(map[string]any)
	}
	want := defaultsOf(schema["items"].(map[string]any), "job")
	if len(want) == 0 {
		t.Fatal("no defaults found in the CRD")
	}
	if diff := cmp.Diff(want, leavesOf(effective, "job")); diff != "" {
		t.Errorf("Effective of an empty job (-CRD +Effective):\n%s", diff)
	}
}

func TestEffectiveKeepsWhatIsSet(t *testing.T) {
	set := v1alpha1.ContainmentPolicySpec{
		Isolation: v1alpha1.Isolation{Pods: v1alpha1.PodHandlingKeepAttached, Replacements: v1alpha1.ReplacementRefuse, DenyTier: v1alpha1.DenyTierNever, ConflictingPolicies: v1alpha1.ConflictCarveOut, Exceptions: []v1alpha1.EvidenceException{{Name: "a"}}},
		Evidence: v1alpha1.EvidenceOrders{
			Logs:            v1alpha1.LogOrders{Collect: v1alpha1.Skip, MaxBytes: 1024, DeadlineSeconds: 6},
			Checkpoints:     v1alpha1.CheckpointOrders{Collect: v1alpha1.Collect, DeadlineSeconds: 7},
			VolumeSnapshots: v1alpha1.SnapshotSkip, VolumeSnapshotClassName: "fast", SnapshotDeadlineSeconds: 5, VolumeGroups: v1alpha1.VolumeGroupPrefer,
			Jobs: []v1alpha1.EvidenceJob{{Name: "memory", Access: "Node", DeadlineSeconds: 8, MaxParallel: 9}},
			Gaps: v1alpha1.GapRequireWaiver, Retention: v1alpha1.EvidenceRetention{RequiredApprovals: 3},
		},
		Limits:              v1alpha1.Limits{MaxPods: 1, MaxNamespaces: 2, MaxNamespacePercent: 3},
		Closing:             v1alpha1.Closing{RequiredApprovals: 2, EvidencePods: v1alpha1.EvidencePodRelease},
		ProtectedNamespaces: []string{"vault"},
	}
	got := Effective(set)
	if diff := cmp.Diff(set, got); diff != "" {
		t.Errorf("Effective() (-want +got):\n%s", diff)
	}
	got.Isolation.Exceptions[0].Name = "changed"
	if set.Isolation.Exceptions[0].Name != "a" {
		t.Error("Effective() shares memory with what it was given")
	}
}
