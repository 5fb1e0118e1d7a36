package linux

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// invertDest is a flag of iptables' match of address types
// (XT_ADDRTYPE_INVERT_DEST; xt_addrtype.h).
const invertDest = 2

// matchesXT reports whether a match of iptables matches, of those that are
// usual where a packet is let through or dropped.
func matchesXT(e *expr.Match, p probe) bool {
	switch info := e.Info.(type) {
	case *xt.ConntrackMtinfo3:
		has := uint32(info.StateMask)&p.state != 0
		return info.MatchFlags == uint16(xt.ConntrackState) && has != (info.InvertFlags&uint16(xt.ConntrackState) != 0)
	case *xt.AddrTypeV1:
		has := info.Dest>>p.dstType()&1 != 0
		return info.Source == 0 && info.Flags&^invertDest == 0 && has != (info.Flags&invertDest != 0)
	case *xt.Udp:
		return info.InvFlags == 0 && p.isPort(unix.IPPROTO_UDP, info.SrcPorts, info.DstPorts)
	case *xt.Tcp:
		return info.InvFlags == 0 && info.Option == 0 && info.FlagsMask == 0 && p.isPort(unix.IPPROTO_TCP, info.SrcPorts, info.DstPorts)
	}
	return e.Name == "comment"
}

// isPort reports whether a probe is of a protocol and its ports are within
// ranges.
func (p probe) isPort(proto byte, src, dst [2]uint16) bool {
	from, to := binary.BigEndian.Uint16(p.tcpudp), binary.BigEndian.Uint16(p.tcpudp[2:])
	return p.network[9] == proto && src[0] <= from && from <= src[1] && dst[0] <= to && to <= dst[1]
}
