package image

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"cofferdam.dev/cofferdam/api/v1alpha1"
)

var owner = types.NamespacedName{Namespace: "shop", Name: "miner"}

func inspecting(t *testing.T, checker *Checker) (*Inspector, *clocktesting.FakePassiveClock) {
	t.Helper()
	clock := clocktesting.NewFakePassiveClock(time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC))
	i := NewInspector(checker, clock)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- i.Start(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-ended) })
	for {
		i.mu.Lock()
		started := i.base != nil
		i.mu.Unlock()
		if started {
			return i, clock
		}
		time.Sleep(time.Millisecond)
	}
}

func TestInspectorRemembersForAWhile(t *testing.T) {
	r := started(t, true)
	image := pushed(t, r, "shop/web", 1)
	var asked atomic.Int32
	i, clock := inspecting(t, &Checker{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		asked.Add(1)
		return http.DefaultTransport.RoundTrip(req)
	})})
	look := func(wantRecent bool, want State) {
		t.Helper()
		got, recent := i.Look(owner, image.Reference, v1alpha1.ImageVerification{})
		if recent != wantRecent || got.State != want {
			t.Fatalf("Look() = %+v, %t, want state %d, %t", got, recent, want, wantRecent)
		}
	}
	look(false, Unknown)
	if woken := <-i.Wake; woken.Object != owner {
		t.Fatalf("woken is %v", woken.Object)
	}
	look(true, Good)
	before := asked.Load()
	clock.SetTime(clock.Now().Add(validFor - time.Second))
	look(true, Good)
	if asked.Load() != before {
		t.Errorf("the registry was asked again")
	}
	clock.SetTime(clock.Now().Add(time.Second))
	look(false, Good)
	<-i.Wake
	look(true, Good)
	if asked.Load() == before {
		t.Errorf("the registry was not asked again")
	}
}

func TestInspectorTriesAgainSoon(t *testing.T) {
	i, clock := inspecting(t, &Checker{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") })})
	image := "registry.example.com/web@sha256:" + strings.Repeat("0", 64)
	i.Look(owner, image, v1alpha1.ImageVerification{})
	<-i.Wake
	if got, recent := i.Look(owner, image, v1alpha1.ImageVerification{}); !recent || got.State != Unknown || !strings.Contains(got.Why, "no route") {
		t.Errorf("Look() = %+v, %t", got, recent)
	}
	clock.SetTime(clock.Now().Add(retryAfter))
	if _, recent := i.Look(owner, image, v1alpha1.ImageVerification{}); recent {
		t.Error("what could not be found out counts for too long")
	}
	<-i.Wake
}

func TestInspectorOutlivesAPanic(t *testing.T) {
	i, _ := inspecting(t, &Checker{Transport: roundTrip(func(*http.Request) (*http.Response, error) { panic("a bug") })})
	image := "registry.example.com/web@sha256:" + strings.Repeat("0", 64)
	i.Look(owner, image, v1alpha1.ImageVerification{})
	<-i.Wake
	if got, _ := i.Look(owner, image, v1alpha1.ImageVerification{}); got.State != Unknown || !strings.Contains(got.Why, "cannot be read") {
		t.Errorf("Look() = %+v", got)
	}
}

func TestInspectorForgets(t *testing.T) {
	i, _ := inspecting(t, &Checker{})
	for n := range maxKnown + 1 {
		i.known[strings.Repeat("x", n)] = &entry{at: i.clock.Now(), verdict: Verdict{State: Good}}
	}
	i.Look(owner, "no digest", v1alpha1.ImageVerification{})
	<-i.Wake
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) > maxKnown {
		t.Errorf("%d verdicts are remembered", len(i.known))
	}
}
