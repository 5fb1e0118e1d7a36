package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/network"
)

// Obstacles tells which firewalls drop what machines send or get; see
// [network.Network].
func (n *Network) Obstacles(ctx context.Context) (found []network.Obstacle, err error) {
	err = n.alone(ctx, func(c *conn) error {
		t, err := n.tables(c)
		if err != nil {
			return err
		}
		chains, err := c.nft.ListChains()
		if err != nil {
			return fmt.Errorf("list nftables' chains: %w", err)
		}
		ps, err := n.probes(c)
		if err != nil {
			return err
		}
		tabs := slices.DeleteFunc(t.all, func(tab *nftables.Table) bool {
			return slices.ContainsFunc(t.ours, func(o *nftables.Table) bool { return same(o, tab) })
		})
		found, err = n.examine(ctx, c, tabs, chains, ps)
		found = append(found, n.examineLegacy(ps)...)
		return err
	})
	return found, err
}

// examine tells which of tables stand in the way of probes, or cannot be read.
func (n *Network) examine(ctx context.Context, c *conn, tabs []*nftables.Table, chains []*nftables.Chain, ps map[hook][]probe) (found []network.Obstacle, _ error) {
	for _, tab := range tabs {
		mine := slices.DeleteFunc(slices.Clone(chains), func(ch *nftables.Chain) bool { return !same(ch.Table, tab) })
		if !slices.ContainsFunc(mine, isBase) {
			continue
		}
		list, err := n.obstructs(ctx, c, tab, mine, ps)
		found = append(found, list...)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil {
			continue
		}
		name := familyName(tab.Family) + " " + tab.Name
		found = append(found, network.Obstacle{
			What: "table " + name, Err: err,
			Hint: "nft list table " + familyName(tab.Family) + " " + errkind.Quote(tab.Name),
		})
		if err := c.renew(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// isBase reports whether a chain is one of those by which other tables decide
// on what machines send and get.
func isBase(ch *nftables.Chain) bool {
	switch ch.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyINet, nftables.TableFamilyBridge:
	default:
		return false
	}
	return ch.Hooknum != nil && ch.Type == nftables.ChainTypeFilter &&
		(*ch.Hooknum == *nftables.ChainHookForward || *ch.Hooknum == *nftables.ChainHookInput)
}

func same(a, b *nftables.Table) bool { return a.Name == b.Name && a.Family == b.Family }

// probes returns the packets that should get through, by hook and whether it
// is the bridge family's.
func (n *Network) probes(c *conn) (map[hook][]probe, error) {
	links, err := c.links()
	if err != nil {
		return nil, err
	}
	routes, err := c.routes()
	if err != nil {
		return nil, err
	}
	gateway, err := n.gateway(c)
	if err != nil {
		return nil, err
	}
	// Any address of the internet; nothing is sent to it. Those that are meant
	// for examples some firewalls drop.
	guest, outside := gateway.Next(), netip.MustParseAddr("1.1.1.1")
	tap, tap2 := network.TapName(n.tag, "00000000"), network.TapName(n.tag, "00000001")
	const fresh, answer = expr.CtStateBitNEW, expr.CtStateBitESTABLISHED
	ps := map[hook][]probe{
		{true, *nftables.ChainHookForward}: {newProbe(tap, tap2, fresh, unix.IPPROTO_TCP, guest, guest.Next(), 443)},
	}
	fwd := hook{false, *nftables.ChainHookForward}
	for _, up := range uplinks(routes, links) {
		ps[fwd] = append(ps[fwd],
			newProbe(n.bridge, up, fresh, unix.IPPROTO_TCP, guest, outside, 443),
			newProbe(up, n.bridge, answer, unix.IPPROTO_TCP, outside, guest, 50001))
	}
	if callsIPTables() {
		ps[fwd] = append(ps[fwd], newProbe(n.bridge, n.bridge, fresh, unix.IPPROTO_TCP, guest, guest.Next(), 443))
	}
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		for _, bridged := range []bool{false, true} {
			in := hook{bridged, *nftables.ChainHookInput}
			from := n.bridge
			if bridged {
				from = tap
			}
			ps[in] = append(ps[in], newProbe(from, "", fresh, proto, guest, gateway, 53))
		}
	}
	return ps, nil
}

// A hook is where base chains are.
type hook struct {
	bridge bool // of the bridge family
	num    nftables.ChainHook
}

func hookOf(ch *nftables.Chain) hook {
	return hook{ch.Table.Family == nftables.TableFamilyBridge, *ch.Hooknum}
}

// gateway is the bridge's address, or the one that it would probably have.
func (n *Network) gateway(c *conn) (netip.Addr, error) {
	links, err := c.links()
	if err != nil {
		return netip.Addr{}, err
	}
	if l := links[n.bridge]; l != nil {
		addrs, err := c.addrs(l)
		if err != nil {
			return netip.Addr{}, err
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok {
				return ip, nil
			}
		}
	}
	for p := range network.Candidates(n.tag) {
		return network.Gateway(p), nil
	}
	panic("internal error: no candidates")
}

// callsIPTables reports whether br_netfilter hands frames between taps to the
// hooks of IPv4.
func callsIPTables() bool {
	data, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && strings.TrimSpace(string(data)) != "0"
}

// obstructs tells which chains of a table drop one of the probes of their
// hook. After an error it is those that were found before.
func (n *Network) obstructs(ctx context.Context, c *conn, tab *nftables.Table, chains []*nftables.Chain, ps map[hook][]probe) (found []network.Obstacle, err error) {
	w, err := n.walk(ctx, c, tab, chains)
	if err != nil {
		return nil, err
	}
	for _, ch := range chains {
		if !isBase(ch) {
			continue
		}
		why := w.drops(ch, ps[hookOf(ch)])
		if w.err != nil {
			return found, w.err
		}
		if why != "" {
			found = append(found, network.Obstacle{
				What: fmt.Sprintf("table %s %s, chain %s (%s)", familyName(tab.Family), tab.Name, ch.Name, why),
				Hint: n.hint(ch, chains), Names: *ch.Hooknum == *nftables.ChainHookInput,
			})
		}
	}
	return found, nil
}

// drops returns how a base chain drops one of probes, empty if it drops none.
func (w *walk) drops(base *nftables.Chain, ps []probe) string {
	w.seen = 0
	for _, p := range ps {
		switch w.chain(base.Name, p, 0) {
		case dropped:
			return "a rule drops"
		case next:
			if base.Policy != nil && *base.Policy == nftables.ChainPolicyDrop {
				return "policy drop"
			}
		}
	}
	return ""
}

// walk reads the chains of a table. Docker's counts as open unless it holds our
// rules already: then what stands before them counts, too.
func (n *Network) walk(ctx context.Context, c *conn, t *nftables.Table, chains []*nftables.Chain) (*walk, error) {
	w := &walk{rules: map[string][]*nftables.Rule{}}
	for _, ch := range chains {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		rules, err := c.nft.GetRules(t, ch)
		if err != nil {
			return nil, fmt.Errorf("read chain %s: %w", ch.Name, err)
		}
		w.rules[ch.Name] = rules
	}
	if t.Family == nftables.TableFamilyIPv4 && t.Name == dockerTable && len(n.ours(w.rules[dockerChain])) < 2 {
		w.open = dockerChain // Apply opens it
	}
	w.set = func(name string) (set, bool, error) { return c.set(ctx, t, name) }
	return w, nil
}

// set reads a set of single values, or a map of them to verdicts; of another
// kind it is not ok.
func (c *conn) set(ctx context.Context, t *nftables.Table, name string) (_ set, ok bool, err error) {
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	s, err := c.nft.GetSetByName(t, name)
	if err != nil {
		return nil, false, fmt.Errorf("read set %s: %w", name, err)
	}
	if s.Interval {
		return nil, false, nil
	}
	elements, err := c.nft.GetSetElements(s)
	if err != nil {
		return nil, false, fmt.Errorf("read set %s: %w", name, err)
	}
	values := make(set, len(elements))
	for _, e := range elements {
		var v *expr.Verdict
		if s.IsMap {
			v = verdictOf(e.Val)
		}
		values[string(e.Key)] = v
	}
	return values, true, nil
}

// verdictOf is a map's verdict as the library hands it on: the kernel's
// attributes NFTA_VERDICT_CODE and, of 12 bytes on, NFTA_VERDICT_CHAIN.
func verdictOf(val []byte) *expr.Verdict {
	v := &expr.Verdict{Kind: expr.VerdictContinue}
	if len(val) >= 8 {
		v.Kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(val[4:])))
	}
	if len(val) > 12 {
		v.Chain = cstring(val[12:])
	}
	return v
}

// hint returns the line that has a chain let machines through: by the tool
// whose rules they are, if it is known.
func (n *Network) hint(base *nftables.Chain, chains []*nftables.Chain) string {
	forward := *base.Hooknum == *nftables.ChainHookForward
	switch {
	case base.Table.Name == "firewalld":
		add := "--zone=trusted --add-interface=" + n.bridge
		return "firewall-cmd " + add + " && firewall-cmd --permanent " + add
	case slices.ContainsFunc(chains, func(ch *nftables.Chain) bool {
		return same(ch.Table, base.Table) && isUFW(ch.Name)
	}):
		return n.ufwHint(forward)
	}
	link := n.bridge
	if base.Table.Family == nftables.TableFamilyBridge {
		link = network.TapName(n.tag, "") + "*"
	}
	rule := fmt.Sprintf("nft insert rule %s %s %s", familyName(base.Table.Family), base.Table.Name, base.Name)
	in := fmt.Sprintf("%s iifname %q accept", rule, link)
	if !forward {
		return in
	}
	return fmt.Sprintf("%s && %s oifname %q accept", in, rule, link)
}

// isUFW reports whether a chain is one of those by which ufw is known.
func isUFW(chain string) bool { return strings.HasPrefix(chain, "ufw-before-") }

func (n *Network) ufwHint(forward bool) string {
	if forward {
		return fmt.Sprintf("ufw route allow in on %s && ufw route allow out on %s", n.bridge, n.bridge)
	}
	return "ufw allow in on " + n.bridge
}
