package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/test/cluster"
)

const (
	leakyForAll = namespace + "/allow-everything"
	leakyForWeb = namespace + "/allow-web"
)

// rehearse declares the Incident as a dry run.
func (d *demo) rehearse(ctx context.Context) error {
	manifest, err := os.ReadFile(filepath.Join(d.server.Root, manifests, "incident.yaml"))
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	blank()
	say("The Incident, as the responder writes it (%sincident.yaml):", manifests)
	quote(string(manifest))
	if err := d.kubectl(ctx, responder, "create", "-f", manifests+"incident.yaml"); err != nil {
		return err
	}
	inc, err := d.await(ctx, "the dry run is complete", is(v1alpha1.ConditionReady))
	if err != nil {
		return err
	}
	d.uid = string(inc.UID)
	if err := d.kubectl(ctx, responder, "get", "incident", incidentName); err != nil {
		return err
	}
	blank()
	say("status.plannedActions says what Enforce would do:")
	for _, a := range inc.Status.PlannedActions {
		fmt.Printf("    %-7s %s %s\n", a.Verb, a.Object.Kind, a.Object.Name)
		for _, l := range wrap(a.Detail, width-16) {
			fmt.Println("            " + l)
		}
	}
	blank()
	say("It also evaluates every NetworkPolicy as if the pods were contained: %s", condition(inc, v1alpha1.ConditionContained).Message)
	d.check("the dry run shows what it would do and has written nothing but status", d.nothingDone(ctx, inc))
	return nil
}

// nothingDone says what a dry run has changed, or failed to plan.
func (d *demo) nothingDone(ctx context.Context, inc *v1alpha1.Incident) error {
	var problems []error
	patched := 0
	for _, a := range inc.Status.PlannedActions {
		if a.Verb == "patch" && a.Object.Kind == "Pod" {
			patched++
		}
	}
	if patched != wanted[web]+wanted[db] {
		problems = append(problems, fmt.Errorf("it plans to quarantine %d pods", patched))
	}
	if len(inc.Finalizers) > 0 {
		problems = append(problems, fmt.Errorf("the Incident has finalizers %v", inc.Finalizers))
	}
	written, err := d.writtenFor(ctx)
	if len(written) > 0 {
		problems = append(problems, fmt.Errorf("it has written %v", written))
	}
	return errors.Join(append(problems, err, d.untouched(ctx, web, db, blog))...)
}

// writtenFor names the NetworkPolicies and ConfigMaps that carry the Incident's label.
func (d *demo) writtenFor(ctx context.Context) ([]string, error) {
	ours := client.MatchingLabels{v1alpha1.IncidentUIDLabel: d.uid}
	var out []string
	var policies networkingv1.NetworkPolicyList
	var configMaps corev1.ConfigMapList
	err := errors.Join(d.admin.List(ctx, &policies, ours), d.admin.List(ctx, &configMaps, ours, client.InNamespace(cluster.OperatorNamespace)))
	for _, p := range policies.Items {
		out = append(out, "NetworkPolicy "+p.Name)
	}
	for _, cm := range configMaps.Items {
		out = append(out, "ConfigMap "+cm.Name)
	}
	return out, err
}

// contain makes the dry run real. The pods are cut off at once; what policies of others still allow is named.
func (d *demo) contain(ctx context.Context) error {
	_, given, err := d.shown(ctx, responder, "patch", "incident", incidentName, "--type=merge", "-p", `{"spec":{"mode":"Enforce"}}`)
	if err != nil {
		return err
	}
	d.enforced = given
	if err := d.until(ctx, "every pod is cut off", d.notCutOff); err != nil {
		return err
	}
	d.measure("from the command to enforce until every compromised pod was denied and detached", time.Since(given))
	inc, err := d.await(ctx, "replacements have been judged", func(inc *v1alpha1.Incident) string {
		if n := len(judged(inc)); n != wanted[web]*2+wanted[db] {
			return fmt.Sprintf("%d pods are judged", n)
		}
		return hasReason(v1alpha1.ConditionContained, v1alpha1.ReasonLeaking)(inc)
	})
	if err != nil {
		return err
	}
	for _, p := range inc.Status.Pods {
		if p.Replacement == "" {
			d.evidencePods = append(d.evidencePods, p)
		}
	}
	if err := d.kubectl(ctx, responder, "get", "incident", incidentName); err != nil {
		return err
	}
	showVerdicts(inc)
	showLeaks(inc)
	blank()
	say("%s", describe(inc, v1alpha1.ConditionContained))
	d.check("every pod leaks through allow-everything, rule 0, in both directions, and Contained is False", leakingOnly(inc, leakyForAll, everyPod))
	d.check("through allow-web leak the replacements only: the pods that were running have escaped it by losing their labels",
		leakingOnly(inc, leakyForWeb, isWebReplacement))
	d.check("the running pods have lost their labels and their owner", d.detached(ctx))
	d.check("replacements of the compromised revision started quarantined: a deny policy that selects them by their own labels is no younger than they are",
		d.startedQuarantined(ctx, inc))
	return d.explained(ctx, db+"-0", exitLeaking, "allow-everything")
}

// Exit codes of kubectl incident explain.
const (
	exitIsolated = 0
	exitLeaking  = 1
)

// explained runs kubectl incident explain, which has a view of its own: it reads the cluster as it is, and not what the operator says of it.
func (d *demo) explained(ctx context.Context, pod string, code int, mentions ...string) error {
	output, _, err := d.shown(ctx, platformEngineer, "incident", "explain", "pod/"+pod)
	got := exitIsolated
	if exit, failed := errors.AsType[*exec.ExitError](err); failed {
		got, err = exit.ExitCode(), nil
	}
	if err != nil {
		return err
	}
	problem := error(nil)
	if got != code {
		problem = fmt.Errorf("it exited with %d", got)
	}
	for _, m := range mentions {
		if !strings.Contains(output, m) {
			problem = errors.Join(problem, fmt.Errorf("it does not mention %s", m))
		}
	}
	claim := fmt.Sprintf("kubectl incident explain finds the same without the operator, names the policy and exits with %d", code)
	if code == exitIsolated {
		claim = fmt.Sprintf("kubectl incident explain now finds %s isolated, and exits with %d", pod, code)
	}
	d.check(claim, problem)
	return nil
}

// notCutOff says which of the pods that were compromised is not yet denied and detached, as the API server has it.
func (d *demo) notCutOff(ctx context.Context) (string, error) {
	pods, err := d.pods(ctx)
	if err != nil {
		return "", err
	}
	policies, err := d.policies(ctx)
	if err != nil {
		return "", err
	}
	for _, app := range []string{web, db} {
		for _, was := range d.before[app] {
			i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.UID == was.UID })
			if i < 0 {
				return "", fmt.Errorf("pod %s is gone", was.Name)
			}
			if p := pods[i]; p.Labels[appLabel] != "" || len(denying(&p, policies)) == 0 {
				return "pod " + p.Name + " is not cut off", nil
			}
		}
	}
	return "", nil
}

// closeLeaks does what the verdict says, one policy after the other.
func (d *demo) closeLeaks(ctx context.Context) error {
	_, given, err := d.shown(ctx, platformEngineer, "delete", "networkpolicy", "allow-everything")
	if err != nil {
		return err
	}
	inc, err := d.await(ctx, "allow-everything leaks no more", func(inc *v1alpha1.Incident) string {
		if n := len(leaks(inc, leakyForAll)); n > 0 {
			return fmt.Sprintf("%d leaks through it are reported", n)
		}
		return ""
	})
	if err != nil {
		return err
	}
	say("%s after the command:", seconds(time.Since(given)))
	showLeaks(inc)
	blank()
	say("%s", describe(inc, v1alpha1.ConditionContained))
	d.check("Contained is still False, because allow-web selects the replacements", leakingOnly(inc, leakyForWeb, isWebReplacement))
	return d.narrowAllowWeb(ctx, inc)
}

// narrowAllowWeb keeps allow-web off the compromised revision, and on every other one.
func (d *demo) narrowAllowWeb(ctx context.Context, inc *v1alpha1.Incident) error {
	blank()
	say("The replacements carry app=web, as their ReplicaSet made them. allow-web has to let go of the compromised revision, and of nothing else:")
	i := slices.IndexFunc(inc.Status.Revisions, func(r v1alpha1.RevisionStatus) bool { return r.Workload.Name == web })
	if i < 0 || inc.Status.Revisions[i].Selector == nil {
		return errors.New("status.revisions does not name the revision of web")
	}
	hash := inc.Status.Revisions[i].Selector.MatchLabels["pod-template-hash"]
	patch := fmt.Sprintf(`[{"op":"add","path":"/spec/podSelector/matchExpressions","value":[`+"\n"+
		`{"key":"pod-template-hash","operator":"NotIn","values":[%q]}]}]`, hash)
	_, given, err := d.shown(ctx, platformEngineer, "patch", "networkpolicy", "allow-web", "--type=json", "-p", patch)
	if err != nil {
		return err
	}
	inc, err = d.await(ctx, "Contained is True", is(v1alpha1.ConditionContained))
	if err != nil {
		return err
	}
	say("%s after the command:", seconds(time.Since(given)))
	d.measure("from the correction of the last policy until Contained was True", time.Since(given))
	d.measure("from the command to enforce until Contained was True, both corrections included", time.Since(d.enforced))
	if err := d.kubectl(ctx, responder, "get", "incident", incidentName); err != nil {
		return err
	}
	showVerdicts(inc)
	showResiduals(inc)
	blank()
	say("%s", describe(inc, v1alpha1.ConditionContained))
	d.check("no NetworkPolicy in force allows anything to or from any pod of the Incident (looked up and evaluated by the demo itself)",
		d.closedOff(ctx, inc))
	return d.explained(ctx, db+"-0", exitIsolated)
}

func judged(inc *v1alpha1.Incident) []v1alpha1.PodStatus {
	return slices.DeleteFunc(slices.Clone(inc.Status.Pods), func(p v1alpha1.PodStatus) bool {
		return p.Handling == v1alpha1.HandlingPending || p.Verdict == v1alpha1.VerdictUnknown
	})
}

func everyPod(v1alpha1.PodStatus) bool { return true }

func isWebReplacement(p v1alpha1.PodStatus) bool {
	return p.Replacement != "" && strings.HasPrefix(p.Name, web+"-")
}

// leaks are the leaks of all pods through a policy.
func leaks(inc *v1alpha1.Incident, policy string) []v1alpha1.Leak {
	var out []v1alpha1.Leak
	for _, p := range inc.Status.Pods {
		for _, l := range p.Leaks {
			if l.Policy == policy {
				out = append(out, l)
			}
		}
	}
	return out
}

// leakingOnly says what contradicts that exactly the pods that are selected leak through a policy, by its rule 0 in both directions, and that
// the Incident does not count as contained.
func leakingOnly(inc *v1alpha1.Incident, policy string, selected func(v1alpha1.PodStatus) bool) error {
	var problems []error
	if c := condition(inc, v1alpha1.ConditionContained); c.Status != "False" || c.Reason != v1alpha1.ReasonLeaking {
		problems = append(problems, errors.New(describe(inc, v1alpha1.ConditionContained)))
	}
	some := false
	for _, p := range inc.Status.Pods {
		var ways []string
		for _, l := range p.Leaks {
			if l.Policy == policy && l.Rule != nil && *l.Rule == 0 {
				ways = append(ways, string(l.Direction))
			}
		}
		slices.Sort(ways)
		switch {
		case selected(p) && (p.Verdict != v1alpha1.VerdictLeaking || strings.Join(ways, " ") != "Egress Ingress"):
			problems = append(problems, fmt.Errorf("pod %s is %s, through %s: %v", p.Name, p.Verdict, policy, ways))
		case !selected(p) && len(ways) > 0:
			problems = append(problems, fmt.Errorf("pod %s leaks through %s: %v", p.Name, policy, ways))
		}
		some = some || selected(p)
	}
	if !some {
		problems = append(problems, errors.New("there is no such pod"))
	}
	return errors.Join(problems...)
}
