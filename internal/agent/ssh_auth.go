package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// maxAuthorizedKeys is how much of a user's own file of keys is read, in bytes.
const maxAuthorizedKeys = 1 << 20

// errKey is all that a client is told.
var errKey = errors.New("this key does not let this user in")

// authenticate decides whether a key lets in a user: those of the bundle let in
// everybody, those in a user's own authorized_keys that user.
func (d *sshServer) authenticate(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if c.User() == "" { // to lookUpUser that is root
		return nil, errKey
	}
	u, err := lookUpUser(d.s.o.Root, c.User())
	if err != nil {
		return nil, errKey
	}
	for _, k := range d.keys {
		if sameKey(k, key) {
			return &ssh.Permissions{}, nil
		}
	}
	path := filepath.Join(u.home, ".ssh", "authorized_keys")
	ok, err := findKey(path, u, key)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.s.o.Log.Warn("authorized_keys not used", "user", u.name, "err", err)
	}
	if !ok {
		return nil, errKey
	}
	return &ssh.Permissions{}, nil
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// findKey reports whether key is in the user's file at path. A file that others
// than the user could have written is an error.
func findKey(path string, u user, key ssh.PublicKey) (bool, error) {
	f, err := openRegular(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := checkStrict(f, path, u); err != nil {
		return false, err
	}
	return keyIn(io.LimitReader(f, maxAuthorizedKeys), key)
}

// keyIn reports whether key is on a line of r. A line with options (sshd(8)) is
// passed over: what they are to keep from its owner, this server cannot.
func keyIn(r io.Reader, key ssh.PublicKey) (bool, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAuthorizedKeys)
	for lines.Scan() {
		k, _, options, _, err := ssh.ParseAuthorizedKey(lines.Bytes())
		if err == nil && len(options) == 0 && sameKey(k, key) {
			return true, nil
		}
	}
	return false, lines.Err()
}

// checkStrict is sshd's StrictModes: nobody but the user and root may be able
// to write the file, the directories it is in, or the home.
func checkStrict(f *os.File, path string, u user) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := ownAlone(path, fi, u); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	home, err := filepath.EvalSymlinks(u.home)
	if err != nil {
		return err
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if err := ownAlone(dir, fi, u); err != nil {
			return err
		}
		if dir == home || dir == "/" {
			return nil
		}
	}
}

func ownAlone(path string, fi os.FileInfo, u user) error {
	st := fi.Sys().(*syscall.Stat_t)
	if st.Uid != 0 && st.Uid != u.uid || fi.Mode()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others than %s", strings.ToValidUTF8(path, "?"), u.name)
	}
	return nil
}
