package linux

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// blob is a table as the kernel has it, being written.
type blob struct {
	info legacyInfo
	all  []byte
}

// A legacy is one entry: how it differs from one that matches everything, what
// stands before its target, and that.
type legacy struct {
	edit    func([]byte)
	matches []byte
	target  string
	data    []byte
}

func (b *blob) add(l legacy) {
	head := make([]byte, entrySize)
	if l.edit != nil {
		l.edit(head)
	}
	target := match(l.target, l.data)
	binary.NativeEndian.PutUint16(head[entryTarget:], uint16(entrySize+len(l.matches)))
	binary.NativeEndian.PutUint16(head[entryNext:], uint16(entrySize+len(l.matches)+len(target)))
	b.all = slices.Concat(b.all, head, l.matches, target)
}

// match is a match or a target.
func match(name string, data []byte) []byte {
	m := make([]byte, matchHead)
	binary.NativeEndian.PutUint16(m, uint16(matchHead+len(data)))
	copy(m[2:], name)
	return append(m, data...)
}

// says is a standard target.
func says(verdict int32) []byte {
	return append(binary.NativeEndian.AppendUint32(nil, uint32(verdict)), 0, 0, 0, 0)
}

// link is a condition on an interface; a name that ends with + is a prefix.
func link(name string, at int) func([]byte) {
	return func(e []byte) {
		n := len(name) + 1
		if name[len(name)-1] == '+' {
			n = len(name) - 1
		}
		copy(e[at:at+n], name)
		for i := range n {
			e[at+32+i] = 0xff
		}
	}
}

// hooks writes a table whose INPUT has the policy accept, whose FORWARD has
// rules and a policy, and one more chain, with rules of its own, at its end.
func hooks(rules []legacy, policy int32, chain ...legacy) *blob {
	b := &blob{}
	for i := range b.info.begin {
		b.info.begin[i], b.info.policy[i] = ^uint32(0), ^uint32(0)
	}
	b.info.begin[unix.NF_INET_LOCAL_IN], b.info.policy[unix.NF_INET_LOCAL_IN] = 0, 0
	b.add(legacy{data: says(saysAccept)})
	b.info.begin[unix.NF_INET_FORWARD] = uint32(len(b.all))
	for _, r := range rules {
		b.add(r)
	}
	b.info.policy[unix.NF_INET_FORWARD] = uint32(len(b.all))
	b.add(legacy{data: says(policy)})
	b.add(legacy{target: "ERROR", data: append([]byte("mine"), make([]byte, 28)...)})
	for _, r := range chain {
		b.add(r)
	}
	b.add(legacy{data: says(goUp)})
	b.add(legacy{target: "ERROR", data: append([]byte("ERROR"), make([]byte, 27)...)})
	return b
}

// What iptables-legacy's rules mean to the kernel they mean to the walk.
func TestLegacy(t *testing.T) {
	const in, out = 16, 32
	// Where the second entry of FORWARD stands, and the first of the chain
	// behind it, if all that FORWARD has is one plain rule.
	const second, mine = 2 * 152, 3*152 + 176
	for _, tt := range []struct {
		name   string
		rules  []legacy
		policy int32
		chain  []legacy
		want   string // why it drops
	}{
		{"nothing", nil, saysAccept, nil, ""},
		{"policy", nil, saysDrop, nil, "policy drop"},
		{"target", []legacy{{target: "REJECT", data: make([]byte, 8)}}, saysAccept, nil, "a rule drops"},
		{"another target", []legacy{{target: "LOG", data: make([]byte, 8)}}, saysAccept, nil, ""},
		{"by interface", []legacy{{edit: link("banger-abc123", in), data: says(saysAccept)}}, saysDrop, nil, ""},
		{"by prefix", []legacy{{edit: link("banger-+", in), data: says(saysAccept)}}, saysDrop, nil, ""},
		{"by another", []legacy{{edit: link("docker0", in), data: says(saysAccept)}}, saysDrop, nil, "policy drop"},
		{"to another", []legacy{{edit: link("docker0", out), data: says(saysDrop)}}, saysAccept, nil, ""},
		{"not to another", []legacy{{edit: func(e []byte) { link("docker0", out)(e); e[entryInvert] = notOut }, data: says(saysDrop)}}, saysAccept, nil, "a rule drops"},
		{"by source", []legacy{{edit: func(e []byte) { copy(e, []byte{10, 64, 8, 0}); copy(e[8:], []byte{255, 255, 252, 0}) }, data: says(saysDrop)}}, saysAccept, nil, "a rule drops"},
		{"by another's source", []legacy{{edit: func(e []byte) { copy(e, []byte{10, 64, 0, 0}); copy(e[8:], []byte{255, 255, 252, 0}) }, data: says(saysDrop)}}, saysAccept, nil, ""},
		{"not by another's destination", []legacy{{edit: func(e []byte) {
			copy(e[4:], []byte{10, 0, 0, 0})
			copy(e[12:], []byte{255, 0, 0, 0})
			e[entryInvert] = notDest
		}, data: says(saysDrop)}}, saysAccept, nil, "a rule drops"},
		{"by protocol", []legacy{{edit: func(e []byte) { e[entryProto] = unix.IPPROTO_UDP }, data: says(saysDrop)}}, saysAccept, nil, ""},
		{"not by protocol", []legacy{{edit: func(e []byte) { e[entryProto] = unix.IPPROTO_UDP; e[entryInvert] = notProto }, data: says(saysDrop)}}, saysAccept, nil, "a rule drops"},
		{"fragments", []legacy{{edit: func(e []byte) { e[entryFlags] = fragment }, data: says(saysDrop)}}, saysAccept, nil, ""},
		{"comment", []legacy{{matches: match("comment", make([]byte, 256)), data: says(saysDrop)}}, saysAccept, nil, "a rule drops"},
		{"unknown match", []legacy{{matches: match("recent", make([]byte, 8)), data: says(saysDrop)}}, saysAccept, nil, ""},
		{"broken match", []legacy{{matches: make([]byte, matchHead), data: says(saysDrop)}}, saysAccept, nil, ""},
		{"it only counts", []legacy{{data: says(second)}}, saysAccept, nil, ""},
		{"jump", []legacy{{data: says(mine)}}, saysAccept, []legacy{{data: says(saysDrop)}}, "a rule drops"},
		{"jump and return", []legacy{{data: says(mine)}}, saysDrop, []legacy{{data: says(goUp)}, {data: says(saysAccept)}}, "policy drop"},
		{"goto", []legacy{{edit: func(e []byte) { e[entryFlags] = goTo }, data: says(mine)}, {data: says(saysDrop)}}, saysAccept, nil, ""},
	} {
		b := hooks(tt.rules, tt.policy, tt.chain...)
		table, err := parseLegacy(b.info, b.all)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		w := &walk{rules: table.rules}
		if got := w.drops(table.base["FORWARD"], []probe{leaving}); got != tt.want {
			t.Errorf("%s: it drops by %q, want %q; the rules are %v", tt.name, got, tt.want, table.rules)
		}
		if !slices.Equal(table.chains, []string{"mine", "ERROR"}) {
			t.Errorf("%s: chains %q", tt.name, table.chains)
		}
	}
}

// Its obstacles are told with the line of the tool that made it.
func TestLegacyHints(t *testing.T) {
	n := New(Options{Tag: "abc123", Log: slog.New(slog.DiscardHandler)})
	ps := map[hook][]probe{
		{false, *nftables.ChainHookForward}: {leaving},
		{false, *nftables.ChainHookInput}:   {newProbe("banger-abc123", "", expr.CtStateBitNEW, unix.IPPROTO_UDP, guest, netip.MustParseAddr("10.64.8.1"), 53)},
	}
	for _, tt := range []struct{ chain, forward, input string }{
		{
			"mine", "iptables-legacy -I FORWARD -i banger-abc123 -j ACCEPT && iptables-legacy -I FORWARD -o banger-abc123 -j ACCEPT",
			"iptables-legacy -I INPUT -i banger-abc123 -j ACCEPT",
		},
		{
			"DOCKER-USER", "iptables-legacy -I DOCKER-USER -i banger-abc123 -j ACCEPT && iptables-legacy -I DOCKER-USER -o banger-abc123 -j ACCEPT",
			"iptables-legacy -I INPUT -i banger-abc123 -j ACCEPT",
		},
		{"ufw-before-forward", n.ufwHint(true), n.ufwHint(false)},
	} {
		b := hooks(nil, saysDrop)
		table, err := parseLegacy(b.info, b.all)
		if err != nil {
			t.Fatal(err)
		}
		drop := nftables.ChainPolicyDrop
		table.chains[0], table.base["INPUT"].Policy = tt.chain, &drop
		found := n.obstructsLegacy(table, ps)
		if len(found) != 2 || found[0].Hint != tt.input || found[1].Hint != tt.forward ||
			found[1].What != "table filter of iptables-legacy, chain FORWARD (policy drop)" {
			t.Errorf("with chain %s: %q", tt.chain, found)
		}
	}
}

// Whatever the kernel hands out, reading it ends.
func FuzzLegacy(f *testing.F) {
	b := hooks([]legacy{{edit: link("eth0", 16), matches: match("tcp", make([]byte, 16)), data: says(0)}}, saysDrop)
	f.Add(b.all, uint32(0))
	f.Add(b.all[:len(b.all)-1], uint32(152))
	f.Fuzz(func(t *testing.T, all []byte, at uint32) {
		info := legacyInfo{}
		info.begin[unix.NF_INET_FORWARD] = at
		table, err := parseLegacy(info, all)
		if err != nil {
			return
		}
		w := &walk{rules: table.rules}
		w.drops(table.base["FORWARD"], []probe{leaving})
	})
}
