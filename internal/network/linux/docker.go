package linux

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// Docker drops what it does not know at the forward hook, and offers a chain
// for others' rules that it goes through first and never empties.
const (
	dockerTable = "filter" // of family ip
	dockerChain = "DOCKER-USER"
)

// tagged is the comment that our rules in others' chains have.
func (n *Network) tagged() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, "banger-"+n.tag)
}

// openDockerUser has Docker's chain let machines through, if there is one and
// it does not already. That it cannot be changed is no reason not to start a
// machine: it is an obstacle, and told as such.
func (n *Network) openDockerUser(c *conn, t *tables) error {
	chain, rules, err := n.dockerRules(c, t)
	if err == nil && chain != nil && len(rules) != 2 {
		err = n.insertDockerRules(c, chain, rules)
	}
	if err != nil {
		n.log.Warn("rules for machines in Docker's chain", "chain", dockerChain, "err", err)
		return c.renew()
	}
	return nil
}

func (n *Network) insertDockerRules(c *conn, chain *nftables.Chain, old []*nftables.Rule) error {
	for _, r := range old {
		if err := c.nft.DelRule(r); err != nil {
			return err
		}
	}
	for _, match := range []words{oif(n.bridge), iif(n.bridge)} { // the last stands first
		c.nft.InsertRule(&nftables.Rule{
			Table: chain.Table, Chain: chain, UserData: n.tagged(),
			Exprs: cat(match, words{&expr.Counter{}}, accept()),
		})
	}
	return c.nft.Flush()
}

// closeDockerUser takes our rules out of Docker's chain.
func (n *Network) closeDockerUser(c *conn, t *tables) error {
	_, rules, err := n.dockerRules(c, t)
	for _, r := range rules {
		err = errors.Join(err, c.nft.DelRule(r))
	}
	if err == nil {
		err = c.nft.Flush()
	}
	if err := c.unlessGone(err); err != nil {
		return fmt.Errorf("take rules out of chain %s: %w", dockerChain, err)
	}
	return nil
}

// dockerRules returns Docker's chain, nil if there is none, and what it has of
// our rules.
func (n *Network) dockerRules(c *conn, t *tables) (*nftables.Chain, []*nftables.Rule, error) {
	chain, err := c.dockerUser(t)
	if chain == nil || err != nil {
		return nil, nil, err
	}
	all, err := c.nft.GetRules(chain.Table, chain)
	if err != nil {
		return nil, nil, err
	}
	return chain, n.ours(all), nil
}

// ours are those of the rules of a chain that this daemon put there.
func (n *Network) ours(rules []*nftables.Rule) []*nftables.Rule {
	return slices.DeleteFunc(slices.Clone(rules), func(r *nftables.Rule) bool { return !bytes.Equal(r.UserData, n.tagged()) })
}

// dockerUser returns Docker's chain, nil if there is none.
func (c *conn) dockerUser(t *tables) (*nftables.Chain, error) {
	for _, tab := range t.all {
		if tab.Family != nftables.TableFamilyIPv4 || tab.Name != dockerTable {
			continue
		}
		chains, err := c.nft.ListChainsOfTableFamily(tab.Family)
		if err != nil {
			return nil, err
		}
		for _, ch := range chains {
			if ch.Table.Name == dockerTable && ch.Name == dockerChain {
				return ch, nil
			}
		}
	}
	return nil, nil
}
