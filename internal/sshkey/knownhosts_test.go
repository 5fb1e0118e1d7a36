package sshkey

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func fileOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func host(n int) Host {
	return Host{ID: fmt.Sprintf("id%d", n), Name: fmt.Sprintf("m%d.vm", n), Token: fmt.Sprintf("token%d", n)}
}

func TestKnownHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(path, []byte("old.vm ssh-ed25519 AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := NewKnownHosts(path)
	if err := k.Write([]Host{host(2), host(1)}); err != nil {
		t.Fatal(err)
	}
	key, err := HostKey("token1")
	if err != nil {
		t.Fatal(err)
	}
	// ssh-keygen finds what OpenSSH would find.
	find := func(name string) string {
		out, _ := exec.Command("ssh-keygen", "-F", name, "-f", path).Output() // nothing: 1
		return string(out)
	}
	if got := find("m1.vm"); !strings.Contains(got, "m1.vm "+key.Public("")+"\n") {
		t.Errorf("ssh-keygen found %q", got)
	}
	if got := find("old.vm"); got != "" {
		t.Errorf("an old line stayed: %q", got)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o644 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}

	// A successor of the same name before the first is gone.
	next := Host{ID: "id9", Name: "m1.vm", Token: "token9"}
	if err := k.Add(next); err != nil {
		t.Fatal(err)
	}
	if err := k.Remove("id1"); err != nil {
		t.Fatal(err)
	}
	key9, err := HostKey("token9")
	if err != nil {
		t.Fatal(err)
	}
	if got := find("m1.vm"); !strings.Contains(got, key9.Public("")) || strings.Contains(got, key.Public("")) {
		t.Errorf("after the successor: %q", got)
	}
	for _, id := range []string{"id9", "id2", "id2", "never"} {
		if err := k.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	if got := fileOf(t, path); got != knownHostsHead {
		t.Errorf("empty, it holds %q", got)
	}
}

func TestKnownHostsRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known_hosts")
	k := NewKnownHosts(path)
	for _, name := range []string{"", "a b", "a\nb", "*.vm", "a,b", "|1|", "#x", "@revoked"} {
		if err := k.Add(Host{ID: "x", Name: name, Token: "t"}); err == nil {
			t.Errorf("%q became a known host", name)
		}
	}
	if err := k.Write([]Host{{ID: "x", Name: "web.vm"}}); err == nil {
		t.Error("a host without a token")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}

// Changes at the same time are all there in the end, and what could not be
// written is with the next.
func TestKnownHostsConcurrently(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "known_hosts")
	k := NewKnownHosts(path)
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := k.Write(nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := k.Add(host(100)); err == nil {
		t.Fatal("written into no directory")
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	if err := k.Add(host(101)); err != nil {
		t.Fatal(err)
	}
	if text := fileOf(t, path); !strings.Contains(text, "m100.vm ") || !strings.Contains(text, "m101.vm ") {
		t.Errorf("after a failure the file holds\n%s", text)
	}
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if err := k.Add(host(n)); err != nil {
				t.Error(err)
			}
			if n%2 == 0 {
				if err := k.Remove(host(n).ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	text := fileOf(t, path)
	for n := range 20 {
		if got, want := strings.Contains(text, fmt.Sprintf("m%d.vm ", n)), n%2 == 1; got != want {
			t.Errorf("m%d.vm is there: %v, want %v", n, got, want)
		}
	}
	if !strings.Contains(text, "m100.vm ") {
		t.Error("what could not be written was forgotten")
	}
}

func BenchmarkKnownHosts(b *testing.B) {
	for _, n := range []int{10, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := NewKnownHosts(filepath.Join(b.TempDir(), "known_hosts"))
			var hosts []Host
			for i := range n {
				hosts = append(hosts, host(i))
			}
			if err := k.Write(hosts); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := k.Add(host(n)); err != nil {
					b.Fatal(err)
				}
				if err := k.Remove(host(n).ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
