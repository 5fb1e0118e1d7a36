package templatefs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"banger/internal/atomicfile"
	"banger/internal/template"
)

// Marks stand beside the files of a template, which never change.
const (
	usedName    = "used"
	damagedName = "damaged"
)

// SetAside marks a template as damaged.
func (l *Library) SetAside(_ context.Context, id, why string) error {
	t, _, err := l.look(id)
	if err != nil {
		return err
	}
	if t.Dir == "" {
		return nil // nobody can use it as it is
	}
	path := filepath.Join(t.Dir, damagedName)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	err = atomicfile.Write(path, []byte(clip(why)+"\n"), 0o644)
	switch {
	case err == nil:
		return nil
	case l.gone(t):
		return unknown(id)
	}
	return fmt.Errorf("set template %s aside: %w", id, err)
}

// addMarks adds to a template what is not in its record.
func (l *Library) addMarks(t *template.Template) {
	if t.Dir == "" {
		return
	}
	if why, ok := readDamaged(filepath.Join(t.Dir, damagedName)); ok {
		t.Damaged = why
	}
	if fi, err := os.Lstat(filepath.Join(t.Dir, usedName)); err == nil {
		t.UsedAt = fi.ModTime().UTC()
	}
	entries, _ := os.ReadDir(t.Dir) // what cannot be read takes no room
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			t.SizeBytes += used(fi)
		}
	}
}

// readDamaged returns why a template was set aside, if it was. A mark that
// cannot be read is one.
func readDamaged(path string) (why string, ok bool) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	if err != nil {
		return clip(err.Error()), true
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return clip(err.Error()), true
	}
	return cmp.Or(clip(string(data)), "it was set aside"), true
}

// used is how many bytes of the host's disk a file takes.
func used(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512 // whatever the file system's block is: stat(2)
	}
	return fi.Size()
}
