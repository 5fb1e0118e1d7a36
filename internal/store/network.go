package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"banger/internal/errkind"
	"banger/internal/network"
	"banger/internal/vm"
)

// Subnet returns the subnet that machines get their addresses from; the zero
// prefix if none was set yet.
func (s *Store) Subnet(ctx context.Context) (p netip.Prefix, err error) {
	err = s.view(ctx, "Subnet", func(tx tx) error {
		n, err := readNetwork(ctx, tx)
		p = n.p
		return err
	})
	return p, err
}

// SetSubnet sets the subnet, IPv4, and gives every machine that has a network
// an address in it: the one with the same host part where that is possible. A
// subnet that is too small for them is [errkind.Host], and nothing is changed.
func (s *Store) SetSubnet(ctx context.Context, p netip.Prefix) error {
	return s.update(ctx, "SetSubnet", func(tx tx) error {
		old, err := readNetwork(ctx, tx)
		if err != nil {
			return err
		}
		n := subnet{p.Masked(), old.lastHost}
		if n.hosts() == 0 {
			return errkind.New(errkind.Usage, "subnet %s: it takes IPv4, with room for a machine", p)
		}
		vs, err := machines(ctx, tx)
		if err != nil {
			return err
		}
		// Nobody has one, so that nobody's new one is somebody's old one.
		if _, err := tx.ExecContext(ctx, `UPDATE machines SET guest_ip = ''`); err != nil {
			return err
		}
		if err := n.write(ctx, tx); err != nil {
			return err
		}
		return moveAddresses(ctx, tx, old, n, vs)
	})
}

// moveAddresses gives machines addresses in another subnet: first to those who
// keep their part of it, so that nobody else gets it.
func moveAddresses(ctx context.Context, tx tx, from, to subnet, vs []vm.VM) error {
	var others []vm.VM
	for _, v := range vs {
		if v.Spec.Network != network.NAT {
			continue
		}
		ip := from.moved(v.GuestIP, to)
		if ip == "" {
			others = append(others, v)
			continue
		}
		if err := setAddress(ctx, tx, v.ID, ip); err != nil {
			return err
		}
	}
	for _, v := range others {
		ip, err := freeAddress(ctx, tx)
		if err != nil {
			return err
		}
		if err := setAddress(ctx, tx, v.ID, ip); err != nil {
			return err
		}
	}
	return nil
}

func setAddress(ctx context.Context, tx tx, id vm.ID, ip string) error {
	_, err := tx.ExecContext(ctx, `UPDATE machines SET guest_ip = ? WHERE id = ?`, ip, string(id))
	return err
}

// A subnet is the one row of the table network.
type subnet struct {
	p        netip.Prefix // the zero prefix: there is no row
	lastHost uint32
}

// firstHost is the lowest host part of a machine's address: the bridge has 1.
const firstHost = 2

// hosts is how many machines can have an address: all that are not the
// network's own, the bridge's or the broadcast address.
func (n subnet) hosts() uint32 {
	if !n.p.IsValid() || !n.p.Addr().Is4() || n.p.Bits() > 29 || n.p.Bits() < 8 {
		return 0
	}
	return 1<<(32-n.p.Bits()) - 3
}

// addr is the address with a host part.
func (n subnet) addr(host uint32) netip.Addr {
	base := n.p.Addr().As4()
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(base[:])+host)
	return netip.AddrFrom4(a)
}

// moved returns the address in another subnet with the same host part, or "" if
// there is none.
func (n subnet) moved(ip string, to subnet) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || !n.p.Contains(a) {
		return ""
	}
	h := hostPart(a, n.p.Bits())
	if h < firstHost || h >= firstHost+to.hosts() {
		return ""
	}
	return to.addr(h).String()
}

// hostPart is what of an IPv4 address tells machines of one subnet apart.
func hostPart(a netip.Addr, bits int) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]) & (1<<(32-bits) - 1)
}

func readNetwork(ctx context.Context, tx tx) (n subnet, err error) {
	var text string
	err = tx.QueryRowContext(ctx, `SELECT subnet, last_host FROM network`).Scan(&text, &n.lastHost)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return subnet{}, nil
	case err != nil:
		return n, err
	}
	if n.p, err = netip.ParsePrefix(text); err != nil {
		return n, fmt.Errorf("read the subnet: %w", err)
	}
	return n, nil
}

func (n subnet) write(ctx context.Context, tx tx) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO network (id, subnet, last_host) VALUES (1, ?1, ?2)
		ON CONFLICT (id) DO UPDATE SET subnet = ?1, last_host = ?2`,
		n.p.String(), n.lastHost)
	return err
}

// freeAddress returns an address that no machine has. It goes on from the one
// that was given out last: others may still remember whose one was that has
// just become free.
func freeAddress(ctx context.Context, tx tx) (string, error) {
	n, err := readNetwork(ctx, tx)
	if err != nil {
		return "", err
	}
	if !n.p.IsValid() {
		return "", errors.New("give a machine an address: no subnet was set")
	}
	for range n.hosts() {
		if n.lastHost++; n.lastHost < firstHost || n.lastHost >= firstHost+n.hosts() {
			n.lastHost = firstHost
		}
		ip := n.addr(n.lastHost).String()
		taken, err := addressTaken(ctx, tx, ip)
		if err != nil {
			return "", err
		}
		if !taken {
			return ip, n.write(ctx, tx)
		}
	}
	return "", errkind.WithHint(
		errkind.New(errkind.Host, "each of the %d addresses in %s is a machine's: delete one, or set a larger subnet in config.toml", n.hosts(), n.p),
		"banger vm list --all")
}

func addressTaken(ctx context.Context, tx tx, ip string) (taken bool, err error) {
	// The second condition lets it use the index, which has the same.
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM machines WHERE guest_ip = ? AND guest_ip <> '')`, ip).Scan(&taken)
	return taken, err
}
