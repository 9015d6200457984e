package faults

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/scenario"
)

// besides are the writes that the other stories do not have: those about tools, claims, groups and their contents, and the first ones of what is encrypted. Of the status, which they follow, every twentieth.
func besides(w Write) bool {
	switch {
	case inStore(w):
		return strings.HasSuffix(w.Kind, " items") && w.Nth <= 2
	case strings.HasPrefix(w.Kind, "status "):
		return w.Nth%20 == 0
	}
	for _, kind := range []string{"Job", "NetworkPolicy", "PersistentVolumeClaim", "VolumeSnapshot", "Unstructured"} {
		if strings.Contains(w.Kind, kind) {
			return true
		}
	}
	return false
}

// recipient is whom evidence is encrypted to; nobody reads it again.
var recipient = sync.OnceValue(func() string {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return identity.Recipient().String()
})

// everything asks for every kind of evidence that the cluster of the tests can give.
func everything(p *v1alpha1.ContainmentPolicy) {
	removable(p)
	p.Spec.Evidence.Store.EncryptTo = []string{recipient()}
	p.Spec.Evidence.VolumeGroups = v1alpha1.VolumeGroupRequire
	p.Spec.Evidence.Checkpoints.Collect = v1alpha1.Collect
	p.Spec.Evidence.Jobs = []v1alpha1.EvidenceJob{{Name: "memory", Image: builder.GoodImage}}
}

// thorough contains a database of two members, each with a volume, collects all there is of it, closes, and removes the evidence.
func thorough(ctx context.Context, shop *scenario.Shop) (*v1alpha1.Incident, error) {
	if err := growDatabase(ctx, shop); err != nil {
		return nil, err
	}
	inc := builder.Incident(shop.Namespace, "miner", builder.Targets(builder.Target(v1alpha1.TargetStatefulSet, "", scenario.DB)))
	if err := shop.Responder.Create(ctx, inc); err != nil {
		return nil, err
	}
	ending, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- endTools(ending, shop, inc.UID) }()
	out, err := throughRemoval(ctx, shop)
	stop()
	if err = errors.Join(err, <-ended); err != nil {
		return nil, err
	}
	return out, shop.WaitRunning(ctx)
}

// growDatabase gives the database a second member, and lets its containers be checkpointed.
func growDatabase(ctx context.Context, shop *scenario.Shop) error {
	db := &appsv1.StatefulSet{}
	db.Namespace, db.Name = shop.Namespace, scenario.DB
	patch := `{"spec":{"replicas":2,"template":{"metadata":{"annotations":{"sim.cofferdam.dev/checkpoint":"ok"}}}}}`
	if err := shop.Admin.Patch(ctx, db, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, scenario.Patience, true, func(ctx context.Context) (bool, error) {
		err := shop.Admin.Get(ctx, client.ObjectKeyFromObject(db), db)
		st := db.Status
		return err == nil && st.ObservedGeneration == db.Generation && st.ReadyReplicas == 2 && st.UpdatedReplicas == 2 && st.CurrentRevision == st.UpdateRevision, err
	})
}

// endTools lets the tools of an Incident end, which the simulated node has to be told, until the context ends.
func endTools(ctx context.Context, shop *scenario.Shop, uid types.UID) error {
	for ctx.Err() == nil {
		var pods corev1.PodList
		err := shop.Admin.List(ctx, &pods, client.InNamespace(evidence.JobNamespace), client.MatchingLabels{v1alpha1.IncidentUIDLabel: string(uid)})
		for i := 0; err == nil && i < len(pods.Items); i++ {
			patch := `{"metadata":{"annotations":{"sim.cofferdam.dev/complete-after":"10ms"}}}`
			err = client.IgnoreNotFound(shop.Admin.Patch(ctx, &pods.Items[i], client.RawPatch(types.MergePatchType, []byte(patch))))
		}
		if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			return fmt.Errorf("ending the tools: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	return nil
}

// kubeletCAs are the certificates that vouch for the simulated kubelets: the cluster's own.
func kubeletCAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(server.RESTConfig.CAData)
	return pool
}
