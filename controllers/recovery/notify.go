package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/measure"
	"cofferdam.dev/cofferdam/controllers/outbound"
)

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// NotificationSchema names what a notification looks like. What is added later does not change the name; what is changed or removed does.
const NotificationSchema = "containment.cofferdam.dev/notification/v1"

// Notification is the body of a notification. README.md describes it.
type Notification struct {
	Schema   string               `json:"schema"`
	Incident NotificationIncident `json:"incident"`
	Plan     string               `json:"plan"`
	Step     string               `json:"step"`
	Message  string               `json:"message"`
	// Time is when the step began to notify. A repeat has the same.
	Time string `json:"time"`
}

// NotificationIncident is the Incident that a notification is about, as it was when the step began to notify.
type NotificationIncident struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Title     string `json:"title"`
	Severity  string `json:"severity"`
	Goal      string `json:"goal"`
	// Contained and Recovered are True, False or Unknown, as the conditions of these names.
	Contained string `json:"contained"`
	Recovered string `json:"recovered"`
}

// What a failed delivery waits for until the next one: at first, and at most.
const (
	firstPause = 2 * time.Second
	lastPause  = 5 * time.Minute
)

// notify tells others how far the recovery has come.
type notify struct{}

func (notify) Run(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) (Outcome, error) {
	if err := announce(ctx, x, step); err != nil {
		return Outcome{}, err
	}
	if len(step.Notify.Routes) == 0 {
		return done("told as an Event on the Incident"), nil
	}
	body, err := notification(x, step)
	if err != nil {
		return Outcome{}, err
	}
	return each(step.Notify.Routes, func(route string) (Outcome, error) { return deliver(ctx, x, step.Name, route, body) })
}

// messageKey tells one message from another: the same step of the same Incident says the same until it is retried.
func messageKey(x *Execution, step, to string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%s", x.Incident.UID, step, x.tries(step), to))
	return hex.EncodeToString(sum[:16])
}

// announce makes the Event. Its name follows from the step and its try, so that there is one whatever happens.
func announce(ctx context.Context, x *Execution, step v1alpha1.RecoveryStep) error {
	event := eventOf(x, step)
	ref := v1alpha1.ObjectRef{Kind: "Event", Namespace: event.Namespace, Name: event.Name}
	if x.Recorded(step.Name, ref) != nil {
		return nil
	}
	op := v1alpha1.PlannedAction{Verb: "create", Object: ref, Detail: step.Notify.Message}
	err := x.Writer.Write(ctx, op, func(ctx context.Context, c client.Client) error {
		return client.IgnoreAlreadyExists(c.Create(ctx, event))
	})
	if err == nil {
		x.Record(step.Name, v1alpha1.StepRecord{Object: ref})
	}
	return err
}

func eventOf(x *Execution, step v1alpha1.RecoveryStep) *eventsv1.Event {
	inc := x.Incident
	return &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: inc.Namespace, Name: "cofferdam-" + messageKey(x, step.Name, "event"), Labels: measure.OwnedLabels(inc), Annotations: measure.OwnedAnnotations(inc)},
		EventTime:  metav1.NewMicroTime(x.Now.Time), ReportingController: "cofferdam", ReportingInstance: "cofferdam", Type: corev1.EventTypeNormal,
		Reason: "Notified", Action: "Notify", Note: step.Notify.Message,
		Regarding: corev1.ObjectReference{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "Incident", Namespace: inc.Namespace, Name: inc.Name, UID: inc.UID},
	}
}

// notification is the body: the one that was recorded when the step began to notify, because a repeat that differs is no repeat.
func notification(x *Execution, step v1alpha1.RecoveryStep) ([]byte, error) {
	ref := v1alpha1.ObjectRef{Kind: "Notification", Name: step.Name, UID: messageKey(x, step.Name, "")}
	if record := x.Recorded(step.Name, ref); record != nil {
		return []byte(record.Data), nil
	}
	inc := x.Incident
	n := Notification{
		Schema: NotificationSchema, Step: step.Name, Message: step.Notify.Message, Time: x.Now.UTC().Format(time.RFC3339),
		Incident: NotificationIncident{
			Namespace: inc.Namespace, Name: inc.Name, UID: string(inc.UID), Title: inc.Spec.Title, Severity: string(inc.Spec.Severity), Goal: string(inc.Spec.Goal),
			Contained: conditionOf(inc, v1alpha1.ConditionContained), Recovered: conditionOf(inc, v1alpha1.ConditionRecovered),
		},
	}
	if inc.Status.Recovery != nil {
		n.Plan = inc.Status.Recovery.PlanName
	}
	body, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("writing the notification: %w", err)
	}
	x.Record(step.Name, v1alpha1.StepRecord{Object: ref, Data: string(body)})
	return body, nil
}

func conditionOf(inc *v1alpha1.Incident, kind string) string {
	if c := apimeta.FindStatusCondition(inc.Status.Conditions, kind); c != nil {
		return string(c.Status)
	}
	return string(metav1.ConditionUnknown)
}

// delivery is how far a route has been notified.
type delivery struct {
	Tried int         `json:"tried,omitempty"`
	Last  string      `json:"last,omitempty"`
	After metav1.Time `json:"after,omitzero"`
	Sent  bool        `json:"sent,omitempty"`
}

// deliver notifies one route. That it is about to be is durable before it is: should the operator die in between, the next one repeats the message with the same key.
func deliver(ctx context.Context, x *Execution, step, route string, body []byte) (Outcome, error) {
	endpoint := outbound.Find(x.Policy.Notifications.Routes, route)
	if endpoint == nil {
		return failed("%s", lackingRoute(route)), nil
	}
	ref := v1alpha1.ObjectRef{Kind: "Route", Name: route, UID: messageKey(x, step, route)}
	x.Record(step, v1alpha1.StepRecord{Object: ref, Data: "{}"})
	record := x.Recorded(step, ref)
	state, err := deliveryOf(record)
	if err != nil {
		return Outcome{}, err
	}
	detail := "notify as step " + step + " says"
	switch {
	case state.Sent:
		x.Journal.Done(v1alpha1.ActionNotify, ref)
		return done("route %s was notified: %s", route, state.Last), nil
	case !x.Journal.Intend(v1alpha1.ActionNotify, ref, detail):
		return waiting("route %s is about to be notified", route).after(time.Second), nil
	case x.Now.Before(&state.After):
		return state.later(x, route), nil
	}
	called := false
	err = x.Writer.Write(ctx, v1alpha1.PlannedAction{Verb: "notify", Object: ref, Detail: detail}, func(ctx context.Context, _ client.Client) error {
		called = true
		ctx, cancel := x.called(ctx)
		defer cancel()
		status, err := x.Outbound.Post(ctx, endpoint, ref.UID, body)
		state = after(state, status, err, x.Now)
		return err
	})
	if !called || record == nil {
		return waiting("route %s is about to be notified", route), err
	}
	// What the receiver says is no failure of the pass: it is told, and tried again.
	return remember(record, state, x, ref)
}

func remember(record *v1alpha1.StepRecord, state delivery, x *Execution, ref v1alpha1.ObjectRef) (Outcome, error) {
	data, err := json.Marshal(state)
	if err != nil {
		return Outcome{}, fmt.Errorf("recording the delivery to route %s: %w", ref.Name, err)
	}
	record.Data = string(data)
	if state.Sent {
		x.Journal.Done(v1alpha1.ActionNotify, ref)
		return done("route %s was notified: %s", ref.Name, state.Last), nil
	}
	return state.later(x, ref.Name), nil
}

// later is the outcome of a delivery that is tried again.
func (d delivery) later(x *Execution, route string) Outcome {
	out := waiting("route %s: %s; tried %d times, and again at %s", route, d.Last, d.Tried, d.After.UTC().Format(time.RFC3339))
	return out.after(d.After.Sub(x.Now.Time))
}

func deliveryOf(record *v1alpha1.StepRecord) (delivery, error) {
	var d delivery
	if record == nil {
		return d, nil
	}
	if err := json.Unmarshal([]byte(record.Data), &d); err != nil {
		return d, fmt.Errorf("reading how far route %s was notified: %w", record.Object.Name, err)
	}
	return d, nil
}

// after is the state after one more try.
func after(d delivery, status int, err error, now metav1.Time) delivery {
	d.Tried++
	if err == nil {
		d.Sent, d.Last, d.After = true, fmt.Sprintf("it answered with status %d", status), metav1.Time{}
		return d
	}
	pause := min(firstPause<<min(d.Tried-1, 10), lastPause)
	d.Last, d.After = brief(err.Error()), metav1.NewTime(now.Add(pause))
	return d
}

// brief keeps what is recorded of an error short.
func brief(text string) string {
	const most = 256
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

func lackingRoute(name string) string {
	return fmt.Sprintf("the ContainmentPolicy names no route %q in spec.notifications.routes: have it added before the Incident is declared, or correct the plan", name)
}
