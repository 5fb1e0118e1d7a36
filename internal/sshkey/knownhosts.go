package sshkey

import (
	"errors"
	"fmt"
	"os"
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

	mu    sync.Mutex // one write of the file at a time
	lines []known    // guarded by mu
	whole bool       // the file holds them, and no others; guarded by mu
}

// known is the line of one machine.
type known struct{ id, line string }

// NewKnownHosts returns the file at path, about which nothing is known and
// which is left alone until [KnownHosts.Write].
func NewKnownHosts(path string) *KnownHosts {
	return &KnownHosts{path: path}
}

// A Host is a machine as clients know it.
type Host struct {
	ID    string
	Name  string // by which clients reach it, as in "web.vm"
	Token string // of which its host key is derived; see [HostKey]
}

// Write makes the file hold the given machines and no others, whatever it held.
func (k *KnownHosts) Write(hosts []Host) error {
	lines := make([]known, 0, len(hosts))
	for _, h := range hosts {
		line, err := h.line()
		if err != nil {
			return err
		}
		lines = append(lines, known{h.ID, line})
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
	i := k.index(h.ID)
	switch {
	case i < 0:
		k.lines = append(k.lines, known{h.ID, line})
		if k.whole && k.append(line) == nil {
			return nil // however many there are
		}
	case k.lines[i].line == line:
		return nil
	default:
		k.lines[i].line = line
	}
	return k.write()
}

// Remove removes the machine with this id, and succeeds if there is none. On an
// error it may still stand in the file, until the next change.
func (k *KnownHosts) Remove(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.index(id)
	if i < 0 {
		return nil
	}
	k.lines = slices.Delete(k.lines, i, i+1)
	return k.write()
}

// index returns where the machine's line is, -1 if there is none.
// Preconditions: k.mu is held.
func (k *KnownHosts) index(id string) int {
	return slices.IndexFunc(k.lines, func(l known) bool { return l.id == id })
}

// append adds one line to the file. If it fails, part of the line may stand
// there. Preconditions: k.mu is held.
func (k *KnownHosts) append(line string) error {
	f, err := os.OpenFile(k.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// write writes the file. Preconditions: k.mu is held.
func (k *KnownHosts) write() error {
	text := []byte(knownHostsHead)
	for _, l := range k.lines {
		text = append(text, l.line...)
	}
	// Not synced: the next daemon writes it anew.
	err := atomicfile.Replace(k.path, text, 0o644)
	k.whole = err == nil
	if err != nil {
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
