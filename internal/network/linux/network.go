package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

// Options is whose network it is.
type Options struct {
	Tag  string       // required; the daemon's, six hexadecimal digits
	Root string       // required; the daemon's, which the bridge's alias names
	Log  *slog.Logger // required
	Lock string       // file that all daemons of the host lock; empty: "/run/banger-network.lock"
}

// A Network is one daemon's network on this host. Make it with [New].
type Network struct {
	tag, alias string
	bridge     string // name
	mac        net.HardwareAddr
	lock       string
	log        *slog.Logger

	turn    chan struct{} // holds one token while a call is at work
	conn    *conn         // of whoever has the turn; nil: none is open
	adopted chan struct{} // holds one token if Watch is to look again

	tried atomic.Bool // the kernel took the rules once; what it has it keeps

	noted []string // uplinks that this process switched on; whoever has turn may use it

	mu   sync.Mutex
	taps map[int]string // guarded by mu; ids by index, of the taps that are wanted
}

var _ network.Network = (*Network)(nil)

// New returns the network of a daemon. It touches nothing.
func New(o Options) *Network {
	if o.Lock == "" {
		o.Lock = "/run/banger-network.lock"
	}
	return &Network{
		tag: o.Tag, alias: alias(o.Root), bridge: network.BridgeName(o.Tag), mac: bridgeMAC(o.Tag),
		lock: o.Lock, log: o.Log, turn: make(chan struct{}, 1), adopted: make(chan struct{}, 1), taps: map[int]string{},
	}
}

// conn is what calls talk to the kernel by. It belongs to the network namespace
// of the thread that opened it.
type conn struct {
	*netlink.Handle
	nft *nftables.Conn
}

func open() (*conn, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	nft, err := nftables.New(nftables.AsLasting())
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &conn{h, nft}, nil
}

// close gives the sockets up, and does not wait for it: the kernel has whoever
// closes one of nftables' wait until all that transactions replaced is freed,
// and everybody else's transactions wait for him (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c). That takes several times what Apply does.
func (c *conn) close() {
	c.Close()
	go func() { _ = c.nft.CloseLasting() }()
}

// renew puts a new socket of nftables in the place of one in which there may be
// something left to read: after an error that is no reason to give up, what
// comes next would take it for its own answer.
func (c *conn) renew() error {
	nft, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	old := c.nft
	c.nft = nft
	go func() { _ = old.CloseLasting() }() // as in close
	return nil
}

// unlessGone returns what an error of removing something is, nil if it is that
// it was not there. Whoever takes it for a success goes on with a new socket.
func (c *conn) unlessGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return c.renew()
	}
	return err
}

// use calls f with the connection of all calls. After an error there may be
// something left to read in it, so the next call gets a new one; an f that keeps
// an error to itself sees to that by [conn.renew]. Preconditions: the call holds
// n.turn.
func (n *Network) use(f func(*conn) error) (err error) {
	if n.conn == nil {
		if n.conn, err = open(); err != nil {
			return err
		}
	}
	if err := f(n.conn); err != nil {
		n.conn.close()
		n.conn = nil
		return err
	}
	return nil
}

// Apply makes the host as w says; see [network.Network].
func (n *Network) Apply(ctx context.Context, w network.Want) error {
	if len(w.Ports) == 0 {
		return n.CleanUp(ctx)
	}
	if err := w.Check(); err != nil {
		return err
	}
	return n.alone(ctx, func(c *conn) error { return n.apply(c, w) })
}

// apply reads and refuses before it changes anything. The rules come before
// the links, so that no link is ever without them.
func (n *Network) apply(c *conn, w network.Want) error {
	links, err := c.links()
	if err != nil {
		return err
	}
	tables, err := n.tables(c)
	if err != nil {
		return err
	}
	if err := n.refuse(links, tables, w); err != nil {
		return err
	}
	routes, err := c.routes()
	if err != nil {
		return err
	}
	if err := n.collide(c, links, routes, w.Subnet); err != nil {
		return err
	}
	fw, err := n.planForwarding(tables, uplinks(routes, links))
	if err != nil {
		return err
	}
	if err := n.replaceTables(c, w, fw.noted); err != nil {
		return err
	}
	if err := n.makeLinks(c, links, w); err != nil {
		return err
	}
	n.noted = fw.noted
	if err := fw.switchOn(n.bridge); err != nil {
		return err
	}
	return n.openDockerUser(c, tables)
}

// Missing returns the ids whose tap is not there; see [network.Network].
func (n *Network) Missing(ctx context.Context, ids []string) (missing []string, err error) {
	err = n.alone(ctx, func(c *conn) error {
		links, err := c.links()
		for _, id := range ids {
			if _, ok := links[network.TapName(n.tag, id)].(*netlink.Tuntap); err == nil && !ok {
				missing = append(missing, id)
			}
		}
		return err
	})
	return missing, err
}

// Traffic tells what taps have carried; see [network.Network].
func (n *Network) Traffic(ctx context.Context, ids []string) (map[string]network.Traffic, error) {
	carried := make(map[string]network.Traffic)
	err := n.alone(ctx, func(c *conn) error {
		links, err := c.links()
		if err != nil {
			return err
		}
		for _, id := range ids {
			tap, ok := links[network.TapName(n.tag, id)].(*netlink.Tuntap)
			if !ok || tap.Attrs().Statistics == nil {
				continue
			}
			// What the host receives from a tap, the guest has sent.
			s := tap.Attrs().Statistics
			carried[id] = network.Traffic{In: int64(s.TxBytes), Out: int64(s.RxBytes), OutPackets: int64(s.RxPackets)}
		}
		return nil
	})
	return carried, err
}

// CleanUp removes all that is this daemon's; see [network.Network]. What
// remembers something goes after what it remembers.
func (n *Network) CleanUp(ctx context.Context) error {
	return n.alone(ctx, func(c *conn) error {
		links, err := c.links()
		if err != nil {
			return err
		}
		tables, err := n.tables(c)
		if err != nil {
			return err
		}
		if err := n.removeLinks(c, links); err != nil {
			return err
		}
		if err := n.closeDockerUser(c, tables); err != nil {
			return err
		}
		if err := tables.switchOff(tables.noted, nil); err != nil {
			return err
		}
		n.noted = nil
		return n.deleteTables(c, tables)
	})
}
