package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctl is the file of a setting of a link, below /proc/sys/net. It is the one
// of the network namespace that the thread is in.
func sysctl(family, link, name string) string {
	return filepath.Join("/proc/sys/net", family, "conf", link, name)
}

// forwards reports whether packets that come in by a link are forwarded. Of
// "all" it is net.ipv4.ip_forward.
func forwards(link string) (bool, error) {
	data, err := os.ReadFile(sysctl("ipv4", link, "forwarding"))
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(string(data)) != "0", nil
}

func setForwarding(link string, on bool) error {
	if now, err := forwards(link); err == nil && now == on {
		return nil
	}
	value := "0"
	if on {
		value = "1"
	}
	return os.WriteFile(sysctl("ipv4", link, "forwarding"), []byte(value), 0)
}

// withoutIPv6 sees to it that a link has no IPv6: guests have none, and the
// host's own end must not be reachable by it. A kernel without IPv6 has no
// such file.
func withoutIPv6(link string) error {
	err := os.WriteFile(sysctl("ipv6", link, "disable_ipv6"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		if _, v6 := os.Stat("/proc/sys/net/ipv6"); errors.Is(v6, os.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("switch IPv6 off: %w", err)
	}
	return nil
}
