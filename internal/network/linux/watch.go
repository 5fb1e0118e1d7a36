package linux

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Watch tells of taps that somebody else deletes; see [network.Network].
func (n *Network) Watch(ctx context.Context, gone func(id string)) error {
	for ctx.Err() == nil {
		if err := n.watch(ctx, gone); err != nil {
			return fmt.Errorf("watch links: %w", err)
		}
	}
	return context.Cause(ctx)
}

// watch is Watch until ctx ends or the kernel had more to tell than there was
// room for; then what was lost is found by looking again.
func (n *Network) watch(ctx context.Context, gone func(id string)) error {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{}); err != nil {
		return err
	}
	defer func() {
		close(done)
		for range updates { // the library's goroutine may be about to send
		}
	}()
	for look := true; ; {
		if look {
			if err := n.tellMissing(gone); err != nil {
				return err
			}
			look = false
		}
		select {
		case u, ok := <-updates:
			if !ok {
				return nil
			}
			// A port that leaves its bridge is told of alike, by another family.
			if u.Header.Type == unix.RTM_DELLINK && u.Family == unix.AF_UNSPEC {
				n.tell(int(u.Index), gone)
			}
		case <-n.adopted:
			look = true
		case <-ctx.Done():
			return nil
		}
	}
}

// tellMissing tells of the taps that are wanted and not there.
func (n *Network) tellMissing(gone func(id string)) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	n.mu.Lock()
	wanted := slices.Collect(maps.Keys(n.taps)) // before looking: later ones are there
	n.mu.Unlock()
	links, err := linksOf(h)
	if err != nil {
		return err
	}
	there := make(map[int]bool, len(links))
	for _, l := range links {
		there[l.Attrs().Index] = true
	}
	for _, i := range wanted {
		if !there[i] {
			n.tell(i, gone)
		}
	}
	return nil
}

// tell tells of a link that has gone, if it was a tap that is wanted and was
// not told of.
func (n *Network) tell(index int, gone func(id string)) {
	n.mu.Lock()
	id, ok := n.taps[index]
	delete(n.taps, index)
	n.mu.Unlock()
	if ok {
		gone(id)
	}
}

// want has Watch look after a tap. found says that it was there when the call
// looked: if it was deleted since, the kernel may have told before it was
// wanted, so Watch looks again.
func (n *Network) want(index int, id string, found bool) {
	n.mu.Lock()
	_, known := n.taps[index]
	n.taps[index] = id
	n.mu.Unlock()
	if found && !known {
		select {
		case n.adopted <- struct{}{}:
		default: // it is to look anyway
		}
	}
}
