package cluster

import (
	"errors"
	"fmt"
	"net"
)

// freePorts returns n different TCP ports of the loopback address that were
// free a moment ago. Someone else may take one before it is used; Start then
// begins again with other ports.
func freePorts(n int) (ports []int, err error) {
	listeners := make([]net.Listener, 0, n)
	// All stay open until all are chosen, or the same port would come up twice.
	defer func() {
		for _, listener := range listeners {
			err = errors.Join(err, listener.Close())
		}
	}()
	for range n {
		listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		listeners = append(listeners, listener)
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
