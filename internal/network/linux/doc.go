// Package linux is the [network.Network] of a Linux host: a bridge and taps
// over netlink, rules over nftables, all from within the process.
//
// # Rules
//
// A daemon has two tables, replaced whole in one transaction, so that no packet
// sees a half of them. Rules are the same whatever runs; machines are elements
// of sets.
//
// The table of the bridge family binds each tap to its machine's MAC, IPv4
// address and ARP sender, before the bridge looks at a frame.
// Everything else that comes from a tap is dropped: IPv6, VLAN tags, spanning
// tree. What a tap is is decided by its name, so a tap that no set knows can
// send nothing. The bridge is told which address is behind which tap, and
// learns none.
//
// The table of the inet family sees packets, not frames: what guests send to
// the host is rejected, but for names (port 53 of the bridge's own address),
// also where another table would lead it elsewhere (DNAT); what they send on is not for 169.254.0.0/16, and leaves with the host's
// address; what comes to them is an answer, or from the host itself. A drop or
// a reject is final whatever other tables accept; the other way round an accept
// of ours is worth nothing where another table drops, see
// [Network.Obstacles].
//
// Where br_netfilter is loaded and on, frames between two taps pass through the
// hooks of the inet family too, with the bridge as both interfaces.
//
// # What is shared
//
// Two things on the host are not one daemon's: subnets, and whether an uplink
// forwards. Whoever decides on them holds a host-wide file lock. The names of
// uplinks on which forwarding was off and was switched on stand in a set of the
// daemon's own table, in the kernel, where they last exactly as long as the
// fact; the last daemon that notes an uplink switches it off again.
//
// # Namespaces
//
// The sockets of a [Network] belong to the network namespace of the thread that
// made the first call, and the files in /proc/sys/net to that of the thread
// that looks: all calls are made by threads of one namespace, as a daemon's
// are. Nothing is done on another thread but reading from a socket in Watch,
// and closing one.
package linux
