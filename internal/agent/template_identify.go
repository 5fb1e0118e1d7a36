package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// How many bytes of randomness a machine is given: as many as the kernel takes for a
// seed, and no more than it has a use for.
const (
	minEntropy = 32
	maxEntropy = 512
)

// Identify implements the method of the protocol.
func (s service) Identify(ctx context.Context, req *connect.Request[wire.IdentifyRequest]) (*connect.Response[wire.IdentifyResponse], error) {
	s.identity.work.Lock()
	defer s.identity.work.Unlock()
	template, err := s.identity.begin()
	if err != nil {
		return nil, notNow(err)
	}
	b, err := newMachine(template, req.Msg)
	if err != nil {
		return nil, invalid(err)
	}
	if err := s.identify(ctx, template, b, req.Msg); err != nil {
		s.o.Log.Error("give the machine its identity", "err", err)
		return nil, failure("give the machine its identity", err)
	}
	s.identity.unfinished.machineID = template.MachineID
	s.identity.end(b)
	s.hurryFor(identityHurry)
	return connect.NewResponse(&wire.IdentifyResponse{}), nil
}

// identify makes the guest of a template the machine of b, but for serving it.
// The order matters. What makes keys or nonces comes after the randomness. The
// disks are ready before anything wakes the guest's services, as the clock and
// the name do: whenever a disk was waited for they would have the processor, and
// keep it for long. What a restarted agent would read is written when all of it
// is true.
func (s *Server) identify(ctx context.Context, template, b wire.Bundle, req *wire.IdentifyRequest) error {
	sys := s.o.System
	for _, step := range []func() error{
		func() error { return sys.Seed(req.Entropy) },
		func() error { return growDisks(ctx, sys, template.Mounts, b.Mounts) },
		func() error { return s.o.SetClock(time.Unix(0, req.UnixNs)) },
		func() error { return sys.SetHostname(b.Hostname) },
		func() error { return sys.SetFiles(b) },
		func() error { return sys.SetNetwork(b.NICs) },
		// Journald goes on in its files until Finish starts it again.
		func() error { return sys.MoveJournal(template.MachineID, b.MachineID) },
		func() error { return sys.Keep(req.BundleJson) },
	} {
		if err := ctx.Err(); err != nil {
			return err // whoever asked would never learn that it succeeded
		}
		if err := step(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// growDisks makes the file systems that a machine has larger disks for than its
// template as large as these.
func growDisks(ctx context.Context, sys System, template, machine []wire.Mount) error {
	ctx, cancel := context.WithTimeout(ctx, diskWait)
	defer cancel()
	for i, m := range machine {
		if m.SizeBytes == template[i].SizeBytes {
			continue
		}
		if err := sys.Grow(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// newMachine reads the bundle of the machine that a template is to become, and
// checks that it can: what the template's boot has settled stays as it is.
func newMachine(template wire.Bundle, req *wire.IdentifyRequest) (wire.Bundle, error) {
	b, err := wire.DecodeBundle(req.BundleJson)
	if err != nil {
		return wire.Bundle{}, err
	}
	switch {
	case b.Template:
		err = errors.New("the bundle is a template's")
	case req.UnixNs <= 0:
		err = errors.New("no time to set the clock to")
	case len(req.Entropy) < minEntropy || len(req.Entropy) > maxEntropy:
		err = fmt.Errorf("entropy of %d bytes is not %d to %d", len(req.Entropy), minEntropy, maxEntropy)
	case b.MachineID == template.MachineID || b.Token == template.Token:
		err = errors.New("the machine has the template's machine id or token")
	case b.Init != template.Init, b.EndByReboot != template.EndByReboot, b.VsockPort != template.VsockPort:
		err = errors.New("the template was booted with another init, end or port")
	case place(b.Root) != place(template.Root), !fits(b.Mounts, template.Mounts):
		err = errors.New("the template was booted with another root, or other or larger disks")
	}
	return b, err
}

// fits reports whether a machine's mounts are those of its template, on disks
// that are as large or larger.
func fits(machine, template []wire.Mount) bool {
	return slices.EqualFunc(machine, template, func(m, t wire.Mount) bool {
		return place(m) == place(t) && m.SizeBytes >= t.SizeBytes
	})
}

// place is a mount without the size of its disk, which is each machine's own.
func place(m wire.Mount) wire.Mount {
	m.SizeBytes = 0
	return m
}
