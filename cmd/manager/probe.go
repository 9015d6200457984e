package main

import (
	"context"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/controllers/probe"
)

// probeCommand makes the program a probe instead of an operator: probe pods run the operator's own image, so that no other has to be trusted or fetched.
const probeCommand = "probe"

// runProbe makes the checks that its argument describes, and returns the exit code. What is wrong goes to the log, whose end the kubelet makes the termination message.
func runProbe(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: manager probe CHECKS")
		return 2
	}
	checks, err := probe.Decode(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := probe.Run(ctrl.SetupSignalHandler(), checks); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ownImage is the image of this very pod, or "" where that cannot be known, as outside a cluster.
func ownImage(ctx context.Context, r client.Reader, namespace string) string {
	name := os.Getenv("POD_NAME")
	if name == "" {
		return ""
	}
	var pod corev1.Pod
	if err := r.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &pod); err != nil {
		ctrl.Log.Error(err, "The operator's own Pod could not be read: checks by probe pods are not possible", "pod", name)
		return ""
	}
	for _, c := range pod.Spec.Containers {
		if c.Name == "manager" {
			return c.Image
		}
	}
	return ""
}
