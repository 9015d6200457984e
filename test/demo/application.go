package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	appLabel = "app"
	web      = "web"
	db       = "db"
	blog     = "blog"
)

// wanted are the workloads and the number of their pods.
var wanted = map[string]int{web: 2, db: 1, blog: 1}

// openShop creates the application, the people and their standing orders.
func (d *demo) openShop(ctx context.Context) error {
	for _, file := range []string{"people.yaml", "orders.yaml", "shop.yaml"} {
		if err := d.kubectl(ctx, platformEngineer, "apply", "-f", manifests+file); err != nil {
			return err
		}
	}
	err := d.until(ctx, "the application runs", func(ctx context.Context) (string, error) {
		pods, err := d.podsByApp(ctx)
		d.before = pods
		return d.notRunning(pods), err
	})
	if err != nil {
		return err
	}
	if d.snapshots {
		if err := d.backUp(ctx); err != nil {
			return err
		}
	}
	if err := d.kubectl(ctx, platformEngineer, "get", "pods", "--label-columns=app"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, platformEngineer, "get", "networkpolicies"); err != nil {
		return err
	}
	blank()
	say("web and db run the image registry.k8s.io/pause:3.10, which is taken to be compromised; blog runs a clean one, and is there to be left alone.")
	say("allow-web allows everything to and from pods with the label app=web. allow-everything does so for every pod, with or without labels.")
	return nil
}

// pods are the pods of the demo's namespace.
func (d *demo) pods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := d.admin.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the pods: %w", err)
	}
	return list.Items, nil
}

// podsByApp are the pods that carry the label app. Pods that are being deleted are left out.
func (d *demo) podsByApp(ctx context.Context) (map[string][]corev1.Pod, error) {
	pods, err := d.pods(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string][]corev1.Pod{}
	for _, p := range pods {
		if app := p.Labels[appLabel]; app != "" && p.DeletionTimestamp == nil {
			out[app] = append(out[app], p)
		}
	}
	return out, nil
}

// notRunning says which workload has not all of its pods ready.
func (d *demo) notRunning(pods map[string][]corev1.Pod) string {
	var missing []string
	for _, app := range slices.Sorted(maps.Keys(wanted)) {
		ready := 0
		for _, p := range pods[app] {
			if isReadyPod(&p) {
				ready++
			}
		}
		if ready != wanted[app] || ready != len(pods[app]) {
			missing = append(missing, fmt.Sprintf("%s has %d of %d pods ready", app, ready, wanted[app]))
		}
	}
	return strings.Join(missing, ", ")
}

func isReadyPod(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// untouched compares the pods of an app with what they were before anything happened.
func (d *demo) untouched(ctx context.Context, apps ...string) error {
	now, err := d.podsByApp(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, app := range apps {
		was, is := byUID(d.before[app]), byUID(now[app])
		if len(was) == 0 {
			problems = append(problems, fmt.Errorf("%s had no pods", app))
		}
		if !equality.Semantic.DeepEqual(was, is) {
			problems = append(problems, fmt.Errorf("the pods of %s were %+v and are %+v", app, was, is))
		}
	}
	return errors.Join(problems...)
}

// identity is what containing a pod changes.
type identity struct {
	Name                string
	Labels, Annotations map[string]string
	Owners              []metav1.OwnerReference
}

func byUID(pods []corev1.Pod) map[string]identity {
	out := map[string]identity{}
	for _, p := range pods {
		out[string(p.UID)] = identity{Name: p.Name, Labels: p.Labels, Annotations: p.Annotations, Owners: p.OwnerReferences}
	}
	return out
}
