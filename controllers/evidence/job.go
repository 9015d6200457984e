package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/explain"
)

// The rights on Jobs are in config/evidence-namespace, not in a marker: a Role that is generated here would make every installation have that namespace.

// Jobs runs the tools of the standing orders, once for each of them and each pod, and keeps what they print. Their names are made of what they are for, so that a repeat finds its own.
type Jobs struct {
	// Source reads what a tool has printed.
	Source LogSource
	// AtOnce is how many tools run at the same time for all Incidents together; 0 for any number. Passes that look at the same moment may each start one more.
	AtOnce int
}

// JobID is the ID of the item of a job and a pod.
func JobID(job string, podUID types.UID) string { return "job-" + job + "-" + string(podUID) }

// About says what the collector is. The deadline is that of the job that may take longest.
func (j *Jobs) About() About {
	return About{
		Type: v1alpha1.EvidenceJobOutput, Needs: "the namespace " + JobNamespace + ", and images that its nodes can pull",
		Alters: "runs a pod on the node of each pod; with access Node, whatever the tool does there",
		Deadline: func(o v1alpha1.EvidenceOrders) time.Duration {
			longest := time.Duration(0)
			for _, job := range o.Jobs {
				longest = max(longest, jobDeadline(job))
			}
			return longest
		},
	}
}

func jobDeadline(job v1alpha1.EvidenceJob) time.Duration {
	return seconds(job.DeadlineSeconds) + jobMargin
}

// Begin returns one item for each job of the orders and each pod.
func (j *Jobs) Begin(x *Execution, pods []*corev1.Pod) []v1alpha1.EvidenceItem {
	out := make([]v1alpha1.EvidenceItem, 0, len(pods)*len(x.Orders.Jobs))
	for _, job := range x.Orders.Jobs {
		for _, p := range pods {
			item := podItem(x, JobID(job.Name, p.UID), v1alpha1.EvidenceJobOutput, p, jobDeadline(job))
			item.Job = job.Name
			out = append(out, item)
		}
	}
	return out
}

// Collect starts the job of an item, or looks how far it has come.
func (j *Jobs) Collect(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem) (v1alpha1.EvidenceItem, error) {
	if item.State != v1alpha1.EvidencePending {
		return item, nil
	}
	order, found := orderOf(x.Orders, item.Job)
	if !found {
		return gap(item, "the ContainmentPolicy has no such job any more"), nil
	}
	if x.DryRun {
		return item, j.rehearse(ctx, x, item, order)
	}
	var job batchv1.Job
	err := x.Reader.Get(ctx, client.ObjectKey{Namespace: JobNamespace, Name: JobName(x.Incident.UID, item.ID)}, &job)
	switch {
	case apierrors.IsNotFound(err):
		return j.start(ctx, x, item, order)
	case err != nil:
		return unknown(x, item, fmt.Errorf("reading the job of %s: %w", item.ID, err))
	case !sameLabels(&job, jobMeta(x.Incident, item.ID)):
		return gap(item, fmt.Sprintf("Job %s/%s is not ours", job.Namespace, job.Name)), nil
	}
	// Its time began when it was started, even if the pass that started it came to nothing.
	if until := job.CreationTimestamp.Add(jobDeadline(order)); until.After(item.Deadline.Time) {
		item.Deadline = metav1.NewTime(until)
	}
	return j.follow(ctx, x, item, &job)
}

func orderOf(orders v1alpha1.EvidenceOrders, name string) (v1alpha1.EvidenceJob, bool) {
	for _, job := range orders.Jobs {
		if job.Name == name {
			return job, true
		}
	}
	return v1alpha1.EvidenceJob{}, false
}

// sameLabels reports whether the object has the labels by which ours are known.
func sameLabels(obj metav1.Object, want metav1.ObjectMeta) bool {
	got := obj.GetLabels()
	return got[JobLabel] == want.Labels[JobLabel] && got[v1alpha1.IncidentUIDLabel] == want.Labels[v1alpha1.IncidentUIDLabel]
}

// unknown leaves an item pending that could not be looked at, until its deadline.
func unknown(x *Execution, item v1alpha1.EvidenceItem, err error) (v1alpha1.EvidenceItem, error) {
	if x.Late(item) {
		return jobGap(item, "not done before the deadline: "+explain.Clean(err.Error())), nil
	}
	item.Message = shorten(explain.Clean(err.Error()), maxMessage)
	return item, err
}

// waits leaves an item pending that waits for something, until its deadline.
func waits(x *Execution, item v1alpha1.EvidenceItem, what string) v1alpha1.EvidenceItem {
	if x.Late(item) {
		return jobGap(item, "not done before the deadline: "+what)
	}
	item.Message = shorten(what, maxMessage)
	return item
}

// jobGap is a gap of which nothing is kept.
func jobGap(item v1alpha1.EvidenceItem, why string) v1alpha1.EvidenceItem {
	item.Location = ""
	return gap(item, shorten(why, maxMessage))
}

// rehearse says what would be created.
func (j *Jobs) rehearse(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem, order v1alpha1.EvidenceJob) error {
	pod := x.Pod(item.Subject.UID)
	if pod == nil {
		return nil
	}
	return errors.Join(createFor(ctx, x, "NetworkPolicy", jobPolicy(x.Incident, item.ID, order), detailOf(order)), createFor(ctx, x, "Job", jobFor(x.Incident, item.ID, order, pod), detailOf(order)))
}

func detailOf(order v1alpha1.EvidenceJob) string {
	return fmt.Sprintf("evidence job %s, access %s", order.Name, order.Access)
}

// createFor creates an object whose name is made of what it is for: that it is there already is a repeat.
func createFor(ctx context.Context, x *Execution, kind string, obj client.Object, detail string) error {
	op := v1alpha1.PlannedAction{Verb: "create", Object: v1alpha1.ObjectRef{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}, Detail: detail}
	err := x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, obj))
	})
	if err != nil {
		return fmt.Errorf("creating %s %s/%s: %w", kind, obj.GetNamespace(), obj.GetName(), err)
	}
	return nil
}

// start creates the policy, and when that was seen to be there, the Job: its pod has no other flows than those declared from its first packet.
func (j *Jobs) start(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem, order v1alpha1.EvidenceJob) (v1alpha1.EvidenceItem, error) {
	if item.Location != "" {
		return jobGap(item, item.Location+" was removed by somebody before its output was read; it is not run again"), nil
	}
	if x.Late(item) {
		return jobGap(item, "not done before the deadline: "+cmp.Or(item.Message, "the job was not started")), nil
	}
	if item.Deadline.IsZero() { // it has waited for its turn, and only that is no fault of anything
		item.Deadline = metav1.NewTime(x.Now.Add(jobDeadline(order)))
	}
	pod := x.Pod(item.Subject.UID)
	switch {
	case pod == nil:
		return jobGap(item, "the pod was gone before the job was started"), nil
	case pod.Spec.NodeName == "":
		return waits(x, item, "waits for the pod to be on a node"), nil
	}
	want := jobPolicy(x.Incident, item.ID, order)
	var policy networkingv1.NetworkPolicy
	err := x.Reader.Get(ctx, client.ObjectKeyFromObject(want), &policy)
	switch {
	case apierrors.IsNotFound(err):
		if err := createFor(ctx, x, "NetworkPolicy", want, detailOf(order)); err != nil {
			return unknown(x, item, err)
		}
		return waits(x, item, "waits for the NetworkPolicy of the job"), nil
	case err != nil:
		return unknown(x, item, fmt.Errorf("reading the policy of %s: %w", item.ID, err))
	case !sameLabels(&policy, want.ObjectMeta) || !equality.Semantic.DeepEqual(policy.Spec, want.Spec):
		return jobGap(item, fmt.Sprintf("NetworkPolicy %s/%s is not what it has to be: the job was not started", want.Namespace, want.Name)), nil
	}
	full, err := j.full(ctx, x, order)
	switch {
	case err != nil:
		return unknown(x, item, err)
	case full != "":
		item.Deadline, item.Message = metav1.Time{}, full
		return item, nil
	}
	if err := createFor(ctx, x, "Job", jobFor(x.Incident, item.ID, order, pod), detailOf(order)); err != nil {
		return unknown(x, item, err)
	}
	return waits(x, item, "waits for the job's pod"), nil
}

// full says why an item has to wait for its turn; empty when its job may be started. What runs is read from the API server: status does not tell yet what this pass has started, nor what one has that died.
func (j *Jobs) full(ctx context.Context, x *Execution, order v1alpha1.EvidenceJob) (string, error) {
	if why, known := x.full[order.Name]; known {
		return why, nil
	}
	var jobs batchv1.JobList
	if err := x.Reader.List(ctx, &jobs, client.InNamespace(JobNamespace), client.HasLabels{JobLabel}); err != nil {
		return "", fmt.Errorf("listing evidence jobs: %w", err)
	}
	all, same := 0, 0
	for i := range jobs.Items {
		job := &jobs.Items[i]
		if !underWay(job, x.Now) {
			continue
		}
		all++
		if job.Labels[v1alpha1.IncidentUIDLabel] == string(x.Incident.UID) && job.Labels[toolLabel] == order.Name {
			same++
		}
	}
	var why string
	switch {
	case same >= int(order.MaxParallel):
		why = fmt.Sprintf("waits for its turn: the ContainmentPolicy lets this job run for %d pods at a time", order.MaxParallel)
	case j.AtOnce > 0 && all >= j.AtOnce:
		why = fmt.Sprintf("waits for its turn: the operator runs %d evidence jobs at a time for all Incidents together", j.AtOnce)
	default:
		return "", nil
	}
	if x.full == nil {
		x.full = map[string]string{}
	}
	x.full[order.Name] = why
	return why, nil
}

// underWay reports whether a job takes up room. One that should have been ended long ago does not, or nothing would run any more while nobody ends jobs.
func underWay(job *batchv1.Job, now time.Time) bool {
	limit := job.Spec.ActiveDeadlineSeconds
	ended := conditionOf(job, batchv1.JobComplete) != nil || conditionOf(job, batchv1.JobFailed) != nil
	return !ended && limit != nil && now.Before(job.CreationTimestamp.Add(time.Duration(*limit)*time.Second+jobMargin))
}

// follow waits for the tool to end, and has its output read.
func (j *Jobs) follow(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem, job *batchv1.Job) (v1alpha1.EvidenceItem, error) {
	item.Location = fmt.Sprintf("Job %s/%s", job.Namespace, job.Name)
	pod, err := podOf(ctx, x.Reader, job)
	if err != nil {
		return unknown(x, item, err)
	}
	failure := conditionOf(job, batchv1.JobFailed)
	if pod == nil {
		return j.withoutPod(ctx, x, item, job, failure)
	}
	ended := statusOf(jobContainer, pod.Status.ContainerStatuses).State.Terminated
	switch {
	case ended != nil:
		return j.output(x, item, pod, ended, failure)
	case pod.Status.Phase == corev1.PodFailed:
		return jobGap(item, "the job's pod failed before the tool ran: "+quote(pod.Status.Reason+": "+pod.Status.Message)), nil
	}
	return waits(x, item, "waits for the tool to end"+stateOf(pod)), nil
}

// withoutPod says why a job has no pod: the Job controller could not create it, or it is gone.
func (j *Jobs) withoutPod(ctx context.Context, x *Execution, item v1alpha1.EvidenceItem, job *batchv1.Job, failure *batchv1.JobCondition) (v1alpha1.EvidenceItem, error) {
	why, err := refusals(ctx, x.Reader, job)
	switch {
	case err != nil:
		return unknown(x, item, err)
	case failure != nil && why != "":
		return jobGap(item, "the job's pod could not be created"+why), nil
	case failure != nil:
		return jobGap(item, "the job failed and its pod is gone: "+quote(failure.Reason+": "+failure.Message)), nil
	case conditionOf(job, batchv1.JobComplete) != nil:
		return jobGap(item, "the job has ended, but its pod is gone, and its output with it"), nil
	}
	return waits(x, item, "waits for the job's pod"+why), nil
}

// podOf returns the pod of the job; with a backoff limit of 0 there is one.
func podOf(ctx context.Context, r client.Reader, job *batchv1.Job) (*corev1.Pod, error) {
	var pods corev1.PodList
	if err := r.List(ctx, &pods, client.InNamespace(job.Namespace), client.MatchingLabels{JobLabel: job.Labels[JobLabel]}); err != nil {
		return nil, fmt.Errorf("listing the pods of Job %s/%s: %w", job.Namespace, job.Name, err)
	}
	for i := range pods.Items {
		if metav1.IsControlledBy(&pods.Items[i], job) {
			return &pods.Items[i], nil
		}
	}
	return nil, nil // that there is none yet is no error
}

func conditionOf(job *batchv1.Job, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// refusals says why the Job controller could not create the pod. It tells that in Events and nowhere else.
func refusals(ctx context.Context, r client.Reader, job *batchv1.Job) (string, error) {
	var events corev1.EventList
	byUID := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("involvedObject.uid", string(job.UID))}
	if err := r.List(ctx, &events, client.InNamespace(job.Namespace), byUID); err != nil {
		return "", fmt.Errorf("listing the events of Job %s/%s: %w", job.Namespace, job.Name, err)
	}
	why := ""
	for _, e := range events.Items {
		if e.Type == corev1.EventTypeWarning && e.InvolvedObject.UID == job.UID {
			why = ": " + quote(e.Reason+": "+e.Message)
		}
	}
	return why, nil
}

// stateOf says why a pod is not further.
func stateOf(pod *corev1.Pod) string {
	if waiting := statusOf(jobContainer, pod.Status.ContainerStatuses).State.Waiting; waiting != nil && waiting.Reason != "" {
		return ": " + quote(waiting.Reason+": "+waiting.Message)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return ": " + quote(c.Reason+": "+c.Message)
		}
	}
	return ""
}

// deadlineExceeded is the reason that the kubelet and the Job controller give for what they end at its deadline.
const deadlineExceeded = "DeadlineExceeded"

// output keeps what the tool has printed, however it ended.
func (j *Jobs) output(x *Execution, item v1alpha1.EvidenceItem, pod *corev1.Pod, ended *corev1.ContainerStateTerminated, failure *batchv1.JobCondition) (v1alpha1.EvidenceItem, error) {
	if x.Sink == nil {
		return noStore(x, item), nil
	}
	how := ""
	timeout := pod.Status.Reason == deadlineExceeded || failure != nil && failure.Reason == deadlineExceeded
	switch {
	case timeout:
		how = "the tool was ended at its deadline"
	case ended.ExitCode != 0:
		how = fmt.Sprintf("the tool failed with exit code %d (%s)", ended.ExitCode, quote(ended.Reason))
	}
	subject := v1alpha1.ObjectRef{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
	c := capture{
		source: j.Source, sink: x.Sink, incidentUID: string(x.Incident.UID), namespace: pod.Namespace, pod: pod.Name,
		opts: corev1.PodLogOptions{Container: jobContainer}, maxBytes: x.Orders.Logs.MaxBytes,
		confirm: func(ctx context.Context) error { _, err := samePod(ctx, j.Source, subject); return err },
	}
	finished := ended.FinishedAt
	if finished.IsZero() {
		finished = metav1.NewTime(x.Now)
	}
	return inTheBackground(x, item, func(ctx context.Context, a attempt) Result {
		c := c
		c.until = a.until()
		got, err := c.read(ctx)
		if err != nil {
			return unread(item, how, err, a.over())
		}
		return Result{Item: printed(item, how, timeout, got, finished)}
	})
}

// unread says what it means that the output could not be had.
func unread(item v1alpha1.EvidenceItem, how string, err error, over bool) Result {
	var unstored *storeError
	switch {
	case errors.As(err, &unstored), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Result{Err: err}
	case errors.Is(err, errGone), errors.Is(err, errReplaced):
		return Result{Item: jobGap(item, joined("the job's pod was gone before its output was read", how))}
	case apierrors.IsNotFound(err), apierrors.IsBadRequest(err), over:
		return Result{Item: jobGap(item, joined("its output could not be read: "+quote(err.Error()), how))}
	}
	return Result{Err: fmt.Errorf("reading the output: %w", err)}
}

// printed is the item with what the tool has printed. What was ended at its deadline is a gap all the same: nobody knows what it would have printed; what it did print is kept.
func printed(item v1alpha1.EvidenceItem, how string, timeout bool, got captured, finished metav1.Time) v1alpha1.EvidenceItem {
	if got.Object.Key == "" {
		return jobGap(item, joined(cmp.Or(got.Answer, "it printed nothing"), how))
	}
	item = Stored(item, got.Object)
	item.State, item.TakenAt, item.Message = v1alpha1.EvidenceCollected, finished, how
	if got.Truncated {
		item.Message = joined(item.Message, "the output is cut at the length that the ContainmentPolicy sets")
	}
	if got.Incomplete {
		item.Message = joined(item.Message, "the output is incomplete: "+got.Problem)
	}
	if timeout {
		return gap(item, shorten(joined(item.Message, "what it had printed is kept"), maxMessage))
	}
	item.Message = shorten(item.Message, maxMessage)
	return item
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
