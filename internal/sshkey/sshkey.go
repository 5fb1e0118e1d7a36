// Package sshkey makes the SSH keys of machines and of those who use them, and
// the file by which clients know the former.
//
// A machine's host key is computed from the machine's token, so that clients
// can know it before the machine has booted for the first time, and nothing
// about it has to be stored. The key that machines let in is one for each
// daemon, made at random and kept in a file; see [Identity].
//
// All keys are Ed25519: every OpenSSH since 6.5 (2014) takes them, and they
// are the only ones that a seed alone determines.
package sshkey

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// hostKeyInfo keeps what is derived here apart from all else that may ever be
// derived of a token (RFC 5869, section 3.2). Another text is another key for
// every machine.
const hostKeyInfo = "banger ssh host key"

// A Key is one private key. The zero value is none.
type Key struct {
	private ed25519.PrivateKey
	public  ssh.PublicKey
}

// HostKey returns the host key of the machine with this token: the same at
// every call, and nothing of the token can be learned from it. An empty token
// is an error.
func HostKey(token string) (Key, error) {
	if token == "" {
		return Key{}, errors.New("derive host key: no token")
	}
	seed, err := hkdf.Key(sha256.New, []byte(token), nil, hostKeyInfo, ed25519.SeedSize)
	if err != nil {
		return Key{}, fmt.Errorf("derive host key: %w", err)
	}
	return newKey(ed25519.NewKeyFromSeed(seed))
}

// New returns a key that nobody had before.
func New() (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make key: %w", err)
	}
	return newKey(private)
}

// Parse reads what [Key.Private] returned. A key of another kind, or one that
// takes a passphrase, is an error, as is whatever is no key.
func Parse(text []byte) (Key, error) {
	raw, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	private, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("read key: it is no Ed25519 key but %T", raw)
	}
	return newKey(*private)
}

func newKey(private ed25519.PrivateKey) (Key, error) {
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return Key{}, err
	}
	return Key{private, public}, nil
}

// Private returns the key in OpenSSH's own format, with a comment that people
// see in listings of keys.
func (k Key) Private(comment string) ([]byte, error) {
	block, err := ssh.MarshalPrivateKey(k.private, comment)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// Public returns the key's public half as it stands in a .pub file and in
// authorized_keys: one line, without its newline. The comment must be one line
// too; empty, there is none.
func (k Key) Public(comment string) string {
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k.public)), "\n")
	if comment != "" {
		line += " " + comment
	}
	return line
}
