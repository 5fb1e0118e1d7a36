package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/network"
)

// Check looks whether the host has what Apply needs; see [network.Network]. Rules
// are tried until they were taken once: taking a transaction back costs the kernel
// a grace period, and machines are made every moment.
func (n *Network) Check(context.Context) error {
	if os.Geteuid() != 0 {
		return errkind.WithHint(errkind.New(errkind.Host, "bridges and taps need root"), "sudo banger daemon start")
	}
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", tunDevice, hostLacks(err, "tun"))
	}
	unix.Close(fd)
	if n.tried.Load() {
		return nil
	}
	c, err := open()
	if err != nil {
		return errkind.Wrap(errkind.Host, err)
	}
	defer c.close()
	err = n.checkRules(c)
	n.tried.Store(err == nil)
	return err
}

// checkRules has the kernel look at all rules without taking any: the
// transaction ends with what cannot be done, the deletion of a table that is
// not there, so that nothing of it is.
func (n *Network) checkRules(c *conn) error {
	if _, err := n.tables(c); err != nil {
		return err
	}
	subnet := netip.MustParsePrefix("192.0.2.0/24") // for examples (RFC 5737)
	w := network.Want{Subnet: subnet, Ports: []network.Port{{ID: "00000000", IP: network.Gateway(subnet).Next()}}}
	name := tablePrefix + "check_" + n.tag
	if err := n.write(c.nft, name, w, nil); err != nil {
		return err
	}
	c.nft.DelTable(&nftables.Table{Name: name + "_none", Family: nftables.TableFamilyINet})
	err := c.nft.Flush()
	if errs := leaves(err); len(errs) == 1 && errors.Is(errs[0], unix.ENOENT) {
		return nil
	}
	if err == nil {
		return errors.New("internal error: the kernel took rules that were only to be tried")
	}
	return fmt.Errorf("try rules: %w", hostLacks(err, "nf_tables"))
}

// leaves returns the errors that err was joined of.
func leaves(err error) (all []error) {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, e := range e.Unwrap() {
			all = append(all, leaves(e)...)
		}
	case interface{ Unwrap() error }:
		return leaves(e.Unwrap())
	case error:
		all = append(all, err)
	}
	return all
}

// hostLacks gives an error that the kernel has when it lacks a module, or one
// of more, the kind and the hint for that.
func hostLacks(err error, module string, more ...error) error {
	lacking := append(more, unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT)
	if slices.ContainsFunc(lacking, func(e error) bool { return errors.Is(err, e) }) {
		return errkind.WithHint(errkind.Wrap(errkind.Host, err), "modprobe "+module)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return errkind.Wrap(errkind.Host, err)
	}
	return err
}
