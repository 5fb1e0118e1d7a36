package networktest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"banger/internal/network"
)

// Kinds of links, as the kernel calls them.
const (
	Bridge = "bridge"
	Tap    = "tun"
)

// A Link is a network interface of a host.
type Link struct {
	Name   string
	Kind   string
	Index  int          // no other link's, ever
	Master string       // the bridge that it is a port of; or empty
	Addr   netip.Prefix // of a bridge
	UID    uint32       // owner of a tap
}

// A Host is a pretend host, on which the links and tables of several daemons
// are. They live on when a test drops a daemon: the next one takes the same
// Host, and a network of its own from there. All methods may be called
// concurrently.
type Host struct {
	turn chan struct{} // holds one token while a network is at work

	mu        sync.Mutex
	lastIndex int
	links     map[string]Link              // guarded by mu; by name
	foreign   map[string]bool              // guarded by mu; names of links that are no daemon's
	tables    map[string]string            // guarded by mu; the tag of the daemon whose it is, or empty, by name
	routes    []netip.Prefix               // guarded by mu; of somebody else
	obstacles []network.Obstacle           // guarded by mu
	watches   map[chan struct{}]bool       // guarded by mu; told when a link goes
	fail      func(op string) error        // guarded by mu
	packets   map[string]int64             // guarded by mu; that machines have sent, by id
	connected map[netip.Addr]time.Duration // guarded by mu; how long connections have been quiet
	follows   error                        // guarded by mu; why no connections are followed
}

// NewHost returns a host without a link.
func NewHost() *Host {
	return &Host{
		turn:  make(chan struct{}, 1),
		links: map[string]Link{}, foreign: map[string]bool{}, tables: map[string]string{}, watches: map[chan struct{}]bool{},
		packets: map[string]int64{}, connected: map[netip.Addr]time.Duration{},
	}
}

// SetFail makes f decide what fails. It is asked with "before OP" when OP is
// about to have its effect and "after OP" when it has had it. OP is "network"
// when a port is added, "undo network" when ports, or the last of a daemon's
// things, are only removed; what changes nothing does not ask. Nil: nothing
// fails. f must not call the host.
func (h *Host) SetFail(f func(op string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = f
}

// Network returns the network of the daemon with a tag, as one that has just
// started has it.
func (h *Host) Network(tag string) network.Network {
	return &fake{h: h, tag: tag, taps: map[int]string{}}
}

// Links returns the links, sorted by name.
func (h *Host) Links() []Link {
	h.mu.Lock()
	defer h.mu.Unlock()
	links := []Link{}
	for _, name := range slices.Sorted(maps.Keys(h.links)) {
		links = append(links, h.links[name])
	}
	return links
}

// Tables returns the names of the tables of rules, sorted. A daemon has one,
// named as nftables has its two.
func (h *Host) Tables() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.tables))
}

// Send counts packets that a machine sends.
func (h *Host) Send(id string, packets int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.packets[id] += packets
}

// Connect makes an established connection of an address, which last carried
// something so long ago.
func (h *Host) Connect(a netip.Addr, quiet time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connected[a] = quiet
}

// Disconnect ends the connections of an address.
func (h *Host) Disconnect(a netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.connected, a)
}

// FollowNothing makes the host one that follows no connections, for a reason.
func (h *Host) FollowNothing(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follows = why
}

// AddLink makes a bridge that is somebody else's.
func (h *Host) AddLink(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(Link{Name: name, Kind: Bridge})
	h.foreign[name] = true
}

// DelLink deletes a link, whosever it is, as somebody else does. It reports
// whether it was there.
func (h *Host) DelLink(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.links[name]
	h.del(name)
	return ok
}

// AddTable makes a table that is somebody else's.
func (h *Host) AddTable(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tables[name] = ""
}

// AddRoute makes a route of somebody else's.
func (h *Host) AddRoute(p netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.routes = append(h.routes, p)
}

// SetObstacles sets what stands in the way of all daemons.
func (h *Host) SetObstacles(o []network.Obstacle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.obstacles = slices.Clone(o)
}

// add makes a link, with the next index. Preconditions: h.mu is held.
func (h *Host) add(l Link) Link {
	h.lastIndex++
	l.Index = h.lastIndex
	h.links[l.Name] = l
	return l
}

// del deletes a link and tells those who watch. Preconditions: h.mu is held.
func (h *Host) del(name string) {
	if _, ok := h.links[name]; !ok {
		return
	}
	delete(h.links, name)
	delete(h.foreign, name)
	for n, l := range h.links {
		if l.Master == name {
			l.Master = ""
			h.links[n] = l
		}
	}
	for changed := range h.watches {
		select {
		case changed <- struct{}{}:
		default: // it has not looked since it was told before
		}
	}
}

// ask asks whether a point fails.
func (h *Host) ask(point string) error {
	h.mu.Lock()
	f := h.fail
	h.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(point)
}

// around runs f between the two questions whether op fails.
func (h *Host) around(op string, f func()) error {
	if err := h.ask("before " + op); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	h.mu.Lock()
	f()
	h.mu.Unlock()
	if err := h.ask("after " + op); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}
