package agent

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/guest/wire"
)

func identityBundle() wire.Bundle {
	return wire.Bundle{
		Hostname:       "web",
		MachineID:      strings.Repeat("0a", 16),
		Token:          strings.Repeat("f1", 16),
		Root:           wire.Mount{Serial: "root", FSType: "ext4"},
		Hosts:          map[string]string{"db.vm": "10.0.0.3", "api.vm": "10.0.0.2"},
		Resolvers:      []string{"10.0.0.1", "9.9.9.9"},
		AuthorizedKeys: []string{"ssh-ed25519 AAAA me"},
		SSHHostKeys:    map[string]string{"ssh_host_ed25519_key": "key\n", "ssh_host_ed25519_key.pub": "pub\n"},
	}
}

// image makes what a distribution's image has in /etc.
func image(t *testing.T) (*tree, string) {
	t.Helper()
	tr, root, _ := newTree(t)
	put(t, root, "etc/hosts", "127.0.0.1 localhost\n")
	put(t, root, "etc/machine-id", "uninitialized\n")
	put(t, root, "etc/ssh/ssh_host_rsa_key", "known to everybody\n")
	put(t, root, "etc/ssh/sshd_config", "PermitRootLogin yes\n")
	symlink(t, "/run/systemd/resolve/stub-resolv.conf", root+"/etc/resolv.conf")
	return tr, root
}

func TestSetIdentity(t *testing.T) {
	tr, root := image(t)
	if err := setIdentity(tr, identityBundle()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"etc/hostname":   "web\n",
		"etc/machine-id": strings.Repeat("0a", 16) + "\n",
		"etc/hosts": "127.0.0.1 localhost\n" + blockBegin + "\n127.0.1.1\tweb.vm web\n" +
			"10.0.0.2\tapi.vm\n10.0.0.3\tdb.vm\n" + blockEnd + "\n",
		"etc/resolv.conf":                  "nameserver 10.0.0.1\nnameserver 9.9.9.9\n",
		"etc/ssh/ssh_host_rsa_key":         "-",
		"etc/ssh/ssh_host_ed25519_key":     "key\n",
		"etc/ssh/ssh_host_ed25519_key.pub": "pub\n",
		"etc/ssh/sshd_config":              "PermitRootLogin yes\n",
		"root/.ssh/authorized_keys":        blockBegin + "\nssh-ed25519 AAAA me\n" + blockEnd + "\n",
	}
	got := map[string]string{}
	for name := range want {
		got[name] = content(t, root+"/"+name)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, mode := range map[string]os.FileMode{
		"etc/hostname": 0o644, "etc/machine-id": 0o444, "etc/ssh/ssh_host_ed25519_key": 0o600,
		"etc/ssh/ssh_host_ed25519_key.pub": 0o644, "root/.ssh": 0o700 | os.ModeDir, "root/.ssh/authorized_keys": 0o600,
	} {
		if fi, err := os.Lstat(root + "/" + name); err != nil || fi.Mode() != mode {
			t.Errorf("%s: mode %v (%v), want %v", name, fi.Mode(), err, mode)
		}
	}
}

// TestSetIdentityAgain is the second boot of a machine whose user changed
// files that the daemon writes to.
func TestSetIdentityAgain(t *testing.T) {
	tr, root := image(t)
	b := identityBundle()
	if err := setIdentity(tr, b); err != nil {
		t.Fatal(err)
	}
	add := func(name, text string) {
		t.Helper()
		put(t, root, name, strings.TrimPrefix(content(t, root+"/"+name), "-")+text)
	}
	add("etc/hosts", "10.9.9.9 mine\n")
	add("root/.ssh/authorized_keys", "ssh-ed25519 BBBB friend\n")
	add("etc/ssh/ssh_host_rsa_key", "the user's own\n")
	b.Hosts, b.AuthorizedKeys = nil, []string{"ssh-ed25519 CCCC new"}
	for range 2 {
		if err := setIdentity(tr, b); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"etc/hosts":                 "127.0.0.1 localhost\n" + blockBegin + "\n127.0.1.1\tweb.vm web\n" + blockEnd + "\n10.9.9.9 mine\n",
		"root/.ssh/authorized_keys": blockBegin + "\nssh-ed25519 CCCC new\n" + blockEnd + "\nssh-ed25519 BBBB friend\n",
		"etc/ssh/ssh_host_rsa_key":  "the user's own\n",
	} {
		if d := cmp.Diff(want, content(t, root+"/"+name)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestSetIdentityBare is an image with nothing in it, and a bundle with only
// what it must have.
func TestSetIdentityBare(t *testing.T) {
	tr, root, _ := newTree(t)
	b := identityBundle()
	b.Hosts, b.Resolvers, b.AuthorizedKeys, b.SSHHostKeys = nil, nil, nil, nil
	if err := setIdentity(tr, b); err != nil {
		t.Fatal(err)
	}
	if got := content(t, root+"/etc/hosts"); !strings.HasPrefix(got, "127.0.0.1\tlocalhost\n") {
		t.Errorf("hosts is %q", got)
	}
	for _, name := range []string{"etc/resolv.conf", "etc/ssh", "root"} {
		if _, err := os.Lstat(root + "/" + name); !os.IsNotExist(err) {
			t.Errorf("%s was made (%v)", name, err)
		}
	}
}

func TestWithBlock(t *testing.T) {
	block := blockBegin + "\nnew\n" + blockEnd + "\n"
	for name, tt := range map[string]struct{ in, want string }{
		"empty":           {"", block},
		"no newline":      {"a", "a\n" + block},
		"in the middle":   {"a\n" + blockBegin + "\nold\nolder\n" + blockEnd + "\nb\n", "a\n" + block + "b\n"},
		"at the start":    {blockBegin + "\n" + blockEnd + "\nb", block + "b"},
		"end, no newline": {blockBegin + "\nx\n" + blockEnd, block},
		"begin alone":     {blockBegin + "\nx\n", blockBegin + "\nx\n" + block},
		"end alone":       {blockEnd + "\nx\n", blockEnd + "\nx\n" + block},
		"inside a line":   {"# " + blockBegin + "\nx\n", "# " + blockBegin + "\nx\n" + block},
	} {
		if d := cmp.Diff(tt.want, string(withBlock([]byte(tt.in), []string{"new"}))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func FuzzWithBlock(f *testing.F) {
	f.Add([]byte("a\n" + blockBegin + "\nold\n" + blockEnd + "\nb\n"))
	f.Add([]byte(blockBegin + "\n"))
	f.Add([]byte("\n\n" + blockEnd))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := []string{"one", "two"}
		once := withBlock(text, lines)
		if !bytes.Contains(once, []byte(blockBegin+"\none\ntwo\n"+blockEnd+"\n")) {
			t.Fatalf("no block in %q", once)
		}
		// What is a block of its own in text may be taken for ours, but
		// every boot makes the same of it.
		if twice := withBlock(once, lines); len(twice) > len(once) {
			t.Fatalf("%q grew to %q", once, twice)
		}
	})
}
