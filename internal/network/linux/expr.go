package linux

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words that rules are made of. Each is what the line of nft(8) in its
// comment compiles to. All that compare use the first register.

// words are a part of a rule, or all of it.
type words []expr.Any

// Registers (nf_tables.h): the first of 16 bytes, and those of 4 bytes that
// follow it in a concatenation.
const (
	reg      = unix.NFT_REG_1
	afterIf  = unix.NFT_REG32_04 // behind an interface's name
	afterMAC = unix.NFT_REG32_06 // behind that and a MAC, padded to 8 bytes
)

// Offsets of header fields, in bytes.
const (
	etherDst, etherSrc, etherType         = 0, 6, 12
	arpHType, arpPType, arpHLen           = 0, 2, 4 // the two lengths together
	arpSenderMAC, arpSenderIP             = 8, 14
	ipSrc, ipDst, dstPort                 = 12, 16, 2
	ll, nh, th                            = expr.PayloadBaseLLHeader, expr.PayloadBaseNetworkHeader, expr.PayloadBaseTransportHeader
	icmpxUnreach, icmpxAdmin, resetReject = unix.NFT_REJECT_ICMPX_UNREACH, 3, unix.NFT_REJECT_TCP_RST // nf_tables.h
)

func cat(parts ...words) (all words) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// ifname is an interface's name as the kernel compares and keeps it.
func ifname(name string) []byte { return append([]byte(name), make([]byte, 16-len(name))...) }

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) words {
	return words{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: data}}
}

// iifname "name"
func iif(name string) words { return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, ifname(name)) }

// iifname != "name"
func iifNot(name string) words { return meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, ifname(name)) }

// oifname "name"
func oif(name string) words { return meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, ifname(name)) }

// oifname != "name"
func oifNot(name string) words { return meta(expr.MetaKeyOIFNAME, expr.CmpOpNeq, ifname(name)) }

// iifname "prefix*"
func iifPrefix(prefix string) words {
	return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, []byte(prefix))
}

// iifname != "prefix*"
func iifNotPrefix(prefix string) words {
	return meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, []byte(prefix))
}

// meta nfproto ipv4
func ipv4() words { return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV4}) }

// meta nfproto ipv6
func ipv6() words { return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV6}) }

// meta l4proto proto
func l4proto(proto byte) words { return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{proto}) }

func load(base expr.PayloadBase, offset, length, to uint32) *expr.Payload {
	return &expr.Payload{DestRegister: to, Base: base, Offset: offset, Len: length}
}

// field compares a field of a header, as @ll,offset,length does.
func field(base expr.PayloadBase, offset uint32, data ...byte) words {
	return words{load(base, offset, uint32(len(data)), reg), &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}}
}

func masked(base expr.PayloadBase, offset uint32, mask []byte, op expr.CmpOp, data []byte) words {
	n := uint32(len(mask))
	return words{
		load(base, offset, n, reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: n, Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: op, Register: reg, Data: data},
	}
}

func inSubnet(offset uint32, op expr.CmpOp, s netip.Prefix) words {
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - s.Bits()))
	return masked(nh, offset, mask, op, s.Masked().Addr().AsSlice())
}

// ip saddr subnet
func saddr(s netip.Prefix) words { return inSubnet(ipSrc, expr.CmpOpEq, s) }

// ip saddr != subnet
func saddrNot(s netip.Prefix) words { return inSubnet(ipSrc, expr.CmpOpNeq, s) }

// ip daddr subnet
func daddr(s netip.Prefix) words { return inSubnet(ipDst, expr.CmpOpEq, s) }

// fib daddr type local
func toHost() words {
	return words{
		&expr.Fib{FlagDADDR: true, ResultADDRTYPE: true, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// ct state established,related
func answers() words {
	mask := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return words{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}

// tuple looks a concatenation that begins with iifname up in a set: in it with
// op "equal", not in it with "not equal".
func tuple(set *nftables.Set, op expr.CmpOp, loads ...expr.Any) words {
	return append(append(words{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}}, loads...),
		&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID, Invert: op == expr.CmpOpNeq})
}

func accept() words { return words{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() words   { return words{&expr.Verdict{Kind: expr.VerdictDrop}} }

// reject with tcp reset
func reset() words { return words{&expr.Reject{Type: resetReject}} }

// reject with icmpx admin-prohibited
func prohibit() words { return words{&expr.Reject{Type: icmpxUnreach, Code: icmpxAdmin}} }

func masquerade() words { return words{&expr.Masq{}} }

// dnat ip to ip daddr
func dnatToItself() words {
	return words{load(nh, ipDst, 4, reg), &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg}}
}
