package gitops

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pace is how long the simulated controllers rest between two passes.
const pace = 100 * time.Millisecond

// Simulation is the controllers of Argo CD and Flux, for the managers of one namespace.
type Simulation struct {
	Client    client.Client
	Namespace string
	Git       *Git

	mu sync.Mutex
	// held are the managers whose operations do not end, under way what each operation applies.
	held     map[string]bool
	underWay map[string][]*unstructured.Unstructured
}

// Run makes passes until the context ends, and returns what went wrong that was not somebody else's change at the same time.
func (s *Simulation) Run(ctx context.Context) error {
	for {
		if err := s.pass(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("simulating GitOps: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pace):
		}
	}
}

// Hold keeps operations of a manager from ending, or lets them end.
func (s *Simulation) Hold(name string, hold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[string]bool{}
	}
	s.held[name] = hold
}

func (s *Simulation) holds(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[name]
}

func (s *Simulation) begin(name string, manifests []*unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.underWay == nil {
		s.underWay = map[string][]*unstructured.Unstructured{}
	}
	s.underWay[name] = manifests
}

func (s *Simulation) running(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.underWay[name] != nil
}

// rendered is what the operation of a manager applies, which ends with that.
func (s *Simulation) rendered(name string) []*unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.underWay[name]
	delete(s.underWay, name)
	return out
}

func (s *Simulation) pass(ctx context.Context) error {
	var failures []error
	for _, k := range []struct {
		apiVersion, kind string
		one              func(context.Context, *unstructured.Unstructured) error
	}{
		{"argoproj.io/v1alpha1", "ApplicationSet", s.applicationSet},
		{"argoproj.io/v1alpha1", "Application", s.application},
		{"kustomize.toolkit.fluxcd.io/v1", "Kustomization", s.kustomization},
	} {
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion(k.apiVersion)
		list.SetKind(k.kind + "List")
		if err := s.Client.List(ctx, list, client.InNamespace(s.Namespace)); err != nil {
			return err
		}
		for i := range list.Items {
			if err := k.one(ctx, &list.Items[i]); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
				failures = append(failures, fmt.Errorf("%s %s: %w", k.kind, list.Items[i].GetName(), err))
			}
		}
	}
	return errors.Join(failures...)
}

// apply applies a manifest, and takes every field that it has.
func (s *Simulation) apply(ctx context.Context, m *unstructured.Unstructured, owner string) error {
	return s.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(m), client.FieldOwner(owner), client.ForceOwnership)
}
