//go:build tools

// Package etcd pins the etcd binary of the local control plane. The build tag
// is never set: the import is only here so that go mod tidy keeps what the
// binary needs in go.mod and go.sum.
package etcd

import _ "go.etcd.io/etcd/server/v3"
