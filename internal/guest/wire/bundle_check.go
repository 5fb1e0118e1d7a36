package wire

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strings"
	"unicode/utf8"
)

// check returns what is wrong with b, all of it.
func (b Bundle) check() error {
	errs := []error{
		checkHex("machine id", b.MachineID),
		checkHex("token", b.Token),
		b.Root.check(false),
	}
	if !validLabel(b.Hostname) {
		errs = append(errs, fmt.Errorf("host name %q is no DNS label", b.Hostname))
	}
	if b.Root.ReadOnly || b.Root.Fill {
		errs = append(errs, errors.New("the root disk can be neither read-only nor filled"))
	}
	for _, m := range b.Mounts {
		errs = append(errs, m.check(true))
	}
	if b.Init != "" && !validPath(b.Init) {
		errs = append(errs, fmt.Errorf("init %q is no clean absolute path", b.Init))
	}
	for _, e := range b.Env {
		name, _, ok := strings.Cut(e, "=")
		// JSON would change what is not UTF-8 without a word.
		if !ok || name == "" || strings.ContainsRune(e, 0) || !utf8.ValidString(e) {
			errs = append(errs, fmt.Errorf("environment %q is not NAME=VALUE in UTF-8", name))
		}
	}
	errs = append(errs, b.checkNetwork(), b.checkSSH(), b.checkTemplate())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("boot bundle: %w", err)
	}
	return nil
}

func (b Bundle) checkNetwork() error {
	var errs []error
	for _, n := range b.NICs {
		errs = append(errs, n.check())
	}
	for name, addr := range b.Hosts {
		if !validHost(name) {
			errs = append(errs, fmt.Errorf("host name %q cannot stand in a hosts file", name))
		}
		errs = append(errs, checkAddr("host "+name, addr))
	}
	for _, r := range b.Resolvers {
		errs = append(errs, checkAddr("resolver", r))
	}
	return errors.Join(errs...)
}

func (b Bundle) checkSSH() error {
	var errs []error
	for _, k := range b.AuthorizedKeys {
		if k == "" || strings.ContainsAny(k, "\n\r\x00") {
			errs = append(errs, errors.New("an authorised key is not one line"))
		}
	}
	for name, content := range b.SSHHostKeys {
		if !ValidHostKeyName(name) || content == "" {
			errs = append(errs, fmt.Errorf("SSH host key %q has a wrong name or no content", name))
		}
	}
	return errors.Join(errs...)
}

// checkTemplate refuses what all machines of a template would share.
func (b Bundle) checkTemplate() error {
	if !b.Template {
		return nil
	}
	var errs []error
	for _, n := range b.NICs {
		if len(n.Addrs) > 0 || n.Gateway != "" {
			errs = append(errs, fmt.Errorf("NIC %s of a template has an address", n.MAC))
		}
	}
	if len(b.AuthorizedKeys) > 0 || len(b.SSHHostKeys) > 0 {
		errs = append(errs, errors.New("a template has SSH keys"))
	}
	return errors.Join(errs...)
}

// maxPosition is the highest place of a disk: those have names of one letter.
const maxPosition = 26

func (m Mount) check(target bool) error {
	if m.Serial == "" || len(m.Serial) > 20 || !printable(m.Serial) {
		return fmt.Errorf("disk serial %q is not 1 to 20 printable characters", m.Serial)
	}
	if m.Position < 0 || m.Position > maxPosition {
		return fmt.Errorf("disk %s: position %d is not 0 to %d", m.Serial, m.Position, maxPosition)
	}
	if m.FSType == "" || !printable(m.FSType) {
		return fmt.Errorf("disk %s: file system type %q", m.Serial, m.FSType)
	}
	if target && (!validPath(m.Target) || m.Target == "/") {
		return fmt.Errorf("disk %s: target %q is no clean absolute path", m.Serial, m.Target)
	}
	if !target && m.Target != "" {
		return fmt.Errorf("disk %s: the root disk has a target", m.Serial)
	}
	if m.SizeBytes < 0 {
		return fmt.Errorf("disk %s: %d bytes", m.Serial, m.SizeBytes)
	}
	if m.Fill && m.ReadOnly {
		return fmt.Errorf("disk %s: read-only and to be filled", m.Serial)
	}
	return nil
}

func (n NIC) check() error {
	var errs []error
	if _, err := net.ParseMAC(n.MAC); err != nil {
		errs = append(errs, fmt.Errorf("NIC: %w", err))
	}
	for _, a := range n.Addrs {
		if _, err := netip.ParsePrefix(a); err != nil {
			errs = append(errs, fmt.Errorf("NIC %s: %w", n.MAC, err))
		}
	}
	if n.Gateway != "" {
		errs = append(errs, checkAddr("gateway", n.Gateway))
	}
	return errors.Join(errs...)
}

// ValidHostKeyName reports whether name is one by which sshd finds a host key
// (sshd_config(5)), private or public; it has no directory in it.
func ValidHostKeyName(name string) bool {
	kind, ok := strings.CutPrefix(strings.TrimSuffix(name, ".pub"), "ssh_host_")
	if !ok {
		return false
	}
	kind, ok = strings.CutSuffix(kind, "_key")
	return ok && kind != "" && strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func checkHex(what, s string) error {
	if len(s) != 32 || strings.Trim(s, "0123456789abcdef") != "" {
		// The value is not shown: the token is a secret.
		return fmt.Errorf("%s is not 32 hexadecimal digits in lower case", what)
	}
	return nil
}

func checkAddr(what, s string) error {
	if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
		return fmt.Errorf("%s: %q is no IP address", what, s)
	}
	return nil
}

// validPath reports whether p is absolute and in its shortest form.
func validPath(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// ValidHostname reports whether s can be a machine's name: a DNS label.
func ValidHostname(s string) bool { return validLabel(s) }

// validLabel reports whether s is one label of a host name (RFC 1123), in
// lower case.
func validLabel(s string) bool {
	return len(s) > 0 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// validHost reports whether s is labels with dots between them.
func validHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
