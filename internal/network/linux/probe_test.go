package linux

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

var (
	guest   = netip.MustParseAddr("10.64.8.2")
	outside = netip.MustParseAddr("1.1.1.1")
	leaving = newProbe("banger-abc123", "eth0", expr.CtStateBitNEW, unix.IPPROTO_TCP, guest, outside, 443)
)

func jump(chain string) words { return words{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

func chainOf(rules ...words) (c []*nftables.Rule) {
	for _, r := range rules {
		c = append(c, &nftables.Rule{Exprs: r})
	}
	return c
}

func noSets(string) (set, bool, error) { return nil, false, nil }

// byVerdict is a lookup in a map of verdicts.
func byVerdict(name string, key expr.MetaKey) words {
	return words{&expr.Meta{Key: key, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: name, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}}
}

// What our own words mean to the kernel they mean to the walk.
func TestWalk(t *testing.T) {
	subnet := netip.MustParsePrefix("10.64.8.0/22")
	counter, unknown := words{&expr.Counter{}}, words{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}}
	verdictOf := func(k expr.VerdictKind) words { return words{&expr.Verdict{Kind: k, Chain: "other"}} }
	ctMatch := func(state uint16, invert uint16) words {
		return words{&expr.Match{Name: "conntrack", Info: &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
			ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: uint16(xt.ConntrackState), InvertFlags: invert},
			StateMask:           state,
		}}}}
	}
	for _, tt := range []struct {
		name  string
		base  []*nftables.Rule
		other []*nftables.Rule
		want  outcome
	}{
		{"nothing", nil, nil, next},
		{"accept", chainOf(cat(counter, accept())), nil, accepted},
		{"first verdict counts", chainOf(accept(), drop()), nil, accepted},
		{"reject", chainOf(prohibit()), nil, dropped},
		{"reject of iptables", chainOf(words{&expr.Target{Name: "REJECT"}}), nil, dropped},
		{"other targets go on", chainOf(words{&expr.Target{Name: "LOG"}}), nil, next},
		{"by interface", chainOf(cat(iif("banger-abc123"), oif("eth0"), accept())), nil, accepted},
		{"by another", chainOf(cat(iif("banger-abc124"), accept())), nil, next},
		{"by prefix", chainOf(cat(iifPrefix("banger-"), accept())), nil, accepted},
		{"not by name", chainOf(cat(iifNot("docker0"), drop())), nil, dropped},
		{"as iptables compares names", chainOf(cat(meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, []byte("banger-abc123\x00")), accept())), nil, accepted},
		{"by source", chainOf(cat(ipv4(), saddr(subnet), drop())), nil, dropped},
		{"by other source", chainOf(cat(ipv4(), saddrNot(subnet), drop())), nil, next},
		{"by destination", chainOf(cat(daddr(linkLocal), drop())), nil, next},
		{"by port", chainOf(cat(l4proto(unix.IPPROTO_TCP), field(th, dstPort, 1, 187), accept())), nil, accepted},
		{"IPv6", chainOf(cat(ipv6(), drop())), nil, next},
		{"answers", chainOf(cat(answers(), accept())), nil, next},
		{"state, iptables", chainOf(cat(ctMatch(8, 0), accept())), nil, accepted},
		{"other state, iptables", chainOf(cat(ctMatch(2|4, 0), drop())), nil, next},
		{"not that state, iptables", chainOf(cat(ctMatch(2|4, uint16(xt.ConntrackState)), drop())), nil, dropped},
		{"address type, iptables", chainOf(cat(words{&expr.Match{Name: "addrtype", Info: &xt.AddrTypeV1{Dest: 1 << unix.RTN_LOCAL}}}, drop())), nil, next},
		{"not that address type, iptables", chainOf(cat(words{&expr.Match{Name: "addrtype", Info: &xt.AddrTypeV1{Dest: 1 << unix.RTN_LOCAL, Flags: invertDest}}}, drop())), nil, dropped},
		{"address type", chainOf(cat(words{&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)}}, drop())), nil, dropped},
		{"port, iptables", chainOf(cat(words{&expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: [2]uint16{0, 65535}, DstPorts: [2]uint16{443, 443}}}}, drop())), nil, dropped},
		{"port of UDP, iptables", chainOf(cat(words{&expr.Match{Name: "udp", Info: &xt.Udp{SrcPorts: [2]uint16{0, 65535}, DstPorts: [2]uint16{443, 443}}}}, drop())), nil, next},
		{"another port, iptables", chainOf(cat(words{&expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: [2]uint16{0, 65535}, DstPorts: [2]uint16{0, 442}}}}, drop())), nil, next},
		{"what is not understood", chainOf(cat(unknown, drop())), nil, next},
		{"unknown match", chainOf(cat(words{&expr.Match{Name: "recent"}}, drop())), nil, next},
		{"comment", chainOf(cat(words{&expr.Match{Name: "comment"}}, drop())), nil, dropped},
		{"limit", chainOf(cat(words{&expr.Limit{Rate: 1}}, accept())), nil, next},
		{"set", chainOf(cat(words{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: "links"}}, drop())), nil, dropped},
		{"not in set", chainOf(cat(words{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: "links", Invert: true}}, drop())), nil, dropped},
		{"map", chainOf(cat(words{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: "links", IsDestRegSet: true, DestRegister: reg}}, drop())), nil, next},
		{"map of verdicts", chainOf(byVerdict("verdicts", expr.MetaKeyOIFNAME), accept()), chainOf(drop()), dropped},
		{"map of verdicts for others", chainOf(byVerdict("verdicts", expr.MetaKeyIIFNAME), accept()), chainOf(drop()), accepted},
		{"unknown set", chainOf(cat(words{&expr.Lookup{SourceRegister: reg, SetName: "gone"}}, drop())), nil, next},
		{"port range", chainOf(words{load(th, dstPort, 2, reg), &expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: []byte{0, 0}, ToData: []byte{2, 0}}, &expr.Verdict{Kind: expr.VerdictDrop}}), nil, dropped},
		{"behind the header", chainOf(cat(field(th, 40, 0), drop())), nil, next},
		{"jump, then on", chainOf(jump("other"), accept()), chainOf(verdictOf(expr.VerdictReturn), drop()), accepted},
		{"jump to a drop", chainOf(jump("other"), accept()), chainOf(drop()), dropped},
		{"goto does not come back", chainOf(verdictOf(expr.VerdictGoto), accept()), nil, next},
		{"jump in a circle", chainOf(jump("other")), chainOf(jump("other"), jump("base")), next},
		{"jump to nowhere", chainOf(jump("gone"), accept()), nil, accepted},
		{"what Apply opens", chainOf(jump(dockerChain), drop()), nil, accepted},
	} {
		w := &walk{rules: map[string][]*nftables.Rule{"base": tt.base, "other": tt.other}, open: dockerChain}
		w.set = func(name string) (set, bool, error) {
			return map[string]set{
				"links":    {string(ifname("eth0")): nil, string(ifname("eth1")): nil},
				"verdicts": {string(ifname("lo")): {Kind: expr.VerdictAccept}, string(ifname("eth0")): jump("other")[0].(*expr.Verdict)},
			}[name], name != "gone", nil
		}
		if got := w.chain("base", leaving, 0); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Whatever rules others have, going through them ends, and does not end the
// daemon.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte{12, 0, 12, 1, 12, 2, 12, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &walk{rules: map[string][]*nftables.Rule{}, set: noSets}
		r := &nftables.Rule{}
		for len(data) > 2 {
			chain := string('a' + rune(data[1]%3))
			if e := oddExpr(data); e != nil {
				r.Exprs = append(r.Exprs, e)
			} else {
				w.rules[chain] = append(w.rules[chain], r)
				r = &nftables.Rule{}
			}
			data = data[2:]
		}
		switch o := w.chain("a", leaving, 0); o {
		case accepted, dropped, next:
		default:
			t.Errorf("a chain came to %d", o)
		}
	})
}

// oddExpr returns an expression made of bytes, nil at the end of a rule.
// Preconditions: there are at least two.
func oddExpr(b []byte) expr.Any {
	n, rest := uint32(b[1]), b[2:]
	if n > 250 {
		n |= 0xffffff00
	}
	switch b[0] % 14 {
	case 0:
		return &expr.Meta{Key: expr.MetaKey(n), Register: n}
	case 1:
		return &expr.Cmp{Op: expr.CmpOp(n % 7), Register: n, Data: rest}
	case 2:
		return &expr.Payload{Base: expr.PayloadBase(n % 4), Offset: n, Len: uint32(b[0]) << (n % 32), DestRegister: n}
	case 3:
		return &expr.Bitwise{SourceRegister: n, DestRegister: n, Len: n, Mask: rest, Xor: rest}
	case 4:
		return &expr.Immediate{Register: n, Data: rest}
	case 5:
		return &expr.Range{Op: expr.CmpOp(n % 7), Register: n, FromData: rest, ToData: b}
	case 6:
		return &expr.Ct{Key: expr.CtKey(n % 3), Register: n}
	case 7:
		return &expr.Lookup{SourceRegister: n, SetName: "s"}
	case 8:
		return &expr.Match{Name: "conntrack", Info: &xt.AddrTypeV1{Dest: uint16(n)}}
	case 9:
		return &expr.Verdict{Kind: expr.VerdictKind(int64(n%8) - 5), Chain: string('a' + rune(n%4))}
	case 10, 11, 12:
		return &expr.Verdict{Kind: expr.VerdictJump, Chain: string('a' + rune(n%4))}
	}
	return nil
}
