package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/guest/wire"
)

func writeFile(ctx context.Context, a guest.Agent, meta *wire.FileMeta, data []byte) (int64, error) {
	st := a.WriteFile(ctx)
	st.Send(&wire.WriteFileRequest{Msg: &wire.WriteFileRequest_Meta{Meta: meta}}) // the answer says what went wrong
	for len(data) > 0 {
		n := min(len(data), 60_000)
		st.Send(&wire.WriteFileRequest{Msg: &wire.WriteFileRequest_Data{Data: data[:n]}})
		data = data[n:]
	}
	res, err := st.CloseAndReceive()
	if err != nil {
		return 0, err
	}
	return res.Msg.GetBytesWritten(), nil
}

func readFile(ctx context.Context, a guest.Agent, path string) (*wire.FileInfo, []byte, error) {
	st, err := a.ReadFile(ctx, connect.NewRequest(&wire.ReadFileRequest{Path: path}))
	if err != nil {
		return nil, nil, err
	}
	var info *wire.FileInfo
	var data []byte
	for st.Receive() {
		if i := st.Msg().GetInfo(); i != nil {
			info = i
		}
		data = append(data, st.Msg().GetData()...)
	}
	return info, data, st.Err()
}

func TestFile(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	ctx := testContext(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	data := make([]byte, 1<<20+3)
	rand.Read(data)
	for _, data := range [][]byte{data, nil, []byte("x")} {
		n, err := writeFile(ctx, a, &wire.FileMeta{Path: path, Mode: 0o100751}, data)
		if err != nil || n != int64(len(data)) {
			t.Fatalf("wrote %d, %v", n, err)
		}
		info, got, err := readFile(ctx, a, path)
		if err != nil || !bytes.Equal(got, data) || info.GetMode() != 0o751 || info.GetSizeBytes() != n {
			t.Fatalf("read %d bytes of %d, %v, %v", len(got), len(data), info, err)
		}
	}
	// A link stays one.
	link := filepath.Join(dir, "link")
	if err := os.Symlink("f", link); err != nil {
		t.Fatal(err)
	}
	if _, err := writeFile(ctx, a, &wire.FileMeta{Path: link, Mode: 0o600}, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("what the link leads to holds %q, %v", got, err)
	}
	if target, err := os.Readlink(link); err != nil || target != "f" {
		t.Errorf("link: %q, %v", target, err)
	}
	// A file in /proc says that it is empty, and is not.
	if _, got, err := readFile(ctx, a, "/proc/self/status"); err != nil || !bytes.HasPrefix(got, []byte("Name:")) {
		t.Errorf("/proc/self/status: %q, %v", got, err)
	}
	leftOver(t, dir, 2)
}

func leftOver(t *testing.T, dir string, want int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != want {
		t.Errorf("%v in %s, want %d entries (%v)", entries, dir, want, err)
	}
}

func TestFileErrors(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	ctx := testContext(t)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]connect.Code{
		"":            connect.CodeInvalidArgument,
		dir:           connect.CodeFailedPrecondition,
		fifo:          connect.CodeFailedPrecondition,
		"/dev/zero":   connect.CodeFailedPrecondition,
		dir + "/none": connect.CodeNotFound,
		fifo + "/x":   connect.CodeFailedPrecondition,
	} {
		if _, _, err := readFile(ctx, a, path); connect.CodeOf(err) != want {
			t.Errorf("read %q: %v, want %v", path, err, want)
		}
	}
	for path, want := range map[string]connect.Code{
		"":              connect.CodeInvalidArgument,
		dir:             connect.CodeFailedPrecondition,
		dir + "/none/x": connect.CodeNotFound,
		"/proc/x":       connect.CodeNotFound,
	} {
		if _, err := writeFile(ctx, a, &wire.FileMeta{Path: path}, []byte("x")); connect.CodeOf(err) != want {
			t.Errorf("write %q: %v, want %v", path, err, want)
		}
	}
	leftOver(t, dir, 1)
}

// A stream that breaks leaves the old file and no other.
func TestFileBroken(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	st := a.WriteFile(ctx)
	st.Send(&wire.WriteFileRequest{Msg: &wire.WriteFileRequest_Meta{Meta: &wire.FileMeta{Path: path}}})
	st.Send(&wire.WriteFileRequest{Msg: &wire.WriteFileRequest_Data{Data: []byte("new")}})
	entries := func() int {
		e, _ := os.ReadDir(dir)
		return len(e)
	}
	waitFor(t, func() bool { return entries() == 2 })
	cancel()
	waitFor(t, func() bool { return entries() == 1 })
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Relative paths begin at root's home.
func TestFileHome(t *testing.T) {
	root := t.TempDir()
	home := filepath.Join(root, "home-of-root")
	passwd := "root:x:0:0::" + home + ":/bin/sh\n"
	for path, text := range map[string]string{"etc/passwd": passwd, "home-of-root/f": "hello"} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := dialAgent(t, ServeOptions{Root: root})
	if _, got, err := readFile(testContext(t), a, "f"); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	r := startRun(t, testContext(t), a, &wire.ExecStart{Argv: []string{"sh", "-c", "pwd; echo $HOME"}})
	if r.end(t); string(r.stdout) != home+"\n"+home+"\n" {
		t.Errorf("got %q", r.stdout)
	}
}
