package sshkey

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"banger/internal/atomicfile"
)

// knownHostsHead tells whoever opens the file what it is.
const knownHostsHead = "# The host keys of banger's machines. The daemon rewrites this file.\n"

// A KnownHosts is the file in which SSH clients look up the host keys of a
// daemon's machines (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). It stands whole
// at every moment. Its methods may be called concurrently.
//
// Machines are told apart by their id and not by their name: one that is being
// deleted may have a successor of its name already.
type KnownHosts struct {
	path string

	mu    sync.Mutex        // one write of the file at a time
	lines map[string]string // by id; guarded by mu
}

// NewKnownHosts returns the file at path, about which nothing is known and
// which is left alone until [KnownHosts.Write].
func NewKnownHosts(path string) *KnownHosts {
	return &KnownHosts{path: path, lines: make(map[string]string)}
}

// A Host is a machine as clients know it.
type Host struct {
	ID    string
	Name  string // by which clients reach it, as in "web.vm"
	Token string // of which its host key is derived; see [HostKey]
}

// Write makes the file hold the given machines and no others, whatever it held.
func (k *KnownHosts) Write(hosts []Host) error {
	lines := make(map[string]string, len(hosts))
	for _, h := range hosts {
		line, err := h.line()
		if err != nil {
			return err
		}
		lines[h.ID] = line
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lines = lines
	return k.write()
}

// Add adds a machine. It may be added again. On an error clients may not know
// it yet; the next change of the file makes up for that.
func (k *KnownHosts) Add(h Host) error {
	line, err := h.line()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lines[h.ID] == line {
		return nil
	}
	k.lines[h.ID] = line
	return k.write()
}

// Remove removes the machine with this id, and succeeds if there is none. On an
// error it may still stand in the file, until the next change.
func (k *KnownHosts) Remove(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.lines[id]; !ok {
		return nil
	}
	delete(k.lines, id)
	return k.write()
}

// write writes the file. Preconditions: k.mu is held.
func (k *KnownHosts) write() error {
	var text strings.Builder
	text.WriteString(knownHostsHead)
	for _, line := range slices.Sorted(maps.Values(k.lines)) {
		text.WriteString(line)
	}
	// Not synced: the next daemon writes it anew.
	if err := atomicfile.Replace(k.path, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("write known hosts: %w", err)
	}
	return nil
}

func (h Host) line() (string, error) {
	if h.Name == "" || strings.ContainsAny(h.Name, " \t\r\n,*?![]|#@") {
		return "", fmt.Errorf("known hosts: %q cannot be a host's name there", h.Name)
	}
	key, err := HostKey(h.Token)
	if err != nil {
		return "", fmt.Errorf("known host %s: %w", h.Name, err)
	}
	return h.Name + " " + key.Public("") + "\n", nil
}
