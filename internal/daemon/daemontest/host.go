package daemontest

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"sync/atomic"

	"banger/internal/dns"
	"banger/internal/guest"
	"banger/internal/guest/wire"
)

// Host is a pretend host's resources.
type Host struct {
	CPU          int
	Memory       int64
	Total, Spare int64 // of every file system
	Kept         int64 // what is reserved
	Taken        int64 // of the memory; use sync/atomic
}

// SetSpare changes how much of every file system is free.
func (h *Host) SetSpare(n int64) { atomic.StoreInt64(&h.Spare, n) }

// CPUs is h.CPU.
func (h *Host) CPUs() int { return h.CPU }

// Processor is always the same.
func (h *Host) Processor() string { return "a processor" }

// AvailableBytes is all memory, less what is Taken.
func (h *Host) AvailableBytes() (int64, error) {
	return h.Memory - atomic.LoadInt64(&h.Taken), nil
}

// MemoryBytes is h.Memory.
func (h *Host) MemoryBytes() int64 { return h.Memory }

// DiskBytes is the same everywhere.
func (h *Host) DiskBytes(string) (total, free int64, err error) {
	return h.Total, atomic.LoadInt64(&h.Spare), nil
}

// Unreserve forgets what was kept.
func (h *Host) Unreserve(string) (bool, error) {
	return atomic.SwapInt64(&h.Kept, 0) > 0, nil
}

// Reserve notes what is kept.
func (h *Host) Reserve(_ string, n int64) error {
	atomic.StoreInt64(&h.Kept, n)
	return nil
}

// Boot writes the bundle alone.
type Boot struct {
	Fail func(op string) error // asked before and after each operation; may be nil
}

var _ guest.Boot = Boot{}

func (b Boot) fail(op string) error {
	if b.Fail == nil {
		return nil
	}
	return b.Fail(op)
}

// Write writes the bundle to path.
func (b Boot) Write(_ context.Context, path string, _ []string, w wire.Bundle, _ uint32) error {
	if err := b.fail("before boot"); err != nil {
		return err
	}
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return b.fail("after boot")
}

// AgentID is always the same.
func (b Boot) AgentID() (string, error) { return "a9e47", nil }

// Remove removes what Write wrote.
func (b Boot) Remove(path string) error {
	if err := b.fail("undo boot"); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// DNS serves nobody, and knows one resolver.
type DNS struct{}

// Open does nothing.
func (DNS) Open(dns.Names) string { return "127.0.0.1:42069" }

// Warnings has none.
func (DNS) Warnings() []string { return nil }

// Close does nothing.
func (DNS) Close() error { return nil }

// ServeGuests does nothing.
func (DNS) ServeGuests(netip.Prefix) {}

// Resolvers returns an address for documentation (RFC 5737).
func (DNS) Resolvers() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.53")} }
