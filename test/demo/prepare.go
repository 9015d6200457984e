package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/test/cluster"
)

// prepare starts a control plane, or reaches an existing cluster and asks whether it may be used.
func (d *demo) prepare(ctx context.Context, kubeconfig string, yes bool) error {
	fmt.Println("Cofferdam: one incident, from declaration to close")
	blank()
	var err error
	if d.dir, err = os.MkdirTemp("", "cofferdam-demo-"); err != nil {
		return fmt.Errorf("create a folder: %w", err)
	}
	if !d.existing {
		d.snapshots = true
		err := busy("Starting a control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler", func() error {
			d.server, err = cluster.Start(ctx)
			return err
		})
		return orCause(ctx, err)
	}
	if d.server, err = cluster.Existing(kubeconfig); err != nil {
		return err
	}
	if err := d.examine(ctx); err != nil {
		return fmt.Errorf("this cluster cannot be used: %w", err)
	}
	if err := d.announce(); err != nil || yes {
		return err
	}
	return d.ask(ctx)
}

// examine finds out, without writing anything, whether the demo can run on an existing cluster.
func (d *demo) examine(ctx context.Context) error {
	disco, err := discovery.NewDiscoveryClientForConfig(d.server.RESTConfig)
	if err != nil {
		return err
	}
	version, err := disco.ServerVersion()
	if err != nil {
		return fmt.Errorf("it does not answer: %w", err)
	}
	admission, err := disco.ServerResourcesForGroupVersion("admissionregistration.k8s.io/v1")
	if err != nil {
		return fmt.Errorf("ask for its admission API: %w", err)
	}
	stamps := false
	for _, r := range admission.APIResources {
		stamps = stamps || r.Name == "mutatingadmissionpolicies"
	}
	if !stamps {
		return fmt.Errorf("it runs Kubernetes %s, and the demo needs MutatingAdmissionPolicy v1, which 1.36 serves", version.GitVersion)
	}
	if _, err := disco.ServerResourcesForGroupVersion("containment.cofferdam.dev/v1alpha1"); !apierrors.IsNotFound(err) {
		return errors.New("it has Cofferdam installed already; the demo brings a copy of its own and removes it at the end")
	}
	reader, err := client.New(d.server.RESTConfig, client.Options{Scheme: newScheme()})
	if err != nil {
		return fmt.Errorf("prepare a client: %w", err)
	}
	for _, ns := range []string{namespace, cluster.OperatorNamespace} {
		if err := reader.Get(ctx, client.ObjectKey{Name: ns}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			return errors.Join(fmt.Errorf("namespace %s is there already", ns), err)
		}
	}
	return d.examineStorage(ctx, reader)
}

// examineStorage finds out whether the volume of db can be had, and whether it can be snapshotted.
func (d *demo) examineStorage(ctx context.Context, reader client.Client) error {
	var classes storagev1.StorageClassList
	if err := reader.List(ctx, &classes); err != nil {
		return fmt.Errorf("list its StorageClasses: %w", err)
	}
	i := slices.IndexFunc(classes.Items, func(c storagev1.StorageClass) bool {
		return c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true"
	})
	if i < 0 {
		return errors.New("it has no default StorageClass, and the demo's database has a volume")
	}
	var snapshots snapshotv1.VolumeSnapshotClassList
	if err := reader.List(ctx, &snapshots); err != nil && !apimeta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("list its VolumeSnapshotClasses: %w", err)
	}
	d.snapshots = slices.ContainsFunc(snapshots.Items, func(c snapshotv1.VolumeSnapshotClass) bool {
		return c.Driver == classes.Items[i].Provisioner
	})
	return nil
}

// announce says what will be done to the existing cluster.
func (d *demo) announce() error {
	config, err := clientcmd.LoadFromFile(d.server.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	say("This will create namespaces %s and %s, and for the whole cluster: three CustomResourceDefinitions, the ClusterRoles and admission "+
		"policies of config/external, one ContainmentPolicy and one ClusterRoleBinding, on cluster %s (context %s). "+
		"All of it is removed at the end.", namespace, cluster.OperatorNamespace, d.server.RESTConfig.Host, config.CurrentContext)
	if !d.snapshots {
		say("Volumes cannot be snapshotted there; the demo shows how such a gap is declared.")
	}
	return nil
}

// ask asks whether the existing cluster may be used. Anything but a yes is a no.
func (d *demo) ask(ctx context.Context) error {
	fmt.Print("  Continue? [y/N] ")
	answers := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(os.Stdin).ReadString('\n') // the end of input is a no
		answers <- answer
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case answer := <-answers:
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			_ = os.RemoveAll(d.dir) // a folder in the system's own temporary folder
			return errors.Join(errDeclined, d.server.Stop())
		}
		d.started = time.Now() // thinking takes its time
	}
	return nil
}

func (d *demo) kubeconfigOfManager() string { return filepath.Join(d.dir, "manager.kubeconfig") }
