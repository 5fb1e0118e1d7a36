package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"banger/internal/atomicfile"
	"banger/internal/errkind"
)

// maxSSHConfig bounds the configuration that is read, in bytes.
const maxSSHConfig = 4 << 20

// An sshFile is a user's configuration of SSH clients, as it was read.
type sshFile struct {
	dir  string // ~/.ssh
	path string // ~/.ssh/config, or where that leads to
	text []byte

	exists, dirExists bool
	perm              os.FileMode // of the file
	uid, gid          int         // of the file; without one, of the home
}

// readSSHFile reads the configuration in a home. That there is none is no
// error.
func readSSHFile(home string) (*sshFile, error) {
	fi, err := os.Stat(home)
	if err != nil {
		return nil, err
	}
	f := &sshFile{dir: filepath.Join(home, ".ssh"), perm: 0o600}
	f.path = filepath.Join(f.dir, "config")
	f.own(fi)
	if _, err := os.Stat(f.dir); err == nil {
		f.dirExists = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := os.Lstat(f.path); errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	// A link stays one: people keep such files elsewhere.
	if f.path, err = filepath.EvalSymlinks(f.path); err != nil {
		return nil, err
	}
	if fi, err = os.Stat(f.path); err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxSSHConfig {
		return nil, errkind.New(errkind.Conflict, "%s is no file that can be edited", f.path)
	}
	f.exists, f.perm = true, fi.Mode().Perm()
	f.own(fi)
	f.text, err = os.ReadFile(f.path)
	return f, err
}

func (f *sshFile) own(fi os.FileInfo) {
	st := fi.Sys().(*syscall.Stat_t)
	f.uid, f.gid = int(st.Uid), int(st.Gid)
}

// mend gives an error of the text the file's name, and a way to its cure: what
// belongs to a damaged block only its owner can tell.
func (f *sshFile) mend(err error) error {
	return errkind.WithHint(fmt.Errorf("%s: %w", f.path, err), "${EDITOR:-vi} "+errkind.Quote(f.path))
}

// write replaces the file's text, whole or not at all. What it makes belongs to
// whose home it is, also where root calls.
func (f *sshFile) write(text []byte) error {
	uid, gid := f.uid, f.gid
	if !f.exists && os.Geteuid() != 0 {
		uid, gid = -1, -1
	}
	if !f.dirExists {
		if err := os.Mkdir(f.dir, 0o700); err != nil {
			return err
		}
		if err := os.Lchown(f.dir, uid, gid); err != nil {
			return errors.Join(err, os.Remove(f.dir))
		}
	}
	return atomicfile.WriteAs(f.path, text, f.perm, uid, gid)
}

// remove removes a file of which nothing is left, and its directory, as far as
// they were made for the block alone.
func (f *sshFile) remove(m made) error {
	if err := os.Remove(f.path); err != nil {
		return err
	}
	err := error(nil)
	if m.dir {
		err = os.Remove(f.dir)
	}
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return nil // by now it is somebody's
	}
	return err
}
