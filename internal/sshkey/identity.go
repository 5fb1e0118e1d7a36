package sshkey

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"banger/internal/atomicfile"
)

// Access is whose a file is, and who may do what with it.
type Access struct {
	UID, GID int
	Mode     os.FileMode // permissions alone
}

// maxIdentity bounds the private key file that is read, in bytes: ours have
// about 400.
const maxIdentity = 64 << 10

// Identity returns the key in the file at path, which it makes where there is
// none, or where what stands there is no key of ours: whoever spoilt it has
// locked themselves out, and a new key is of more use than an error at every
// start. Fresh tells that a new one was made. In the end the file has the given
// owner and mode, and on the way there it is open to nobody else. On an error
// it may be open to root alone. Only one process may call it at a time.
func Identity(path, comment string, a Access) (k Key, fresh bool, err error) {
	k, ok, err := readIdentity(path)
	if err != nil {
		return Key{}, false, err
	}
	if !ok {
		if k, err = writeIdentity(path, comment); err != nil {
			return Key{}, false, err
		}
	}
	if err := a.apply(path); err != nil {
		return Key{}, false, fmt.Errorf("let users read their key: %w", err)
	}
	return k, !ok, nil
}

// readIdentity returns the key at path, if there is one. An error says that it
// cannot be told.
func readIdentity(path string) (k Key, ok bool, err error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!fi.Mode().IsRegular() || fi.Size() > maxIdentity) {
		return Key{}, false, nil
	}
	if err != nil {
		return Key{}, false, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Key{}, false, err
	}
	k, err = Parse(text)
	return k, err == nil, nil
}

func writeIdentity(path, comment string) (Key, error) {
	k, err := New()
	if err != nil {
		return Key{}, err
	}
	text, err := k.Private(comment)
	if err != nil {
		return Key{}, err
	}
	if err := atomicfile.Write(path, text, 0o600); err != nil {
		return Key{}, fmt.Errorf("write key: %w", err)
	}
	return k, nil
}

// apply gives the file its owner and mode.
func (a Access) apply(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	if int(st.Uid) == a.UID && int(st.Gid) == a.GID && fi.Mode() == a.Mode {
		return nil
	}
	// Nobody's between the two, so that neither owner sees the other's mode.
	if err := f.Chmod(0); err != nil {
		return err
	}
	if err := f.Chown(a.UID, a.GID); err != nil {
		return err
	}
	return f.Chmod(a.Mode)
}
