package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

const rotatedSecret = "db-credentials"

// ofRotation are the writes by which secrets are looked at and rotated, workloads restarted and people told, and some of those of status in between. Secrets are looked at in every pass.
func ofRotation(w Write) bool {
	looks, follows := strings.HasSuffix(w.Kind, "PartialObjectMetadata"), strings.HasPrefix(w.Kind, "status ")
	return looks && w.Nth <= 5 || follows && w.Nth%8 == 0 || strings.HasSuffix(w.Kind, "Deployment") || strings.HasSuffix(w.Kind, "Event")
}

// hook receives the notifications of all runs, and keeps the keys of each Incident.
var hook = newReceiver()

type receiver struct {
	*httptest.Server

	mu   sync.Mutex
	keys map[string]map[string]bool
}

func newReceiver() *receiver {
	r := &receiver{keys: map[string]map[string]bool{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var n recovery.Notification
		if err := json.NewDecoder(req.Body).Decode(&n); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.keys[n.Incident.UID] == nil {
			r.keys[n.Incident.UID] = map[string]bool{}
		}
		r.keys[n.Incident.UID][req.Header.Get("Idempotency-Key")] = true
	}))
	return r
}

func (r *receiver) keysOf(inc *v1alpha1.Incident) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.keys[string(inc.UID)]))
}

func tellingHook(p *v1alpha1.ContainmentPolicy) {
	p.Spec.Notifications.Routes = []v1alpha1.Endpoint{{Name: "hook", URL: hook.URL}}
}

// rotated rotates a secret that the clean part of the shop uses. There must be one new value, whatever happens, and one message.
func rotated(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	plan := builder.Plan(shop.Namespace, "rotate", builder.Rotate("rotate", rotatedSecret, nil, "password"), builder.Notify("tell", "rotated", []string{"rotate"}, "hook"))
	if err := shop.UseSecret(ctx, rotatedSecret, map[string]string{"password": "stolen"}, scenario.Clean); err != nil {
		return nil, err
	}
	if err := shop.AllowRotation(ctx); err != nil {
		return nil, err
	}
	if err := shop.Admin.Create(ctx, plan); err != nil {
		return nil, err
	}
	values, err := watchValues(ctx, shop)
	if err != nil {
		return nil, err
	}
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)), builder.UsePlan("rotate"))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	end, err := follow(ctx, shop, "miner", []turn{
		{"contained with evidence", scenario.Is(v1alpha1.ConditionReady), func() error { return shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover) }},
		{"recovered", scenario.Is(v1alpha1.ConditionRecovered), func() error { return nil }},
	})
	if err != nil {
		return nil, err
	}
	if n := values(); n != 2 {
		return nil, fmt.Errorf("the secret has had %d values, the stolen one included, not 2", n)
	}
	if keys := hook.keysOf(end); len(keys) != 1 {
		return nil, fmt.Errorf("messages were sent with %d keys: %v", len(keys), keys)
	}
	return end, nil
}

// watchValues counts the values that the secret has had from now on.
func watchValues(ctx context.Context, shop *scenario.Shop) (func() int, error) {
	clients, err := server.Client()
	if err != nil {
		return nil, err
	}
	w, err := clients.CoreV1().Secrets(shop.Namespace).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", rotatedSecret).String()})
	if err != nil {
		return nil, err
	}
	seen, done := map[string]bool{}, make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if s, ok := e.Object.(*corev1.Secret); ok {
				seen[string(s.Data["password"])] = true
			}
		}
	}()
	return func() int {
		w.Stop()
		<-done
		return len(seen)
	}, nil
}
