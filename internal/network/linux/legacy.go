package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

// The kernel has a second place for rules, which nftables does not see: that of
// iptables' older kind, iptables-legacy. They are read as iptables itself does
// (ip_tables.h, x_tables.h), and made into rules that a walk understands. A
// chain's name is where its first rule stands: by that, rules jump to it.

// legacyNames is where the tables are named that there are in the thread's namespace.
const legacyNames = "/proc/thread-self/net/ip_tables_names"

// Options of a socket (IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES).
const (
	getInfo    = 64
	getEntries = 65
)

// legacyInfo is struct ipt_getinfo. Hooks have the numbers that nftables gives
// them, too.
type legacyInfo struct {
	name       [32]byte
	validHooks uint32
	begin      [5]uint32 // where a hook's rules begin
	policy     [5]uint32 // where the last stands, which is its policy
	entries    uint32
	size       uint32 // of all rules
}

// examineLegacy tells how iptables-legacy stands in the way of probes.
func (n *Network) examineLegacy(ps map[hook][]probe) []network.Obstacle {
	tables, err := os.ReadFile(legacyNames)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the kernel has no such place
	}
	var t *legacyTable
	if err == nil {
		// To ask for one that is not there would make it.
		if !slices.Contains(strings.Fields(string(tables)), "filter") {
			return nil
		}
		t, err = readLegacy()
	}
	if err != nil {
		return []network.Obstacle{{What: "table filter of iptables-legacy", Err: err, Hint: "iptables-legacy -S"}}
	}
	return n.obstructsLegacy(t, ps)
}

func (n *Network) obstructsLegacy(t *legacyTable, ps map[hook][]probe) (found []network.Obstacle) {
	w := &walk{rules: t.rules}
	for _, name := range []string{"INPUT", "FORWARD"} {
		base := t.base[name]
		if base == nil {
			continue
		}
		if why := w.drops(base, ps[hook{false, *base.Hooknum}]); why != "" {
			found = append(found, network.Obstacle{
				What: fmt.Sprintf("table filter of iptables-legacy, chain %s (%s)", name, why),
				Hint: n.legacyHint(t, name), Names: name == "INPUT",
			})
		}
	}
	return found
}

func (n *Network) legacyHint(t *legacyTable, chain string) string {
	forward := chain == "FORWARD"
	if slices.ContainsFunc(t.chains, isUFW) {
		return n.ufwHint(forward)
	}
	if !forward {
		return "iptables-legacy -I INPUT -i " + n.bridge + " -j ACCEPT"
	}
	if slices.Contains(t.chains, dockerChain) {
		chain = dockerChain // which Docker keeps before its own
	}
	rule := "iptables-legacy -I " + chain
	return fmt.Sprintf("%s -i %s -j ACCEPT && %s -o %s -j ACCEPT", rule, n.bridge, rule, n.bridge)
}

// readLegacy reads the table that decides on what machines send and get.
func readLegacy() (*legacyTable, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open a raw socket: %w", err)
	}
	defer unix.Close(fd)
	const head = 40 // of struct ipt_get_entries: a table's name, the size of what follows
	for {
		info := legacyInfo{name: [32]byte{'f', 'i', 'l', 't', 'e', 'r'}}
		if err := getsockopt(fd, getInfo, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))); err != nil {
			return nil, fmt.Errorf("ask for its size: %w", err)
		}
		all := make([]byte, head+info.size)
		copy(all, info.name[:])
		binary.NativeEndian.PutUint32(all[32:], info.size)
		switch err := getsockopt(fd, getEntries, all); {
		case errors.Is(err, unix.EAGAIN): // its size is another by now
		case err != nil:
			return nil, fmt.Errorf("read its rules: %w", err)
		default:
			return parseLegacy(info, all[head:])
		}
	}
}

func getsockopt(fd, option int, buf []byte) error {
	size := uint32(len(buf))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// A legacyTable is one table of iptables-legacy.
type legacyTable struct {
	rules  map[string][]*nftables.Rule
	base   map[string]*nftables.Chain // INPUT and FORWARD
	chains []string                   // names of the others, as people know them
}

// Where the parts of struct ipt_entry are, and the size of what stands before
// the data of a match or target (struct xt_entry_match).
const (
	entryProto, entryFlags, entryInvert = 80, 82, 83
	entryTarget, entryNext              = 88, 90 // offsets, from the entry's begin
	entrySize                           = 112
	matchHead                           = 32
)

// Flags of an entry, what it inverts (IPT_F_*, IPT_INV_*), and what a standard
// target says if it is not where to go on.
const (
	fragment, goTo                  = 1, 2
	notIn, notOut, notTOS           = 1, 2, 4
	notSource, notDest, notFragment = 8, 16, 32
	notProto                        = 64
	saysDrop, saysAccept, goUp      = -1, -2, -5
)

// parseLegacy makes rules of what the kernel has.
func parseLegacy(info legacyInfo, all []byte) (*legacyTable, error) {
	t := &legacyTable{rules: map[string][]*nftables.Rule{}, base: map[string]*nftables.Chain{}}
	filter := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}
	for name, h := range map[string]*nftables.ChainHook{"INPUT": nftables.ChainHookInput, "FORWARD": nftables.ChainHookForward} {
		t.base[name] = &nftables.Chain{Table: filter, Name: at(info.begin[*h]), Hooknum: h}
	}
	chain := ""
	for off := uint32(0); int(off) < len(all); {
		e, err := entry(all[off:])
		if err != nil {
			return nil, fmt.Errorf("rule at %d: %w", off, err)
		}
		after := off + uint32(len(e))
		if slices.Contains(info.begin[:], off) {
			chain = at(off)
		}
		target, data := targetOf(e)
		switch {
		case target == "ERROR": // which begins a chain, and is the last of all
			chain = at(after)
			t.chains = append(t.chains, cstring(data))
		case slices.Contains(info.policy[:], off):
			t.setPolicy(info, off, e)
		default:
			t.rules[chain] = append(t.rules[chain], &nftables.Rule{Exprs: legacyRule(e, after)})
		}
		off = after
	}
	return t, nil
}

// setPolicy notes what the last entry of a hook says.
func (t *legacyTable) setPolicy(info legacyInfo, off uint32, e []byte) {
	for _, base := range t.base {
		if info.policy[*base.Hooknum] == off {
			p := nftables.ChainPolicyAccept
			if _, data := targetOf(e); verdictIn(data) == saysDrop {
				p = nftables.ChainPolicyDrop
			}
			base.Policy = &p
		}
	}
}

func at(offset uint32) string { return fmt.Sprint("@", offset) }

// entry returns the first entry of b.
func entry(b []byte) ([]byte, error) {
	if len(b) < entrySize {
		return nil, errors.New("it is cut off")
	}
	target, next := binary.NativeEndian.Uint16(b[entryTarget:]), binary.NativeEndian.Uint16(b[entryNext:])
	if target < entrySize || int(target)+matchHead > int(next) || int(next) > len(b) {
		return nil, fmt.Errorf("its target is at %d of %d bytes", target, next)
	}
	return b[:next], nil
}

// targetOf returns the name of an entry's target and its data.
func targetOf(e []byte) (string, []byte) {
	t := e[binary.NativeEndian.Uint16(e[entryTarget:]):]
	return matchName(t), t[matchHead:]
}

// matchName is the name of a match or target; a standard target has none.
func matchName(b []byte) string { return cstring(b[2 : matchHead-1]) }

func cstring(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func verdictIn(data []byte) int32 {
	if len(data) < 4 {
		return saysAccept
	}
	return int32(binary.NativeEndian.Uint32(data))
}

// legacyRule is a rule in nftables' words. after is where the next one stands.
func legacyRule(e []byte, after uint32) words {
	invert := e[entryInvert]
	op := func(bit byte) expr.CmpOp {
		if invert&bit != 0 {
			return expr.CmpOpNeq
		}
		return expr.CmpOpEq
	}
	var rule words
	if e[entryFlags]&fragment != 0 || invert&(notTOS|notFragment) != 0 {
		rule = words{&expr.Match{Name: "fragment"}} // which no probe is
	}
	for _, a := range []struct {
		offset, addr, mask uint32
		not                byte
	}{{ipSrc, 0, 8, notSource}, {ipDst, 4, 12, notDest}} {
		if mask := e[a.mask : a.mask+4]; !bytes.Equal(mask, make([]byte, 4)) {
			rule = cat(rule, masked(nh, a.offset, mask, op(a.not), e[a.addr:a.addr+4]))
		}
	}
	for _, l := range []struct {
		key        expr.MetaKey
		name, mask int
		not        byte
	}{{expr.MetaKeyIIFNAME, 16, 48, notIn}, {expr.MetaKeyOIFNAME, 32, 64, notOut}} {
		if n := bytes.Count(e[l.mask:l.mask+16], []byte{0xff}); n > 0 {
			rule = cat(rule, meta(l.key, op(l.not), e[l.name:l.name+n]))
		}
	}
	if proto := binary.NativeEndian.Uint16(e[entryProto:]); proto != 0 {
		rule = cat(rule, meta(expr.MetaKeyL4PROTO, op(notProto), []byte{byte(proto)}))
	}
	return cat(rule, legacyMatches(e), legacyVerdict(e, after))
}

// legacyMatches are the matches of an entry. One that is broken is there
// without what it says, and so matches nothing.
func legacyMatches(e []byte) (ms words) {
	b := e[entrySize:binary.NativeEndian.Uint16(e[entryTarget:])]
	for len(b) >= matchHead {
		m := &expr.Match{Name: matchName(b), Rev: uint32(b[matchHead-1])}
		ms = append(ms, m)
		size := int(binary.NativeEndian.Uint16(b))
		if size < matchHead || size > len(b) {
			m.Name = "broken"
			return ms
		}
		if info, err := xt.Unmarshal(m.Name, unix.NFPROTO_IPV4, m.Rev, b[matchHead:size]); err == nil {
			m.Info = info
		}
		b = b[size:]
	}
	return ms
}

// legacyVerdict is what an entry's target does.
func legacyVerdict(e []byte, after uint32) words {
	name, data := targetOf(e)
	if name != "" {
		return words{&expr.Target{Name: name}}
	}
	v := &expr.Verdict{Kind: expr.VerdictContinue}
	switch to := verdictIn(data); {
	case to == saysDrop:
		v.Kind = expr.VerdictDrop
	case to == saysAccept:
		v.Kind = expr.VerdictAccept
	case to == goUp:
		v.Kind = expr.VerdictReturn
	case to < 0 || uint32(to) == after: // a rule that only counts
	case e[entryFlags]&goTo != 0:
		v.Kind, v.Chain = expr.VerdictGoto, at(uint32(to))
	default:
		v.Kind, v.Chain = expr.VerdictJump, at(uint32(to))
	}
	return words{v}
}
