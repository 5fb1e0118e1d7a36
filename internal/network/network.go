// Package network defines what banger needs of a host's network: one bridge
// for each daemon, one tap for each machine that runs, and the rules that keep
// machines to their own addresses and away from the host.
//
// It is desired state, not verbs: who wants something says all that is wanted
// ([Network.Apply]), and may say it again. The bridge and the tables are made
// with the first machine and gone with the last. Every name on the host is
// computed from the daemon's tag and the machine's id, so what an earlier
// daemon left is recognised and removed.
//
// A machine without a network (see [None]) has no interface at all: nothing of
// it is wanted here.
package network

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Modes of a machine's network, as the command line and records have them.
const (
	NAT  = "nat"  // the other machines, and through the host what it reaches
	None = "none" // nothing: no interface
)

// A Network is the part of the host's network that is one daemon's. All
// methods may be called concurrently. They wait for each other, and for those
// of other daemons, until ctx ends; but for Check, which waits for nobody and
// does not look at ctx, nor does Connected, and Watch, for which nobody waits either.
type Network interface {
	// Check returns nil if machines can have a network here, else an error of
	// kind errkind.Host that names what is missing, with a hint. It changes
	// nothing.
	Check(ctx context.Context) error

	// Choose returns a subnet that no route of the host collides with. It
	// makes nothing, so the next Apply may find it taken after all. Like
	// everything about subnets it is IPv4.
	Choose(ctx context.Context) (netip.Prefix, error)

	// Apply makes the host as w says: it makes what is missing, replaces what
	// is different, and removes what is this daemon's and not wanted. It may
	// be called again, after an error too. Without ports it does what CleanUp
	// does. If the bridge is not there yet and the subnet collides with a
	// route of the host, the error is [ErrCollision] and nothing was changed.
	// What has one of our names and was made by somebody else is an error of
	// kind errkind.Conflict with the command that removes it, and is left
	// alone. On any other error a part may be done.
	Apply(ctx context.Context, w Want) error

	// Missing returns those of machines' ids whose tap is not there. It changes
	// nothing.
	Missing(ctx context.Context, ids []string) ([]string, error)

	// Traffic tells what the taps of machines have carried since they were
	// made, by id. Machines without a tap are left out.
	Traffic(ctx context.Context, ids []string) (map[string]Traffic, error)

	// Connected tells which of machines' addresses have TCP connections that are
	// established, and how long ago one of them last carried something. It
	// changes nothing. What two machines of one bridge have between them a host need
	// not know of. One that follows no connections is an error.
	Connected(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]time.Duration, error)

	// CleanUp removes all that is this daemon's from the host. It needs no
	// other state, and succeeds if there is nothing.
	CleanUp(ctx context.Context) error

	// Obstacles tells which firewalls of somebody else's keep machines from
	// what they should reach, as the host is now. One that cannot be read is
	// told of as such. When ctx ends it reads no further, and returns why.
	Obstacles(ctx context.Context) ([]Obstacle, error)

	// Watch calls gone with the id of a machine whose tap was deleted by
	// somebody else, until ctx ends, which it returns. Taps that Apply or
	// CleanUp removes are not told of.
	Watch(ctx context.Context, gone func(id string)) error
}

// Want is all that a daemon wants of its host's network.
type Want struct {
	Subnet netip.Prefix // IPv4; the bridge has its first address
	Ports  []Port       // of the machines that run, in any order
}

// A Port is where one machine meets the bridge.
type Port struct {
	ID  string     // of the machine: 8 hexadecimal digits
	IP  netip.Addr // in the subnet, and no other port's
	UID uint32     // owner of the tap
}

// Traffic is what a machine's tap has carried, in bytes.
type Traffic struct {
	In  int64 // to the guest
	Out int64 // from it

	OutPackets int64 // how many packets the latter were
}

// An Obstacle is a firewall that stands in the way, or may: one that cannot be
// read.
type Obstacle struct {
	What  string // "table ip filter, chain FORWARD (policy drop)"
	Names bool   // it keeps machines from names alone, which they ask of the host
	Err   error  // of reading it; nil: it stands in the way
	Hint  string // a line to paste that lets machines through, or shows what cannot be read
}

// String tells what it does.
func (o Obstacle) String() string {
	if o.Err != nil {
		return fmt.Sprintf("%s may keep machines from the network: %v", o.What, o.Err)
	}
	if o.Names {
		return o.What + " keeps machines from names"
	}
	return o.What + " keeps machines from the network"
}

// Advice tells what it does and what to paste.
func (o Obstacle) Advice() string {
	then := "let them through with"
	if o.Err != nil {
		then = "look at it with"
	}
	return fmt.Sprintf("%s; %s: %s", o, then, o.Hint)
}

// ErrCollision says that a subnet overlaps with a route of the host. The error
// that wraps it names the route.
var ErrCollision = errors.New("the subnet collides with a route of the host")

// BridgeName is the name of the bridge of the daemon with a tag of six
// hexadecimal digits.
func BridgeName(tag string) string { return "banger-" + tag }

// TapName is the name of a machine's tap: 15 bytes, the most that the kernel
// takes (IFNAMSIZ less a NUL; netdevice(7)).
func TapName(tag, id string) string { return "b" + tag + id }

// MAC is the address of a machine's interface: locally administered, and
// unique within one bridge as ids are.
func MAC(id string) (net.HardwareAddr, error) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != 4 {
		return nil, fmt.Errorf("MAC for machine %q: its id is not 8 hexadecimal digits", id)
	}
	return append(net.HardwareAddr{0x02, 0xba}, b...), nil
}

// Gateway is the bridge's own address in a subnet: the first that a host can
// have.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }
