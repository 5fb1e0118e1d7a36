package plainfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What somebody hostile puts where a file should be. Every way to open it must
// refuse, at once, and leave what it leads to as it is.
func TestOpenRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		plant func(path, secret string) error
		why   string
	}{
		"symbolic link": {func(path, secret string) error { return os.Symlink(secret, path) }, "it is a symbolic link"},
		"dangling link": {func(path, secret string) error { return os.Symlink(secret+".new", path) }, "it is a symbolic link"},
		"hard link":     {func(path, secret string) error { return os.Link(secret, path) }, "it has 2 names"},
		"directory":     {func(path, _ string) error { return os.Mkdir(path, 0o700) }, ""}, // or the kernel refuses
		"fifo":          {func(path, _ string) error { return unix.Mkfifo(path, 0o600) }, ""},
		"socket":        {listen, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/tmp", "plain-") // short enough for a socket
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path, secret := filepath.Join(dir, "planted"), filepath.Join(dir, "secret")
			write(t, secret, "secret")
			if err := tt.plant(path, secret); err != nil {
				t.Fatal(err)
			}
			for _, flags := range []int{
				os.O_RDONLY, os.O_WRONLY, os.O_RDWR,
				os.O_WRONLY | os.O_CREATE | os.O_APPEND, os.O_RDWR | os.O_CREATE | os.O_TRUNC,
			} {
				f, err := Open(path, flags, 0o600)
				if err == nil {
					f.Close()
					t.Fatalf("Open with flags %#x succeeded", flags)
				}
				if strings.Count(err.Error(), path) != 1 || !strings.HasSuffix(err.Error(), tt.why) {
					t.Errorf("Open with flags %#x = %v, want the path, once, and %q", flags, err, tt.why)
				}
			}
			if got := content(t, secret); got != "secret" {
				t.Errorf("what it leads to holds %q now", got)
			}
			if _, err := os.Lstat(secret + ".new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("where the dangling link leads: %v", err)
			}
		})
	}
}

func listen(path, _ string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l.Close()
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if f, err := Open(path, os.O_RDONLY, 0); !errors.Is(err, fs.ErrNotExist) {
		f.Close()
		t.Errorf("Open of nothing = %v", err)
	}
	for _, tt := range []struct {
		flags int
		want  string
	}{
		{os.O_WRONLY | os.O_CREATE | os.O_APPEND, "x"},
		{os.O_WRONLY | os.O_CREATE | os.O_APPEND, "xx"},
		{os.O_RDWR, "xx"},
		{os.O_RDWR | os.O_TRUNC, "x"},
	} {
		f, err := Open(path, tt.flags, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("x"); err != nil {
			t.Error(err)
		}
		if fl, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor flags %#x, %v: it would be inherited", fl, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if got := content(t, path); got != tt.want {
			t.Errorf("after flags %#x it holds %q, want %q", tt.flags, got, tt.want)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o640 {
		t.Errorf("Stat = %v, %v, want mode 0640", fi, err)
	}
}

// A file that is removed while it is being opened was not there.
func TestRemovedWhileOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := fail(path, check(f)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("check = %v", err)
	}
}
