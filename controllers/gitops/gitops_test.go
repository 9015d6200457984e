package gitops

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

// parse reads an object from YAML, in the namespace "ns" and with the name "it" unless it says otherwise.
func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	out := &unstructured.Unstructured{}
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := utiljson.Unmarshal(raw, &out.Object); err != nil { // keeps integers, as clients do
		t.Fatal(err)
	}
	if out.GetName() == "" {
		out.SetNamespace("ns")
		out.SetName("it")
	}
	return out
}

func TestClaims(t *testing.T) {
	cases := map[string]struct {
		kind, object string
		want         []Claim
	}{
		"nobody":        {"Deployment", "{}", nil},
		"a tracking id": {"Deployment", `metadata: {namespace: shop, name: web, annotations: {argocd.argoproj.io/tracking-id: "web-app:apps/Deployment:shop/web"}}`, []Claim{{Ref{Application, "", "web-app"}, true}}},
		"a tracking id that names the Application's namespace": {
			"Deployment", `metadata: {namespace: shop, name: web, annotations: {argocd.argoproj.io/tracking-id: "teams_web-app:apps/Deployment:shop/web"}}`, []Claim{{Ref{Application, "teams", "web-app"}, true}},
		},
		"a tracking id that was copied from another object": {"Deployment", `metadata: {namespace: shop, name: copy, annotations: {argocd.argoproj.io/tracking-id: "web-app:apps/Deployment:shop/web"}}`, nil},
		"a label that many things carry":                    {"Deployment", `metadata: {namespace: shop, name: web, labels: {app.kubernetes.io/instance: web-app}}`, []Claim{{Ref{Application, "", "web-app"}, false}}},
		"the tracking id says more than the label": {
			"Deployment", `metadata: {namespace: shop, name: web, labels: {app.kubernetes.io/instance: release}, annotations: {argocd.argoproj.io/tracking-id: "web-app:apps/Deployment:shop/web"}}`,
			[]Claim{{Ref{Application, "", "web-app"}, true}},
		},
		"the label that Argo CD advises": {"Deployment", `metadata: {namespace: shop, name: web, labels: {app.kubernetes.io/instance: release, argocd.argoproj.io/instance: teams_web-app}}`,
			[]Claim{{Ref{Application, "", "release"}, false}, {Ref{Application, "teams", "web-app"}, false}}},
		"Flux": {"Deployment", `metadata: {namespace: shop, name: web, labels: {kustomize.toolkit.fluxcd.io/name: apps, kustomize.toolkit.fluxcd.io/namespace: flux-system, helm.toolkit.fluxcd.io/name: web, helm.toolkit.fluxcd.io/namespace: shop}}`,
			[]Claim{{Ref{Kustomization, "flux-system", "apps"}, true}, {Ref{HelmRelease, "shop", "web"}, true}}},
		"a Kustomization that applies itself": {Kustomization, `metadata: {namespace: flux-system, name: flux-system, labels: {kustomize.toolkit.fluxcd.io/name: flux-system, kustomize.toolkit.fluxcd.io/namespace: flux-system}}`, nil},
		"an Application that applies itself":  {Application, `metadata: {namespace: argocd, name: argocd, annotations: {argocd.argoproj.io/tracking-id: "argocd:argoproj.io/Application:argocd/argocd"}}`, nil},
		"an Application of an ApplicationSet": {Application, `metadata: {namespace: argocd, name: web, ownerReferences: [{apiVersion: argoproj.io/v1alpha1, kind: ApplicationSet, name: tier, uid: u}]}`, []Claim{{Ref{ApplicationSet, "argocd", "tier"}, true}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Claims(tc.kind, parse(t, tc.object))); diff != "" {
				t.Errorf("Claims() (-want +got):\n%s", diff)
			}
		})
	}
}

const underRoot = `labels: {kustomize.toolkit.fluxcd.io/name: root, kustomize.toolkit.fluxcd.io/namespace: ns`

func TestPaused(t *testing.T) {
	cases := map[string]struct {
		object string
		want   bool
	}{
		"an Application that syncs by itself":     {`{kind: Application, spec: {syncPolicy: {automated: {}}}}`, false},
		"enabled":                                 {`{kind: Application, spec: {syncPolicy: {automated: {enabled: true}}}}`, false},
		"turned off":                              {`{kind: Application, spec: {syncPolicy: {automated: {enabled: false, selfHeal: true}}}}`, true},
		"that never did":                          {`{kind: Application, spec: {syncPolicy: {retry: {limit: 2}}}}`, true},
		"turned off under a Kustomization":        {`{kind: Application, metadata: {namespace: ns, name: it, ` + underRoot + `}}, spec: {}}`, false},
		"and fenced off from it":                  {`{kind: Application, metadata: {namespace: ns, name: it, ` + underRoot + `, kustomize.toolkit.fluxcd.io/reconcile: disabled}}, spec: {}}`, true},
		"a Kustomization":                         {`{kind: Kustomization, spec: {suspend: false}}`, false},
		"suspended":                               {`{kind: Kustomization, spec: {suspend: true}}`, true},
		"suspended under another one":             {`{kind: HelmRelease, metadata: {namespace: ns, name: it, ` + underRoot + `}}, spec: {suspend: true}}`, false},
		"an ApplicationSet":                       {`{kind: ApplicationSet, spec: {}}`, false},
		"that leaves all of them alone":           {`{kind: ApplicationSet, spec: {ignoreApplicationDifferences: [{jsonPointers: [/spec, /metadata]}]}}`, true},
		"that leaves syncPolicy alone, not marks": {`{kind: ApplicationSet, spec: {ignoreApplicationDifferences: [{jsonPointers: [/spec/syncPolicy]}]}}`, false},
		"that leaves another one alone":           {`{kind: ApplicationSet, spec: {ignoreApplicationDifferences: [{name: other, jsonPointers: [/spec, /metadata]}]}}`, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Paused(parse(t, tc.object), "child"); got != tc.want {
				t.Errorf("Paused() = %t, want %t", got, tc.want)
			}
		})
	}
}

// What is paused and resumed is as it was before, whatever it had.
func TestPauseAndResume(t *testing.T) {
	cases := map[string]string{
		"automated sync":                            `{kind: Application, spec: {project: p, syncPolicy: {automated: {prune: true}, retry: {limit: 2}}}}`,
		"automated sync that is enabled":            `{kind: Application, spec: {syncPolicy: {automated: {enabled: true}}}}`,
		"empty automated sync":                      `{kind: Application, spec: {syncPolicy: {automated: {}}}}`,
		"an Application under a Kustomization":      `{kind: Application, metadata: {namespace: ns, name: it, ` + underRoot + `}}, spec: {syncPolicy: {automated: {}}}}`,
		"a Kustomization":                           `{kind: Kustomization, spec: {path: p}}`,
		"a Kustomization that says suspend: false":  `{kind: Kustomization, spec: {suspend: false}}`,
		"one that somebody has suspended, unfenced": `{kind: Kustomization, metadata: {namespace: ns, name: it, ` + underRoot + `}}, spec: {suspend: true}}`,
		"one with another value for the fence":      `{kind: Kustomization, metadata: {namespace: ns, name: it, ` + underRoot + `, kustomize.toolkit.fluxcd.io/reconcile: enabled}}, spec: {}}`,
		"an ApplicationSet":                         `{kind: ApplicationSet, spec: {template: {}}}`,
		"an ApplicationSet with rules":              `{kind: ApplicationSet, spec: {ignoreApplicationDifferences: [{name: other, jsonPointers: [/spec/info]}]}}`,
	}
	for name, text := range cases {
		for _, without := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				pauseAndResume(t, parse(t, text), without)
			})
		}
	}
}

func pauseAndResume(t *testing.T, object *unstructured.Unstructured, without bool) {
	t.Helper()
	lease := Lease{Incident: "shop/miner", UID: "inc", Reason: "a miner", Since: metav1.Unix(1, 0), Expires: metav1.Unix(2, 0)}
	before := object.DeepCopy()
	recorded, err := json.Marshal(Record(object)) // as it is kept in status
	if err != nil {
		t.Fatal(err)
	}
	var was Before
	if err := json.Unmarshal(recorded, &was); err != nil {
		t.Fatal(err)
	}
	pause, err := PausePatch(object, "child", lease, without)
	if err != nil {
		t.Fatal(err)
	}
	merge(t, object, pause)
	if !Paused(object, "child") || object.GetLabels()[v1alpha1.GitOpsPausedLabel] != "inc" {
		t.Fatalf("is not paused: %v", object.Object)
	}
	if got, ok := ReadLease(object); !ok || got.Incident != "shop/miner" {
		t.Errorf("ReadLease() = %v, %t", got, ok)
	}
	resume, err := ResumePatch(object, "child", was, "inc")
	if err != nil || resume == nil {
		t.Fatalf("ResumePatch() = %s, %v", resume, err)
	}
	merge(t, object, resume)
	clean(before)
	clean(object)
	if diff := cmp.Diff(before.Object, object.Object); diff != "" {
		t.Errorf("is not what it was (-before +after):\n%s", diff)
	}
	if again, err := ResumePatch(object, "child", was, "inc"); err != nil || again != nil {
		t.Errorf("something is left to be given back: %s, %v", again, err)
	}
}

func TestResumeLeavesAloneWhatOthersHaveChangedSince(t *testing.T) {
	object := parse(t, `{kind: Application, spec: {syncPolicy: {automated: {enabled: false, prune: false}}}}`)
	patch, err := ResumePatch(object, "", Before{Automated: map[string]any{"prune": true, "selfHeal": true}}, "inc")
	if err != nil {
		t.Fatal(err)
	}
	merge(t, object, patch)
	if diff := cmp.Diff(map[string]any{"prune": false}, automated(object)); diff != "" {
		t.Errorf("automated (-want +got):\n%s", diff)
	}
}

// merge applies a merge patch (RFC 7386).
func merge(t *testing.T, object *unstructured.Unstructured, raw []byte) {
	t.Helper()
	var patch map[string]any
	if err := json.Unmarshal(raw, &patch); err != nil {
		t.Fatal(err)
	}
	object.Object = merged(object.Object, patch)
}

func merged(into, patch map[string]any) map[string]any {
	if into == nil {
		into = map[string]any{}
	}
	for k, v := range patch {
		m, isMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case isMap:
			old, _ := into[k].(map[string]any)
			into[k] = merged(old, m)
		default:
			into[k] = v
		}
	}
	return into
}

// clean drops what an API server drops, and what only binds a patch to an object.
func clean(object *unstructured.Unstructured) {
	meta := object.Object["metadata"].(map[string]any)
	delete(meta, "uid")
	delete(meta, "resourceVersion")
	for _, k := range []string{"labels", "annotations"} {
		if m, _ := meta[k].(map[string]any); len(m) == 0 {
			delete(meta, k)
		}
	}
}

func TestUnseen(t *testing.T) {
	since := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	app := func(spec, status string) string {
		return `{kind: Application, spec: {` + spec + `}, status: {` + status + `}}`
	}
	const synced = `resources: [{kind: Deployment, namespace: shop, name: web, status: Synced}]`
	const fresh = `reconciledAt: "2026-01-01T12:00:01Z", `
	cases := map[string]struct {
		object, want string
	}{
		"compared since, and the same":          {app("", fresh+synced), ""},
		"compared before":                       {app("", `reconciledAt: "2026-01-01T12:00:00Z", `+synced), "it has not compared itself with its source since the step has started: refresh it"},
		"never compared":                        {app("", synced), "it has not compared itself with its source since the step has started: refresh it"},
		"the images of pods prove nothing":      {app("", fresh+`summary: {images: ["registry/web@sha256:good"]}, sync: {revision: r1}, resources: [{kind: Deployment, namespace: shop, name: web, status: OutOfSync}]`), `its source, at revision "r1", renders Deployment web otherwise than with the known-good images (OutOfSync): correct it there`},
		"not in the list":                       {app("", fresh+`resources: [{kind: Deployment, namespace: other, name: web, status: Synced}]`), "it does not list Deployment shop/web"},
		"what could not be compared":            {app("", fresh+synced+`, conditions: [{type: ComparisonError, message: no such path}]`), "it cannot compare itself with its source: no such path"},
		"images are hidden by a pointer":        {app(`ignoreDifferences: [{group: apps, kind: Deployment, jsonPointers: [/spec/template/spec/containers/0/image]}]`, fresh+synced), "its spec.ignoreDifferences (/spec/template/spec/containers/0/image) may hide the images of Deployment web"},
		"by a pointer to everything":            {app(`ignoreDifferences: [{group: apps, kind: Deployment, jsonPointers: [/spec]}]`, fresh+synced), "its spec.ignoreDifferences (/spec) may hide the images of Deployment web"},
		"by an expression":                      {app(`ignoreDifferences: [{group: apps, kind: "*", jqPathExpressions: [".spec..image"]}]`, fresh+synced), "its spec.ignoreDifferences (jqPathExpressions .spec..image) may hide the images of Deployment web"},
		"by who has written them":               {app(`ignoreDifferences: [{group: apps, kind: Deployment, managedFieldsManagers: [cofferdam]}]`, fresh+synced), "its spec.ignoreDifferences (managedFieldsManagers cofferdam) may hide the images of Deployment web"},
		"by a pattern of kinds":                 {app(`ignoreDifferences: [{group: "*", kind: "{Deployment,StatefulSet}", jsonPointers: [/spec/template]}]`, fresh+synced), "its spec.ignoreDifferences (/spec/template) may hide the images of Deployment web"},
		"replicas hide nothing":                 {app(`ignoreDifferences: [{group: apps, kind: Deployment, jsonPointers: [/spec/replicas]}]`, fresh+synced), ""},
		"nor do those of others":                {app(`ignoreDifferences: [{kind: Deployment, name: other, jsonPointers: [/spec]}, {kind: StatefulSet, jsonPointers: [/spec]}]`, fresh+synced), ""},
		"Flux does not compare while suspended": {`{kind: Kustomization, status: {lastAppliedRevision: r1}}`, "Kustomization does not compare the cluster with its source while it is suspended"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Unseen(parse(t, tc.object), "Deployment", "shop", "web", since); got != tc.want {
				t.Errorf("Unseen() = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestInFlightAndUnrest(t *testing.T) {
	since := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	const fresh = `reconciledAt: "2026-01-01T12:00:01Z"`
	cases := map[string]struct {
		object, busy, unrest string
	}{
		"requested": {`{kind: Application, operation: {sync: {}}}`, "an operation was requested and has not begun", "an operation was requested and has not begun"},
		"running":   {`{kind: Application, status: {operationState: {phase: Running}}}`, "its operation is Running", "its operation is Running"},
		"at rest":   {`{kind: Application, status: {operationState: {phase: Failed}, sync: {status: Synced}, health: {status: Healthy}, ` + fresh + `}}`, "", ""},
		"silent":    {`{kind: Application}`, "", "it has not compared itself with its source since"},
		"drifting":  {`{kind: Application, status: {sync: {status: OutOfSync}, health: {status: Healthy}, ` + fresh + `}}`, "", "it is OutOfSync and Healthy"},
		"unhealthy": {`{kind: Application, status: {sync: {status: Synced}, health: {status: Degraded}, ` + fresh + `}}`, "", "it is Synced and Degraded"},
		"Flux reconciling": {
			`{kind: Kustomization, status: {conditions: [{type: Ready, status: Unknown}]}}`, "it is being reconciled", "it is being reconciled",
		},
		"Flux between attempts that fail": {
			`{kind: Kustomization, metadata: {namespace: ns, name: it, generation: 2}, status: {observedGeneration: 2, conditions: [{type: Reconciling, status: "True", reason: ProgressingWithRetry}, {type: Ready, status: "False", message: broken}]}}`,
			"", "it is not Ready: broken",
		},
		"Flux not since": {`{kind: HelmRelease, metadata: {namespace: ns, name: it, generation: 3}, status: {observedGeneration: 2, conditions: [{type: Ready, status: "True"}]}}`, "", "it has not been reconciled since"},
		"Flux ready":     {`{kind: HelmRelease, metadata: {namespace: ns, name: it, generation: 3}, status: {observedGeneration: 3, conditions: [{type: Ready, status: "True"}]}}`, "", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			object := parse(t, tc.object)
			if got := InFlight(object); got != tc.busy {
				t.Errorf("InFlight() = %q, want %q", got, tc.busy)
			}
			if got := Unrest(object, since, true); got != tc.unrest {
				t.Errorf("Unrest() = %q, want %q", got, tc.unrest)
			}
		})
	}
}

func TestUnrestOfWhatIsAbove(t *testing.T) {
	since := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	const ill = `sync: {status: OutOfSync}, health: {status: Degraded}, reconciledAt: `
	if why := Unrest(parse(t, `{kind: Application, status: {`+ill+`"2026-01-01T12:00:01Z"}}`), since, false); why != "" {
		t.Errorf("troubles of its own count: %q", why)
	}
	if why := Unrest(parse(t, `{kind: Application, status: {`+ill+`"2026-01-01T11:59:59Z"}}`), since, false); why == "" {
		t.Error("one that has not looked since counts")
	}
}

func TestUnpausable(t *testing.T) {
	if why := Unpausable(parse(t, `{kind: ApplicationSet, spec: {strategy: {type: RollingSync}}}`)); why == "" {
		t.Error("an ApplicationSet that syncs its Applications itself is taken for one that can be paused")
	}
	if why := Unpausable(parse(t, `{kind: ApplicationSet, spec: {strategy: {type: AllAtOnce}}}`)); why != "" {
		t.Errorf("Unpausable() = %q", why)
	}
}
