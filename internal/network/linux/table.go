package linux

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"banger/internal/network"
)

const (
	tablePrefix = "banger_"
	// markSet is a set that every table of banger's has, with the name of the
	// daemon's bridge in it: a table of the same name without it is somebody
	// else's.
	markSet = "banger"
	// notedSet holds the names of the uplinks that banger switched on.
	notedSet = "forwarding"
	// maxElements is how many elements go into one message, in which an
	// attribute has at most 64 KiB.
	maxElements = 500
)

// tables is what there is of nftables' tables.
type tables struct {
	all     []*nftables.Table
	ours    []*nftables.Table
	foreign []string // "family name" of tables of our name that are somebody else's
	noted   []string // uplinks that our table notes
	others  []string // uplinks that other daemons' tables note
}

func (n *Network) tableName() string { return tablePrefix + n.tag }

// tables reads what decides on tables and forwarding.
func (n *Network) tables(c *conn) (*tables, error) {
	all, err := c.nft.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables' tables: %w", hostLacks(err, "nf_tables", unix.EINVAL))
	}
	t := &tables{all: all}
	for _, tab := range all {
		if tab.Family != nftables.TableFamilyINet && tab.Family != nftables.TableFamilyBridge {
			continue
		}
		tag, ok := strings.CutPrefix(tab.Name, tablePrefix)
		if !ok {
			continue
		}
		mark, err := c.names(tab, markSet)
		if err != nil {
			return nil, err
		}
		marked := slices.Contains(mark, network.BridgeName(tag))
		if err := t.sort(c, tab, marked, tag == n.tag); err != nil {
			return nil, err
		}
	}
	for _, u := range n.noted { // also if somebody has flushed the table
		if !slices.Contains(t.noted, u) {
			t.noted = append(t.noted, u)
		}
	}
	return t, nil
}

// sort puts a table with a name like ours where it belongs.
func (t *tables) sort(c *conn, tab *nftables.Table, marked, ours bool) error {
	if !marked {
		if ours {
			t.foreign = append(t.foreign, familyName(tab.Family)+" "+tab.Name)
		}
		return nil
	}
	var noted []string
	var err error
	if tab.Family == nftables.TableFamilyINet {
		if noted, err = c.names(tab, notedSet); err != nil {
			return err
		}
	}
	if ours {
		t.ours = append(t.ours, tab)
		t.noted = append(t.noted, noted...)
	} else {
		t.others = append(t.others, noted...)
	}
	return nil
}

// names returns the interface names in a set, none if there is no such set.
func (c *conn) names(t *nftables.Table, set string) ([]string, error) {
	s, err := c.nft.GetSetByName(t, set)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read set %s of table %s: %w", set, t.Name, err)
	}
	elements, err := c.nft.GetSetElements(s)
	if err != nil {
		return nil, fmt.Errorf("read set %s of table %s: %w", set, t.Name, err)
	}
	var names []string
	for _, e := range elements {
		name, _, _ := strings.Cut(string(e.Key), "\x00")
		names = append(names, name)
	}
	return names, nil
}

// replaceTables puts our two tables in the place of what is there of ours, all
// at once.
func (n *Network) replaceTables(c *conn, w network.Want, noted []string) error {
	if err := n.write(c.nft, n.tableName(), w, noted); err != nil {
		return err
	}
	if err := c.nft.Flush(); err != nil {
		return fmt.Errorf("replace the tables %s of nftables: %w", n.tableName(), hostLacks(err, "nf_tables"))
	}
	return nil
}

// write puts the transaction that makes our tables, under a name, into a
// connection.
func (n *Network) write(nft *nftables.Conn, name string, w network.Want, noted []string) error {
	frames := n.begin(nft, nftables.TableFamilyBridge, name)
	n.frameRules(frames, w.Ports)
	packets := n.begin(nft, nftables.TableFamilyINet, name)
	n.packetRules(packets, w.Subnet, noted)
	return errors.Join(frames.err, packets.err)
}

// deleteTables removes our tables.
func (n *Network) deleteTables(c *conn, t *tables) error {
	for _, tab := range t.ours {
		c.nft.DelTable(tab)
	}
	if err := c.unlessGone(c.nft.Flush()); err != nil {
		return fmt.Errorf("delete the tables %s of nftables: %w", n.tableName(), err)
	}
	return nil
}

// A table is one that is being written.
type table struct {
	nft  *nftables.Conn
	t    *nftables.Table
	sets uint32
	err  error // the first
}

// begin begins a table of ours, empty but for its mark, in the place of what
// is there.
func (n *Network) begin(nft *nftables.Conn, family nftables.TableFamily, name string) *table {
	t := &table{nft: nft, t: &nftables.Table{Name: name, Family: family}}
	nft.AddTable(t.t) // so that there is one to delete
	nft.DelTable(t.t)
	nft.AddTable(t.t)
	t.set(markSet, nftables.TypeIFName, [][]byte{ifname(n.bridge)})
	return t
}

// set adds a set with the elements that have the keys.
func (t *table) set(name string, key nftables.SetDatatype, keys [][]byte) *nftables.Set {
	t.sets++
	// The library's own numbers for sets are not safe for concurrent use.
	s := &nftables.Set{Table: t.t, ID: t.sets, Name: name, KeyType: key}
	if key.Name == nftables.TypeIFName.Name {
		s.KeyByteOrder = binaryutil.NativeEndian // for nft(8), which lists nothing else as a name
	}
	elements := make([]nftables.SetElement, len(keys))
	for i, k := range keys {
		elements[i].Key = k
	}
	t.note(t.nft.AddSet(s, nil))
	for part := range slices.Chunk(elements, maxElements) {
		t.note(t.nft.SetAddElements(s, part))
	}
	return s
}

func (t *table) chain(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return t.nft.AddChain(&nftables.Chain{Name: name, Table: t.t, Type: typ, Hooknum: hook, Priority: prio, Policy: &policy})
}

func (t *table) rule(c *nftables.Chain, parts ...words) {
	t.nft.AddRule(&nftables.Rule{Table: t.t, Chain: c, Exprs: cat(parts...)})
}

func (t *table) note(err error) {
	if t.err == nil {
		t.err = err
	}
}

// familyName is a family as nft(8) has it.
func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprint(byte(f))
}
