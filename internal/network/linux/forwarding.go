package linux

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// A forwarding is what to do that packets find their way through the host.
type forwarding struct {
	uplinks []string // sorted
	noted   []string // uplinks that banger switched on or is about to
}

// planForwarding decides which uplinks the daemon notes as switched on by
// banger, and switches those off that are none any more. Without an uplink all
// stay: a default route that comes back is more likely than one that does not.
func (n *Network) planForwarding(t *tables, uplinks []string) (forwarding, error) {
	f := forwarding{uplinks: uplinks}
	if len(uplinks) == 0 {
		f.noted = t.noted
		return f, nil
	}
	for _, u := range uplinks {
		on, err := forwards(u)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just gone
		}
		if err != nil {
			return f, fmt.Errorf("forwarding of %s: %w", u, err)
		}
		if !on || slices.Contains(t.noted, u) || slices.Contains(t.others, u) {
			f.noted = append(f.noted, u)
		}
	}
	return f, t.switchOff(t.noted, f.uplinks)
}

// switchOn switches forwarding on for the bridge and the uplinks.
func (f forwarding) switchOn(bridge string) error {
	if err := setForwarding(bridge, true); err != nil {
		return fmt.Errorf("switch forwarding of %s on: %w", bridge, err)
	}
	for _, link := range f.uplinks {
		if err := setForwarding(link, true); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("switch forwarding of %s on: %w", link, err)
		}
	}
	return nil
}

// switchOff switches forwarding off for links that banger switched on, but for
// those in keep and those that another daemon notes. Where the host has since
// been made to forward for everybody, whoever did so needs them too.
func (t *tables) switchOff(links, keep []string) error {
	all, err := forwards("all")
	if err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	for _, link := range links {
		if all || slices.Contains(keep, link) || slices.Contains(t.others, link) {
			continue
		}
		if err := setForwarding(link, false); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("switch forwarding of %s off: %w", link, err)
		}
	}
	return nil
}
