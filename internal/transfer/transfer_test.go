package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

var errBroken = errors.New("the stream is broken")

// loop joins both ends in one goroutine.
type loop struct {
	r     *Receiver
	ctx   context.Context // of the receiver; nil: one without an end
	have  *wire.CopyHave
	items int
	bytes int64                         // of files, that went through
	seen  func(n int, _ *wire.CopyItem) // before an item is received; may be nil
	cut   int                           // after so many items the stream breaks; 0: never
	err   error                         // of the receiver
	forge func(*wire.CopyHave)          // may be nil
}

func (l *loop) Send(it *wire.CopyItem) error {
	if l.seen != nil {
		l.seen(l.items, it)
	}
	if l.items++; l.items == l.cut {
		return errBroken
	}
	l.bytes += int64(len(it.GetData()) + len(it.GetFile().GetData()))
	ctx := l.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	if l.have, l.err = l.r.Item(ctx, it); l.err != nil {
		return errBroken
	}
	return nil
}

func (l *loop) Have() (*wire.CopyHave, error) {
	if l.forge != nil {
		l.forge(l.have)
	}
	return l.have, nil
}

// carry copies sources to target, and returns the sender's error, or the
// receiver's if that is why.
func carry(t *testing.T, target string, sources []string, s SendOptions, o ReceiveOptions) error {
	t.Helper()
	_, err := carryBy(t, &loop{}, target, sources, s, o)
	return err
}

func carryBy(t *testing.T, l *loop, target string, sources []string, s SendOptions, o ReceiveOptions) (*loop, error) {
	t.Helper()
	var err error
	if l.r, err = NewReceiver(target, o); err != nil {
		return l, err
	}
	err = Send(context.Background(), l, sources, s)
	if errors.Is(err, errBroken) && l.err != nil {
		err = l.err
	}
	if err == nil && !l.r.Whole() {
		t.Error("sent, but not received")
	}
	if cerr := l.r.Close(); cerr != nil {
		t.Errorf("close: %v", cerr)
	}
	return l, err
}

func named(names ...string) ReceiveOptions { return ReceiveOptions{Names: names} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, data, 0o644))
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// snapshot describes all that is below dir: kind, mode, time, and hash or
// target. Links have no time, directories only where times is set.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		about := fmt.Sprintf("%v %d", fi.Mode(), mtime(fi))
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			about, err = os.Readlink(path)
		case fi.Mode().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			about += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		found[rel] = about
		return err
	}))
	return found
}

// forest makes a tree with one of everything that is kept.
func forest(t *testing.T, dir string) {
	t.Helper()
	put(t, dir+"/empty", nil)
	put(t, dir+"/small", []byte("small"))
	put(t, dir+"/sub/deep/er/big", random(3*chunk+17))
	put(t, dir+"/sub/exact", random(chunk))
	put(t, dir+"/"+strings.Repeat("n", maxName), []byte("a long name"))
	put(t, dir+"/not\xffutf8\n", []byte("a strange name"))
	put(t, dir+"/setuid", []byte("x"))
	must(t, os.Mkdir(dir+"/nothing", 0o711))
	must(t, os.Mkdir(dir+"/sticky", 0o755))
	must(t, os.Chmod(dir+"/sticky", 0o777|fs.ModeSticky))
	must(t, os.Chmod(dir+"/setuid", 0o755|fs.ModeSetuid))
	must(t, os.Chmod(dir+"/small", 0o400))
	put(t, dir+"/readonly/f", []byte("f"))
	for name, to := range map[string]string{"abs": "/etc/passwd", "dangling": "no/such", "up": "../../..", "dir": "sub"} {
		must(t, os.Symlink(to, dir+"/"+name))
	}
	sparse, err := os.Create(dir + "/sub/sparse")
	must(t, err)
	defer sparse.Close()
	must(t, sparse.Truncate(4<<20))
	for _, at := range []int64{0, 2 << 20, 4<<20 - 9} {
		_, err := sparse.WriteAt([]byte("not zero"), at)
		must(t, err)
	}
	past := time.Date(1999, 1, 2, 3, 4, 5, 678, time.UTC)
	for _, name := range []string{"empty", "sub/deep/er/big", "sub/deep", "readonly", "small"} {
		must(t, os.Chtimes(dir+"/"+name, past, past))
	}
	must(t, os.Chmod(dir+"/readonly", 0o555))
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	src := dir + "/src"
	forest(t, src)
	want := snapshot(t, src)
	var done, total int64
	progress := func(_ string, d, t int64) { done, total = d, t }
	s := SendOptions{Progress: progress}
	must(t, carry(t, dir+"/dst", []string{src}, s, ReceiveOptions{Names: []string{"src"}, Special: true, Sync: true}))
	if diff := cmp.Diff(want, snapshot(t, dir+"/dst")); diff != "" {
		t.Errorf("a new name: %s", diff)
	}
	if done != total || total < 4<<20 {
		t.Errorf("progress ends at %d of %d", done, total)
	}
	fi, err := os.Stat(dir + "/dst/sub/sparse")
	must(t, err)
	if blocks := fi.Sys().(*syscall.Stat_t).Blocks; blocks*512 > 1<<20 {
		t.Errorf("a sparse file takes %d bytes", blocks*512)
	}
	// Once more over what is there, and with what guests may not give.
	must(t, os.Mkdir(dir+"/in", 0o755))
	for range 2 {
		must(t, carry(t, dir+"/in", []string{src}, SendOptions{}, named("src")))
	}
	got := snapshot(t, dir+"/in/src")
	for _, name := range []string{"setuid", "sticky"} {
		if fi, err := os.Stat(dir + "/in/src/" + name); err != nil || fi.Mode()&(fs.ModeSetuid|fs.ModeSticky) != 0 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
		delete(want, name)
		delete(got, name)
	}
	for name := range want { // what was in a directory that was there has changed its time
		if fi, err := os.Lstat(dir + "/in/src/" + name); err == nil && fi.IsDir() {
			delete(want, name)
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("over what is there: %s", diff)
	}
	noParts(t, dir)
}

// noParts checks that nothing unfinished is left.
func noParts(t *testing.T, dir string) {
	t.Helper()
	if parts := parts(t, dir); len(parts) > 0 {
		t.Errorf("left: %v", parts)
	}
}

func parts(t *testing.T, dir string) (found []string) {
	t.Helper()
	for _, name := range names(t, dir) {
		if isStage(filepath.Base(name)) {
			found = append(found, name)
		}
	}
	return found
}

// names lists all that is below dir.
func names(t *testing.T, dir string) (found []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(dir, path)
		if rel != "." {
			found = append(found, rel)
		}
		return errors.Join(err, rerr)
	}))
	return found
}

// What a path means depends on what is there.
func TestTarget(t *testing.T) {
	for _, c := range []struct {
		target, source, name string
		want                 string // a file that is there then; else
		err                  error
	}{
		{target: "new", source: "file", name: "file", want: "new"},
		{target: "dir", source: "file", name: "file", want: "dir/file"},
		{target: "dir/", source: "file", name: "file", want: "dir/file"},
		{target: "dir/new", source: "file", name: "file", want: "dir/new"},
		{target: "todir", source: "file", name: "file", want: "dir/file"},
		{target: "old", source: "file", name: "file", want: "old"},
		{target: "toold", source: "file", name: "file", want: "old"},
		{target: "new", source: "tree", name: "tree", want: "new/f"},
		{target: "dir", source: "tree", name: "tree", want: "dir/tree/f"},
		{target: "dir", source: "tree/.", name: "", want: "dir/f"},
		{target: "new", source: "tree/.", name: "", want: "new/f"},
		{target: "dir/.", source: "tree", name: "tree", want: "dir/tree/f"},
		{target: "dir", source: "totree", name: "totree", want: "dir/totree/f"},
		{target: "dir/..", source: "file", name: "other", want: "other"},

		{target: "new/", source: "file", name: "file", err: fs.ErrNotExist},
		{target: "new/.", source: "file", name: "file", err: fs.ErrNotExist},
		{target: "none/new", source: "file", name: "file", err: fs.ErrNotExist},
		{target: "old/", source: "file", name: "file", err: unix.ENOTDIR},
		{target: "old/x", source: "file", name: "file", err: unix.ENOTDIR},
		{target: "dangling", source: "file", name: "file", err: errDangling},
		{target: "old", source: "tree", name: "tree", err: unix.ENOTDIR},
		{target: "dir", source: "file", name: "sub", err: unix.EISDIR},
		{target: "dir", source: "file", name: "", err: unix.EISDIR},
		{target: "fifo", source: "file", name: "file", err: ErrKind},
		{target: "dir", source: "tree", name: "elsewhere", err: unix.ENOTDIR},
		{target: "new", source: "none", name: "none", err: fs.ErrNotExist},
		{target: "new", source: "fifo", name: "fifo", err: ErrKind},
		{target: "new", source: "file/", name: "file", err: unix.ENOTDIR},
		{target: "new", source: "dangling", name: "file", err: fs.ErrNotExist},
		{target: "dir", source: "file", name: "../x", err: ErrInvalid},
	} {
		t.Run(c.target+"<"+c.source, func(t *testing.T) {
			t.Chdir(t.TempDir())
			put(t, "file", []byte("content"))
			put(t, "tree/f", []byte("content"))
			put(t, "old", []byte("old"))
			put(t, "dir/sub/x", nil)
			put(t, "outside/f", []byte("old"))
			must(t, unix.Mkfifo("fifo", 0o600))
			for link, to := range map[string]string{"todir": "dir", "toold": "old", "dangling": "nowhere", "totree": "tree", "dir/elsewhere": "../outside"} {
				must(t, os.Symlink(to, link))
			}
			before := snapshot(t, ".")
			err := carry(t, c.target, []string{c.source}, SendOptions{}, named(c.name))
			if c.err != nil {
				if !errors.Is(err, c.err) {
					t.Errorf("%v, want %v", err, c.err)
				}
				if diff := cmp.Diff(before, snapshot(t, ".")); diff != "" {
					t.Errorf("changed: %s", diff)
				}
				return
			}
			if got, rerr := os.ReadFile(c.want); err != nil || rerr != nil || string(got) != "content" {
				t.Errorf("%v; %s: %q, %v", err, c.want, got, rerr)
			}
			if to, err := os.Readlink("toold"); err != nil || to != "old" {
				t.Errorf("toold leads to %q, %v", to, err)
			}
			noParts(t, ".")
		})
	}
}

func TestSeveral(t *testing.T) {
	t.Chdir(t.TempDir())
	put(t, "z", []byte("z"))
	put(t, "a/f", []byte("f"))
	must(t, os.Mkdir("dir", 0o755))
	must(t, carry(t, "dir", []string{"z", "a", "a/."}, SendOptions{}, named("z", "a", "")))
	for name, want := range map[string]string{"dir/z": "z", "dir/a/f": "f", "dir/f": "f"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for target, want := range map[string]error{"new": fs.ErrNotExist, "z": unix.ENOTDIR} {
		if err := carry(t, target, []string{"z", "a"}, SendOptions{}, named("z", "a")); !errors.Is(err, want) {
			t.Errorf("to %s: %v", target, err)
		}
	}
}

// What cannot be copied is told, and the rest is copied.
func TestSkips(t *testing.T) {
	t.Chdir(t.TempDir())
	put(t, "src/f", []byte("f"))
	put(t, "src/goes", []byte("f"))
	put(t, "src/"+stageName("f", 1, 1), []byte("f"))
	must(t, unix.Mkfifo("src/fifo", 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "src/socket"}))
	must(t, unix.Close(fd))
	sent, received := map[string]string{}, map[string]string{}
	l := &loop{seen: func(_ int, it *wire.CopyItem) {
		if string(it.GetFile().GetName()) == "f" {
			must(t, os.Remove("src/goes"))
		}
	}}
	_, err = carryBy(t, l, "dst", []string{"src"},
		SendOptions{Skipped: func(path, why string) { sent[path] = why }},
		ReceiveOptions{Names: []string{"src"}, Skipped: func(path, why string) { received[path] = why }})
	must(t, err)
	want := map[string]string{
		"src/fifo": "it is a named pipe", "src/socket": "it is a socket", "src/goes": gone,
		"src/" + stageName("f", 1, 1): "it is a part of a copy that was interrupted",
	}
	if diff := cmp.Diff(want, sent) + cmp.Diff(want, received); diff != "" {
		t.Error(diff)
	}
	if got := snapshot(t, "dst"); len(got) != 1 || got["f"] == "" {
		t.Errorf("copied: %v", got)
	}
}

// A file in /proc is empty by its own account; one that shrinks is an error; of
// one that grows there is what there was.
func TestFilesThatLie(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, carry(t, "status", []string{"/proc/self/status"}, SendOptions{}, named("status")))
	if got, err := os.ReadFile("status"); err != nil || !bytes.HasPrefix(got, []byte("Name:")) {
		t.Errorf("/proc/self/status: %q, %v", got, err)
	}
	big := random(4 * chunk)
	for name, size := range map[string]int64{"shrinks": 2 * chunk, "grows": 9 * chunk} {
		put(t, name, big)
		l := &loop{seen: func(_ int, it *wire.CopyItem) {
			if it.GetFile() != nil {
				must(t, os.Truncate(name, size))
			}
		}}
		_, err := carryBy(t, l, "new-"+name, []string{name}, SendOptions{}, named(name))
		got, rerr := os.ReadFile("new-" + name)
		switch {
		case name == "shrinks" && (!errors.Is(err, errShorter) || !errors.Is(rerr, fs.ErrNotExist)):
			t.Errorf("shrinks: %v, %v", err, rerr)
		case name == "grows" && (err != nil || !bytes.Equal(got, big)):
			t.Errorf("grows: %v, %d bytes", err, len(got))
		}
		noParts(t, ".")
	}
}

func TestStream(t *testing.T) {
	t.Chdir(t.TempDir())
	data := random(2*chunk + 5)
	r, err := NewReceiver("dst", named(""))
	must(t, err)
	must(t, SendStream(context.Background(), &loop{r: r}, bytes.NewReader(data), SendOptions{}))
	must(t, r.Close())
	var out bytes.Buffer
	w := NewWriter(&out, nil)
	must(t, Send(context.Background(), writerLoop{w}, []string{"dst"}, SendOptions{}))
	if !w.Whole() || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%d bytes came back", out.Len())
	}
	// A stream that breaks leaves nothing: nobody could go on with it.
	r, err = NewReceiver("other", named(""))
	must(t, err)
	if err := SendStream(context.Background(), &loop{r: r, cut: 3}, bytes.NewReader(data), SendOptions{}); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	must(t, r.Close())
	if got := snapshot(t, "."); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

type writerLoop struct{ w *Writer }

func (l writerLoop) Send(it *wire.CopyItem) error {
	_, err := l.w.Item(context.Background(), it)
	return err
}

func (writerLoop) Have() (*wire.CopyHave, error) { return nil, errBroken }
