package server

import (
	"context"
	"time"

	"banger/internal/network"
	"banger/internal/vm"
)

// wayTime is how long an answer waits for what firewalls there are, from the
// start's beginning.
const wayTime = time.Second

// withWayOut starts a machine, and tells what keeps it from the network: a
// denial that nobody speaks of looks like a hang. It is looked for meanwhile.
func (s *Server) withWayOut(ctx context.Context, r *reporter, v vm.VM, start func() (vm.VM, error)) (vm.VM, error) {
	if v.Spec.Network != network.NAT {
		return start()
	}
	ctx, cancel := context.WithTimeout(ctx, wayTime)
	defer cancel()
	found := make(chan []network.Obstacle, 1)
	go func() { found <- s.m.Obstacles(ctx) }()
	v, err := start()
	if err != nil {
		return v, err
	}
	for _, o := range <-found {
		r.notice(o.Advice())
	}
	return v, nil
}
