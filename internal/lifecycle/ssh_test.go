package lifecycle_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/guest/wire"
	"banger/internal/lifecycle"
	"banger/internal/sshkey"
)

// The host key that a guest is given is the one that clients know.
func TestHostKeyIsKnown(t *testing.T) {
	l := newLife(t)
	v := l.create("web", false)
	if _, err := l.Start(context.Background(), v.ID, nobody); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.paths.VM(string(v.ID)).Initrd())
	if err != nil {
		t.Fatal(err)
	}
	var b wire.Bundle
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	k, err := sshkey.Parse([]byte(b.SSHHostKeys["ssh_host_ed25519_key"]))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.SSHHostKeys["ssh_host_ed25519_key.pub"], k.Public("root@web")+"\n"; got != want {
		t.Errorf("the public half is %q, want %q", got, want)
	}
	known, err := os.ReadFile(filepath.Join(l.paths.State, "known_hosts"))
	if err != nil || !strings.Contains(string(known), "\nweb.vm "+k.Public("")+"\n") {
		t.Errorf("known hosts: %q, %v", known, err)
	}
}

// A machine that clients could not trust is not made; one that they need not
// know any more can go all the same.
func TestKnownHostsCannotBeWritten(t *testing.T) {
	l := newLife(t)
	old := l.create("old", false)
	path := filepath.Join(l.paths.State, "known_hosts")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := l.Create(context.Background(), lifecycle.Request{Name: "web"}, nobody)
	if err == nil || !strings.Contains(err.Error(), "known hosts") {
		t.Errorf("Create: %v", err)
	}
	if _, err := l.Delete(context.Background(), old.ID); err != nil {
		t.Errorf("Delete: %v", err)
	}
	records, err := l.store.List(context.Background())
	if err != nil || len(records) != 0 {
		t.Errorf("records %v, %v", records, err)
	}
	if dirs, err := os.ReadDir(l.paths.VMs()); err != nil || len(dirs) != 0 {
		t.Errorf("directories %v, %v", dirs, err)
	}
}
