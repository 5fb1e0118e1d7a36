package daemon_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/daemon/daemontest"
	"banger/internal/sshkey"
)

// Clients find the key that machines let in, and machines' host keys, where
// Status says, from before a machine's first start until it is deleted. Both
// survive the daemon, and come back if they are lost.
func TestSSHFiles(t *testing.T) {
	w, p := daemontest.NewWorld(t), daemontest.NewPaths(t)
	c, stop := open(t, w, p)
	s, err := c.Daemon.Status(context.Background(), connect.NewRequest(&api.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	identity, known := s.Msg.SshIdentityPath, s.Msg.SshKnownHostsPath
	key := read(identity)
	if _, err := sshkey.Parse([]byte(key)); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(p.SSH()); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("its directory: %v, %v", fi, err)
	}
	create(t, c, "web")
	create(t, c, "db")
	line := read(known)
	if strings.Count(line, "\nweb.vm ssh-ed25519 ") != 1 || strings.Count(line, "\ndb.vm ssh-ed25519 ") != 1 {
		t.Errorf("known hosts: %s", line)
	}
	stop()
	if err := os.Remove(known); err != nil {
		t.Fatal(err)
	}
	c, stop = open(t, w, p)
	if got := read(known); got != line {
		t.Errorf("the next daemon knows %q, want %q", got, line)
	}
	if got := read(identity); got != key {
		t.Error("the next daemon has another key")
	}
	if _, err := c.VM.Delete(context.Background(), connect.NewRequest(&api.DeleteRequest{Vm: "db"})); err != nil {
		t.Fatal(err)
	}
	if got := read(known); strings.Contains(got, "db.vm") || !strings.Contains(got, "web.vm") {
		t.Errorf("after a deletion: %q", got)
	}
	stop()
	if err := os.WriteFile(identity, []byte("garbled"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stop = open(t, w, p)
	defer stop()
	if _, err := sshkey.Parse([]byte(read(identity))); err != nil {
		t.Errorf("a garbled key stayed: %v", err)
	}
}
