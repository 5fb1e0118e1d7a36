package linux

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What becomes of a packet in other people's rules is found by going through
// them as the kernel does, with a packet made up for it. What is not understood
// matches nothing: a rule with conditions of its own is not about machines.

// A probe is a packet that should get through.
type probe struct {
	iif, oif string
	state    uint32 // of its connection, as a bit
	network  []byte // header
	tcpudp   []byte // the first bytes of the header
}

func newProbe(iif, oif string, state uint32, proto byte, src, dst netip.Addr, port uint16) probe {
	h := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, proto, 0, 0} // RFC 791
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	th := append(binaryutil.BigEndian.PutUint16(50000), binaryutil.BigEndian.PutUint16(port)...)
	return probe{iif: iif, oif: oif, state: state, network: h, tcpudp: th}
}

// dstType is what kind of address the host takes the destination for.
func (p probe) dstType() int {
	if p.oif == "" {
		return unix.RTN_LOCAL
	}
	return unix.RTN_UNICAST
}

// An outcome is what becomes of a packet in a chain or rule.
type outcome int

const (
	next outcome = iota // nothing: the next rule, or the policy, decides
	accepted
	dropped // or rejected
	jumps
	goes
	returns
)

// The kernel's own limit of nested jumps (NFT_JUMP_STACK_SIZE; nf_tables.h),
// and one for all rules that are looked at.
const (
	maxDepth = 16
	maxRules = 100_000
)

// A set holds the verdicts of a map by their keys, or nil for each key of a set.
type set map[string]*expr.Verdict

// A walk goes through the chains of one table.
type walk struct {
	rules map[string][]*nftables.Rule          // by chain
	set   func(name string) (set, bool, error) // not ok: of a kind that is not understood
	open  string                               // chain that lets machines through whatever it holds
	seen  int                                  // rules, for one base chain
	err   error                                // of set, the first; what came after it is not to be trusted
}

// chain returns what becomes of p in a chain: accepted, dropped or next.
func (w *walk) chain(name string, p probe, depth int) outcome {
	if name == w.open {
		return accepted
	}
	if depth > maxDepth {
		return next
	}
	for _, r := range w.rules[name] {
		if w.seen++; w.seen > maxRules {
			return next
		}
		switch o, to := w.rule(r, p); o {
		case accepted, dropped:
			return o
		case returns:
			return next
		case goes:
			return w.chain(to, p, depth+1)
		case jumps:
			if o := w.chain(to, p, depth+1); o != next {
				return o
			}
		}
	}
	return next
}

// rule returns what one rule does to p, and the chain that it jumps or goes to.
func (w *walk) rule(r *nftables.Rule, p probe) (outcome, string) {
	var m machine
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Verdict:
			return verdict(e)
		case *expr.Reject:
			return dropped, ""
		case *expr.Target:
			if e.Name == "REJECT" || e.Name == "DROP" {
				return dropped, ""
			}
		case *expr.Match:
			if !matchesXT(e, p) {
				return next, ""
			}
		case *expr.Lookup:
			v, in := w.lookup(&m, e)
			if !in {
				return next, ""
			}
			if v != nil {
				return verdict(v)
			}
		default:
			if !m.step(e, p) {
				return next, ""
			}
		}
	}
	return next, ""
}

func verdict(v *expr.Verdict) (outcome, string) {
	switch v.Kind {
	case expr.VerdictAccept:
		return accepted, ""
	case expr.VerdictDrop:
		return dropped, ""
	case expr.VerdictJump:
		return jumps, v.Chain
	case expr.VerdictGoto:
		return goes, v.Chain
	case expr.VerdictReturn:
		return returns, ""
	}
	return next, ""
}

// lookup reports whether a rule goes on behind a lookup in a set, and returns
// what a map of verdicts has for it.
func (w *walk) lookup(m *machine, e *expr.Lookup) (*expr.Verdict, bool) {
	toVerdict := e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT
	if e.IsDestRegSet && !toVerdict || w.err != nil {
		return nil, false
	}
	s, ok, err := w.set(e.SetName)
	if w.err = err; !ok || err != nil {
		return nil, false
	}
	for key, v := range s {
		if key == string(m.get(e.SourceRegister, len(key))) {
			return v, !e.Invert
		}
	}
	return nil, e.Invert
}

// A machine holds the registers that expressions work on.
type machine struct{ regs [64]byte }

// get returns n bytes from a register on, fewer if there are not so many: 1 to
// 4 have 16 bytes each, 8 to 23 are the same in parts of 4 (nf_tables.h).
func (m *machine) get(reg uint32, n int) []byte {
	at := len(m.regs)
	switch {
	case reg >= unix.NFT_REG_1 && reg <= unix.NFT_REG_4:
		at = int(reg-unix.NFT_REG_1) * 16
	case reg >= unix.NFT_REG32_00 && reg <= unix.NFT_REG32_15:
		at = int(reg-unix.NFT_REG32_00) * 4
	}
	return m.regs[at:min(len(m.regs), at+max(n, 0))]
}

// put fills a register, with zeros behind data up to a whole word.
func (m *machine) put(reg uint32, data []byte) bool {
	to := m.get(reg, (len(data)+3)/4*4)
	clear(to)
	return copy(to, data) == len(data)
}

// step does one expression, and reports whether the rule goes on.
func (m *machine) step(e expr.Any, p probe) bool {
	switch e := e.(type) {
	case *expr.Meta:
		return e.SourceRegister || m.meta(e, p)
	case *expr.Payload:
		return e.OperationType == expr.PayloadWrite || m.payload(e, p)
	case *expr.Ct:
		return e.SourceRegister || e.Key == expr.CtKeySTATE && m.put(e.Register, binaryutil.NativeEndian.PutUint32(p.state))
	case *expr.Fib:
		return e.ResultADDRTYPE && e.FlagDADDR && m.put(e.Register, binaryutil.NativeEndian.PutUint32(uint32(p.dstType())))
	case *expr.Immediate:
		return m.put(e.Register, e.Data)
	case *expr.Bitwise:
		return m.bitwise(e)
	case *expr.Cmp:
		return compares(e.Op, bytes.Compare(m.get(e.Register, len(e.Data)), e.Data))
	case *expr.Range:
		v := m.get(e.Register, len(e.FromData))
		in := bytes.Compare(v, e.FromData) >= 0 && bytes.Compare(v, e.ToData) <= 0
		return in == (e.Op == expr.CmpOpEq)
	case *expr.Counter, *expr.Log, *expr.Objref:
		return true
	}
	return false
}

func (m *machine) meta(e *expr.Meta, p probe) bool {
	switch e.Key {
	case expr.MetaKeyIIFNAME:
		return m.put(e.Register, ifname(p.iif))
	case expr.MetaKeyOIFNAME:
		return m.put(e.Register, ifname(p.oif))
	case expr.MetaKeyNFPROTO:
		return m.put(e.Register, []byte{unix.NFPROTO_IPV4})
	case expr.MetaKeyPROTOCOL:
		return m.put(e.Register, []byte{0x08, 0x00})
	case expr.MetaKeyL4PROTO:
		return m.put(e.Register, p.network[9:10])
	}
	return false
}

func (m *machine) payload(e *expr.Payload, p probe) bool {
	from := p.network
	switch e.Base {
	case nh:
	case th:
		from = p.tcpudp
	default:
		return false
	}
	if end := uint64(e.Offset) + uint64(e.Len); end > uint64(len(from)) {
		return false
	}
	return m.put(e.DestRegister, from[e.Offset:e.Offset+e.Len])
}

func (m *machine) bitwise(e *expr.Bitwise) bool {
	v := slices.Clone(m.get(e.SourceRegister, int(min(e.Len, 64))))
	if len(e.Mask) != len(v) || len(e.Xor) != len(v) {
		return false
	}
	for i := range v {
		v[i] = v[i]&e.Mask[i] ^ e.Xor[i]
	}
	return m.put(e.DestRegister, v)
}

func compares(op expr.CmpOp, sign int) bool {
	switch op {
	case expr.CmpOpEq:
		return sign == 0
	case expr.CmpOpNeq:
		return sign != 0
	case expr.CmpOpLt:
		return sign < 0
	case expr.CmpOpLte:
		return sign <= 0
	case expr.CmpOpGt:
		return sign > 0
	case expr.CmpOpGte:
		return sign >= 0
	}
	return false
}
