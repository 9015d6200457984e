//go:build tools

// Package snapshotter pins the snapshot controller of the local control plane.
// The build tag is never set: the imports are only here so that go mod tidy
// keeps what the binary needs in go.mod and go.sum.
package snapshotter

import (
	_ "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"
)
