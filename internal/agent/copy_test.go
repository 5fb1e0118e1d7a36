package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/guest/wire"
	"banger/internal/transfer"
)

// A host is the host's end of one copy.
type host struct {
	st     *connect.BidiStreamForClient[wire.CopyRequest, wire.CopyResponse]
	failed *wire.CopyFailure
	sent   int // items
	after  func(sent int)
}

func startCopy(t *testing.T, ctx context.Context, a guest.Agent, start *wire.CopyStart) *host {
	t.Helper()
	h := &host{st: a.Copy(ctx)}
	if err := h.st.Send(&wire.CopyRequest{Msg: &wire.CopyRequest_Start{Start: start}}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) Send(it *wire.CopyItem) error {
	if h.sent++; h.after != nil {
		h.after(h.sent)
	}
	return h.st.Send(&wire.CopyRequest{Msg: &wire.CopyRequest_Item{Item: it}})
}

func (h *host) receive() (*wire.CopyResponse, error) {
	r, err := h.st.Receive()
	h.failed = r.GetFailed()
	if err == nil && h.failed != nil {
		err = errors.New(h.failed.GetMessage())
	}
	return r, err
}

func (h *host) Have() (*wire.CopyHave, error) {
	r, err := h.receive()
	return r.GetHave(), err
}

// pushCopy copies a file or tree of the test's into the guest.
func pushCopy(t *testing.T, ctx context.Context, a guest.Agent, src, dst string, resume bool) (*host, error) {
	t.Helper()
	h := startCopy(t, ctx, a, &wire.CopyStart{Target: []byte(dst), Names: [][]byte{[]byte(filepath.Base(src))}, Resume: resume})
	if err := transfer.Send(ctx, h, []string{src}, transfer.SendOptions{Resume: resume}); err != nil && !errors.Is(err, io.EOF) {
		return h, err
	}
	r, err := h.receive()
	if err == nil && !r.GetStored() {
		t.Errorf("copied in: %v", r)
	}
	return h, err
}

// pullCopy copies a file or tree out of the guest.
func pullCopy(t *testing.T, ctx context.Context, a guest.Agent, src, dst string) (*host, error) {
	t.Helper()
	h := startCopy(t, ctx, a, &wire.CopyStart{Sources: [][]byte{[]byte(src)}})
	r, err := transfer.NewReceiver(dst, transfer.ReceiveOptions{Names: []string{filepath.Base(src)}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		m, err := h.receive()
		if errors.Is(err, io.EOF) && r.Whole() {
			return h, nil
		}
		if err == nil {
			_, err = r.Item(ctx, m.GetItem())
		}
		if err != nil {
			return h, errors.Join(err, r.Discard())
		}
	}
}

// makeTree makes a tree with a file that takes several messages.
func makeTree(t *testing.T, dir string) []byte {
	t.Helper()
	data := make([]byte, 3<<20+7)
	rand.Read(data)
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "sub"), 0o755),
		os.WriteFile(filepath.Join(dir, "sub/big"), data, 0o640),
		os.WriteFile(filepath.Join(dir, "tool"), []byte("#!"), 0o755),
		os.Chmod(filepath.Join(dir, "tool"), 0o755|os.ModeSetuid),
		os.Symlink("sub/big", filepath.Join(dir, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return data
}

func wantTree(t *testing.T, dir string, data []byte, setuid bool) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, "sub/big")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("sub/big: %d bytes of %d, %v", len(got), len(data), err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "tool")); err != nil || fi.Mode()&os.ModeSetuid != 0 != setuid {
		t.Errorf("tool: %v, %v", fi, err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "link")); err != nil || to != "sub/big" {
		t.Errorf("link: %q, %v", to, err)
	}
	leftOver(t, dir, 3)
}

func leftOver(t *testing.T, dir string, want int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != want {
		t.Errorf("%v in %s, want %d entries (%v)", entries, dir, want, err)
	}
}

func TestCopy(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	ctx := testContext(t)
	dir := t.TempDir()
	data := makeTree(t, filepath.Join(dir, "src"))
	if _, err := pushCopy(t, ctx, a, filepath.Join(dir, "src"), filepath.Join(dir, "in"), false); err != nil {
		t.Fatal(err)
	}
	wantTree(t, filepath.Join(dir, "in"), data, true)
	if _, err := pullCopy(t, ctx, a, filepath.Join(dir, "in"), filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	wantTree(t, filepath.Join(dir, "out"), data, false)
	leftOver(t, dir, 3)
}

func TestCopyErrors(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	ctx := testContext(t)
	dir := t.TempDir()
	src := filepath.Join(t.TempDir(), "src")
	makeTree(t, src)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		none     = wire.CopyFailure_REASON_NOT_FOUND
		conflict = wire.CopyFailure_REASON_CONFLICT
	)
	for path, want := range map[string]wire.CopyFailure_Reason{
		fifo: conflict, "/dev/zero": conflict, dir + "/none": none, fifo + "/x": conflict,
	} {
		h, err := pullCopy(t, ctx, a, path, filepath.Join(dir, "out"))
		if err == nil || h.failed.GetReason() != want || !strings.Contains(err.Error(), path) {
			t.Errorf("out of %s: %v, %v", path, err, h.failed)
		}
	}
	for path, want := range map[string]wire.CopyFailure_Reason{
		fifo: conflict, dir + "/none/x": none, dir + "/none/": none, "/dev/null": conflict, fifo + "/x": conflict,
	} {
		h, err := pushCopy(t, ctx, a, filepath.Join(src, "sub/big"), path, false)
		if err == nil || h.failed.GetReason() != want {
			t.Errorf("to %s: %v, %v", path, err, h.failed)
		}
	}
	leftOver(t, dir, 1)
	for _, start := range []*wire.CopyStart{nil, {Target: []byte(dir)}} {
		if _, err := startCopy(t, ctx, a, start).receive(); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("start %v: %v", start, err)
		}
	}
	h := startCopy(t, ctx, a, &wire.CopyStart{Target: []byte(dir), Names: [][]byte{[]byte("../x")}})
	if _, err := h.receive(); err == nil || h.failed.GetReason() != wire.CopyFailure_REASON_INVALID {
		t.Errorf("a name that is none: %v, %v", err, h.failed)
	}
}

// A stream that breaks leaves the old file, and a part with which another copy
// goes on; one that is given up leaves the old file alone.
func TestCopyBroken(t *testing.T) {
	a := dialAgent(t, ServeOptions{})
	dir := t.TempDir()
	src := filepath.Join(t.TempDir(), "src")
	data := makeTree(t, src)
	big, dst := filepath.Join(src, "sub/big"), filepath.Join(dir, "f")
	if err := os.WriteFile(dst, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	entries := func() int {
		e, _ := os.ReadDir(dir)
		return len(e)
	}
	start := &wire.CopyStart{Target: []byte(dst), Names: [][]byte{[]byte("f")}}
	for _, abort := range []bool{true, false} {
		ctx, cancel := context.WithCancel(testContext(t))
		h := startCopy(t, ctx, a, start)
		h.after = func(sent int) {
			switch {
			case sent < 6:
			case abort && sent == 6:
				waitFor(t, func() bool { return entries() == 2 })
				h.st.Send(&wire.CopyRequest{Msg: &wire.CopyRequest_Item{Item: &wire.CopyItem{Msg: &wire.CopyItem_Abort{Abort: true}}}})
			case !abort:
				waitFor(t, func() bool { return partSize(t, dir) > 0 })
				cancel()
			}
		}
		if err := transfer.Send(ctx, h, []string{big}, transfer.SendOptions{}); err == nil && !abort {
			t.Error("sent all the same")
		}
		if abort {
			if _, err := h.receive(); err == nil {
				t.Error("an abort is no failure")
			}
			leftOver(t, dir, 1)
		}
		cancel()
		if got, err := os.ReadFile(dst); err != nil || string(got) != "old" {
			t.Errorf("abort %t: got %q, %v", abort, got, err)
		}
	}
	h, err := pushCopy(t, testContext(t), a, big, dst, true)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, data) {
		t.Errorf("resumed: %d bytes of %d, %v", len(got), len(data), err)
	}
	// All of it: total, offer, file, the pieces, done.
	if all := 3 + (len(data)+128<<10-1)/(128<<10) + 1; h.sent >= all {
		t.Errorf("resumed with %d items, all are %d", h.sent, all)
	}
	leftOver(t, dir, 1)
}

// partSize is the size of what is not whole in dir.
func partSize(t *testing.T, dir string) int64 {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ".banger-*.part"))
	if err != nil || len(found) > 1 {
		t.Fatal(found, err)
	}
	for _, path := range found {
		if fi, err := os.Stat(path); err == nil {
			return fi.Size()
		}
	}
	return 0
}

// Relative paths begin at root's home.
func TestCopyHome(t *testing.T) {
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
	ctx := testContext(t)
	if _, err := pullCopy(t, ctx, a, "f", filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	if _, err := pushCopy(t, ctx, a, filepath.Join(root, "out"), "", false); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(home, "out")); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	r := startRun(t, ctx, a, &wire.ExecStart{Argv: []string{"sh", "-c", "pwd; echo $HOME"}})
	if r.end(t); string(r.stdout) != home+"\n"+home+"\n" {
		t.Errorf("got %q", r.stdout)
	}
}
