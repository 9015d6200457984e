package evidence

import (
	"context"
	"fmt"
	"maps"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
)

const (
	// JobNamespace is where the tools of the standing orders run.
	JobNamespace = "cofferdam-evidence"
	// JobLabel is on the Job of an item, its pod and its NetworkPolicy. Its value is that of the item, of which the name is made.
	JobLabel = "containment.cofferdam.dev/evidence-job"

	// toolLabel is on the Job of an item, and says which job of the standing orders it is.
	toolLabel = "containment.cofferdam.dev/evidence-tool"

	// jobContainer is the only container of a job's pod.
	jobContainer = "tool"
	// jobMargin is what an item takes besides the tool itself: to start it and to read what it printed.
	jobMargin = time.Minute
	// jobGrace is by how much the Job's deadline is behind its pod's. A pod that ends at its own deadline stays, with its log; one that the Job ends is deleted with it. The Job's is for pods that never start.
	jobGrace = 30
	// jobUser is whom a tool runs as that needs no access to the node; the number means nothing.
	jobUser = 65532
)

// JobName is the name of the Job and of the NetworkPolicy of an item.
func JobName(incidentUID types.UID, itemID string) string {
	return "cofferdam-" + jobValue(incidentUID, itemID)
}

func jobValue(incidentUID types.UID, itemID string) string {
	return shortHash(string(incidentUID) + "/" + itemID)
}

// JobObjects lists the Jobs and NetworkPolicies that were created for the evidence jobs of an Incident, and are still there. Deleting a Job in the background deletes its pod.
func JobObjects(ctx context.Context, r client.Reader, incidentUID types.UID) ([]client.Object, error) {
	var out []client.Object
	mine := []client.ListOption{client.InNamespace(JobNamespace), client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(incidentUID)}, client.HasLabels{JobLabel}}
	var jobs batchv1.JobList
	if err := r.List(ctx, &jobs, mine...); err != nil {
		return nil, fmt.Errorf("listing evidence jobs: %w", err)
	}
	for i := range jobs.Items {
		out = append(out, &jobs.Items[i])
	}
	var policies networkingv1.NetworkPolicyList
	if err := r.List(ctx, &policies, mine...); err != nil {
		return nil, fmt.Errorf("listing the policies of evidence jobs: %w", err)
	}
	for i := range policies.Items {
		out = append(out, &policies.Items[i])
	}
	return out, nil
}

func jobMeta(inc *v1alpha1.Incident, itemID string) metav1.ObjectMeta {
	labels := measure.OwnedLabels(inc)
	labels[JobLabel] = jobValue(inc.UID, itemID)
	return metav1.ObjectMeta{Namespace: JobNamespace, Name: JobName(inc.UID, itemID), Labels: labels, Annotations: measure.OwnedAnnotations(inc)}
}

// jobPolicy lets the job's pod have the flows that are declared, and no other in any direction.
func jobPolicy(inc *v1alpha1.Incident, itemID string, order v1alpha1.EvidenceJob) *networkingv1.NetworkPolicy {
	policy := &networkingv1.NetworkPolicy{ObjectMeta: jobMeta(inc, itemID), Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{JobLabel: jobValue(inc.UID, itemID)}},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
	}}
	for _, e := range order.Egress {
		rule := networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: e.CIDR}}}}
		for _, p := range e.Ports {
			protocol, port := corev1.Protocol(p.Protocol), intstr.FromInt32(p.Port)
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port})
		}
		if len(rule.Ports) > 0 { // no ports would mean every port
			policy.Spec.Egress = append(policy.Spec.Egress, rule)
		}
	}
	return policy
}

// jobFor is the Job that runs the tool once, on the pod's node whatever that node is tainted with: it may be cordoned because of the incident.
func jobFor(inc *v1alpha1.Incident, itemID string, order v1alpha1.EvidenceJob, pod *corev1.Pod) *batchv1.Job {
	limit := int64(order.DeadlineSeconds)
	meta := jobMeta(inc, itemID)
	job := &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{
		Parallelism: new(int32(1)), Completions: new(int32(1)), BackoffLimit: new(int32(0)), ActiveDeadlineSeconds: new(limit + jobGrace),
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: maps.Clone(meta.Labels), Annotations: maps.Clone(meta.Annotations)},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: new(limit), NodeName: pod.Spec.NodeName,
				Tolerations:                  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
				AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false),
				Containers: []corev1.Container{{
					Name: jobContainer, Image: order.Image, Command: order.Command, Args: order.Args,
					Env: []corev1.EnvVar{
						{Name: "COFFERDAM_NAMESPACE", Value: pod.Namespace}, {Name: "COFFERDAM_POD", Value: pod.Name},
						{Name: "COFFERDAM_POD_UID", Value: string(pod.UID)}, {Name: "COFFERDAM_NODE", Value: pod.Spec.NodeName},
					},
					Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi"),
					}},
				}},
			},
		},
	}}
	job.Labels[toolLabel] = order.Name // not on the pod, whose labels are a copy
	secure(&job.Spec.Template.Spec, order.Access)
	return job
}

// accessNode is the access of a tool that has to see the node.
const accessNode = "Node"

// secure gives the pod the access that is declared, and nothing beyond.
func secure(spec *corev1.PodSpec, access string) {
	container := &spec.Containers[0]
	if access == accessNode {
		spec.HostPID = true
		container.SecurityContext = &corev1.SecurityContext{Privileged: new(true), RunAsUser: new(int64(0))}
		return
	}
	spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(jobUser)), RunAsGroup: new(int64(jobUser)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	container.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	spec.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	container.VolumeMounts = []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}}
}
