package lifecycle

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/recovery"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("Notifying", func() {
	It("makes an Event, and repeats a message with the same key until it is received", func(ctx SpecContext) {
		var (
			mu     sync.Mutex
			keys   []string
			tokens []string
			last   recovery.Notification
		)
		hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			keys, tokens = append(keys, r.Header.Get("Idempotency-Key")), append(tokens, r.Header.Get("Authorization"))
			if err := json.NewDecoder(r.Body).Decode(&last); err != nil || len(keys) < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		DeferCleanup(hook.Close)
		shop := openShop(ctx, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Notifications.Routes = []v1alpha1.Endpoint{{Name: "oncall", URL: hook.URL, SecretName: "oncall-" + p.Name}}
		})
		token := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: cluster.OperatorNamespace, Name: "oncall-" + shop.Namespace}, Data: map[string][]byte{"token": []byte("s3cret")},
		}
		Expect(shop.Admin.Create(ctx, token)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(shop.Admin.Delete(ctx, token)).To(Succeed()) })
		plan := builder.Plan(shop.Namespace, "tell", builder.Notify("quietly", "it begins", nil), builder.Notify("loudly", "the shop is back", []string{"quietly"}, "oncall"))
		Expect(shop.Admin.Create(ctx, plan)).To(Succeed())
		inc := declare(ctx, shop, "miner", builder.UsePlan("tell"), builder.Targets(builder.Target(v1alpha1.TargetDeployment, "", scenario.Web)))
		await(ctx, shop, "miner", "contained", scenario.Is(v1alpha1.ConditionContained))
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalRecover)).To(Succeed())
		await(ctx, shop, "miner", "refused at first", stepSays("loudly", "it answered with status 503; tried 1 times"))
		recovered := await(ctx, shop, "miner", "recovered", scenario.Is(v1alpha1.ConditionRecovered))
		Expect(recovered.Status.Recovery.Steps[1].Message).To(Equal("route oncall was notified: it answered with status 200"))

		mu.Lock()
		defer mu.Unlock()
		Expect(keys).To(HaveLen(3))
		Expect(keys).To(HaveEach(keys[0]))
		Expect(tokens).To(HaveEach("Bearer s3cret"))
		Expect(last).To(And(HaveField("Schema", recovery.NotificationSchema), HaveField("Message", "the shop is back"), HaveField("Plan", "tell"), HaveField("Step", "loudly")))
		Expect(last.Incident).To(And(HaveField("UID", string(inc.UID)), HaveField("Severity", "High"), HaveField("Contained", "True"), HaveField("Goal", "Recover")))
		var events eventsv1.EventList
		Expect(shop.Admin.List(ctx, &events, client.InNamespace(shop.Namespace))).To(Succeed())
		notes := []string{}
		for _, e := range events.Items {
			if e.Reason == "Notified" && e.Regarding.UID == inc.UID {
				notes = append(notes, e.Note)
			}
		}
		Expect(notes).To(ConsistOf("it begins", "the shop is back"))
	})
})
