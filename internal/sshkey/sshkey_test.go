package sshkey

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

const token = "0123456789abcdef0123456789abcdef"

// What a host key is of must never change: clients would refuse every machine
// that is there already.
func TestHostKeyStays(t *testing.T) {
	const want = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx5kB5Ij2C7CzyOTf44KdJwvl/ilM/UscA6dplcqZ3J"
	for range 2 {
		k, err := HostKey(token)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Public(""); got != want {
			t.Errorf("HostKey is %s, want %s", got, want)
		}
	}
	other, err := HostKey(strings.Replace(token, "0", "1", 1))
	if err != nil || other.Public("") == want {
		t.Errorf("another token: %s, %v", other.Public(""), err)
	}
	if _, err := HostKey(""); err == nil {
		t.Error("a key without a token")
	}
}

// The real ssh-keygen finds the same key in what we write.
func TestOpenSSHReadsKeys(t *testing.T) {
	host, err := HostKey(token)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]Key{"host": host, "new": fresh} {
		text, err := k.Private("who it is")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("ssh-keygen", "-y", "-f", path).CombinedOutput()
		if got, want := strings.TrimSpace(string(out)), k.Public("who it is"); err != nil || got != want {
			t.Errorf("%s key: ssh-keygen says %q, %v, want %q", name, got, err, want)
		}
		if back, err := Parse(text); err != nil || !bytes.Equal(back.private, k.private) {
			t.Errorf("%s key: read back as %v, %v", name, back.Public(""), err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rsa")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rsa, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(k.private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "another kind": rsa, "a passphrase": pem.EncodeToMemory(locked), "noise": []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"),
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s was taken for a key", name)
		}
	}
}
