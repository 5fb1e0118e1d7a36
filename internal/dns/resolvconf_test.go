package dns_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/dns"
)

func TestResolvers(t *testing.T) {
	dir := t.TempDir()
	conf, resolved := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "resolved")
	if err := os.WriteFile(resolved, []byte("nameserver 192.0.2.53\nnameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text, resolved, want string
	}{
		{"nameserver 192.0.2.1\n", resolved, "[192.0.2.1]"},
		{"# us\nsearch example.org\nnameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n", resolved, "[192.0.2.1 192.0.2.2]"},
		{"nameserver 127.0.0.1\nnameserver ::1\n", resolved, "[]"},
		{"nameserver 169.254.169.254\nnameserver 0.0.0.0\nnameserver 224.0.0.1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n", resolved, "[]"},
		{"nameserver ::ffff:192.0.2.7\n", resolved, "[192.0.2.7]"},
		{"nameserver example.org\nnameserver\nnameserver 192.0.2.9 # here\n", resolved, "[192.0.2.9]"},
		{"nameserver 127.0.0.53\noptions edns0 trust-ad\n", resolved, "[192.0.2.53]"},
		{"nameserver 127.0.0.54\n", resolved, "[192.0.2.53]"},
		{"nameserver 127.0.0.53\n", filepath.Join(dir, "none"), "[]"},
		{"", resolved, "[]"},
	} {
		if err := os.WriteFile(conf, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(dns.ResolversOf(conf, tt.resolved)); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
		if tt.resolved == resolved && fmt.Sprint(dns.Resolvers(conf)) != tt.want && tt.want != "[192.0.2.53]" {
			t.Errorf("Resolvers of %q = %s", tt.text, dns.Resolvers(conf))
		}
	}
	if got := dns.Resolvers(filepath.Join(dir, "none")); len(got) != 0 {
		t.Errorf("without a file: %s", got)
	}
}
