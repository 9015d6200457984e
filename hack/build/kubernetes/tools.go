//go:build tools

// Package kubernetes pins the Kubernetes binaries of the local control plane.
// The build tag is never set: the imports are only here so that go mod tidy
// keeps what the binaries need in go.mod and go.sum.
package kubernetes

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
