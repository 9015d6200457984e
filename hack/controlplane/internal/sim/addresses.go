package sim

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// addresses gives every pod an IP of its own. An address is not given out
// again soon after its pod is gone, because rules about an old pod must not
// seem to fit a new one.
type addresses struct {
	mu   sync.Mutex
	next uint16
	used map[uint16]struct{}
	pods map[types.UID]uint16
}

func newAddresses() *addresses {
	return &addresses{next: 2, used: map[uint16]struct{}{}, pods: map[types.UID]uint16{}}
}

// of returns the pod's address, always the same one until it is released.
func (a *addresses) of(pod types.UID) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	number, ok := a.pods[pod]
	if !ok {
		number = a.allocate()
		a.pods[pod] = number
	}
	return fmt.Sprintf("100.64.%d.%d", number>>8, number&0xff)
}

// allocate walks round the range. It never runs out: there are more addresses
// than pods that the nodes admit.
func (a *addresses) allocate() uint16 {
	for {
		number := a.next
		a.next++
		if _, taken := a.used[number]; !taken && number&0xff != 0 && number&0xff != 0xff {
			a.used[number] = struct{}{}
			return number
		}
	}
}

func (a *addresses) release(pod types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if number, ok := a.pods[pod]; ok {
		delete(a.used, number)
		delete(a.pods, pod)
	}
}
