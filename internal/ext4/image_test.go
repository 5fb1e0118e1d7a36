package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/hostcmd"
)

// newImage makes a file system of a tree with mke2fs and the arguments.
func newImage(t testing.TB, tree string, sizeBytes int64, args ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, sizeBytes)); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{"mkfs.ext4", "-q", "-F", "-d", tree}, append(args, path)...)
	if _, err := hostcmd.Run(t.Context(), argv...); err != nil {
		t.Fatal(err)
	}
	return path
}

// debugfs runs commands of debugfs on an image and returns what it prints.
func debugfs(t testing.TB, path string, commands ...string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "commands")
	if err := os.WriteFile(script, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := hostcmd.Run(t.Context(), "debugfs", "-w", "-f", script, path)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// openImage opens the file system in an image file.
func openImage(t testing.TB, path string) *FS {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenFS(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// random returns bytes of which no block is like another.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// scatter writes count pieces of a file with holes of as much in between, each
// an extent of its own.
func scatter(t testing.TB, path string, count, pieceBytes int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		if _, err := f.WriteAt(random(pieceBytes+i%2), int64(2*i*pieceBytes)); err != nil { // the odd ones run over
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

const longName = 255

// fullTree makes a tree with one of everything.
func fullTree(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ext4-") // a path short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) {
		err := errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), b, 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	write("empty", nil)
	write("one", []byte("1"))
	write("several", random(3<<20+17))
	write(strings.Repeat("n", longName), []byte("named"))
	write(strings.Repeat("deep/", 40)+"file", []byte("deep"))
	for i := range 300 {
		write(fmt.Sprintf("many/a-rather-long-name-of-%05d", i), nil)
	}
	scatter(t, at("scattered"), 400, 4096)
	write("large", []byte("begins"))
	f, err := os.OpenFile(at("large"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("ends"), 5<<30); err != nil {
		t.Fatal(err)
	}
	special(t, at)
	return dir
}

// special makes what is neither a file nor a directory.
func special(t *testing.T, at func(string) string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at("socket")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	err = errors.Join(os.Symlink("one", at("link")), os.Symlink("deep", at("way")), os.Symlink("/"+strings.Repeat("x", 200), at("far")),
		unix.Mkfifo(at("fifo"), 0o600))
	if os.Geteuid() == 0 {
		err = errors.Join(err, unix.Mknod(at("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
			unix.Mknod(at("loop"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sameBytes compares what two readers hold, which may be long and mostly holes,
// at its beginning and its end.
func sameBytes(t *testing.T, name string, got io.ReaderAt, want io.ReaderAt, size int64) {
	t.Helper()
	const most = 4 << 20
	for _, from := range []int64{0, max(0, size-most)} {
		n := min(size, most)
		g, w := make([]byte, n), make([]byte, n)
		if m, err := got.ReadAt(g, from); m != len(g) || err != nil {
			t.Errorf("%s: ReadAt(%d, %d) = %d, %v", name, n, from, m, err)
			return
		}
		if _, err := want.ReadAt(w, from); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g, w) {
			t.Errorf("%s: other bytes in the %d from %d on", name, n, from)
		}
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
