package disktest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/disk"
)

// RunWork checks that an implementation keeps what [disk.Work] promises.
func RunWork(t *testing.T, newWork func(t *testing.T) disk.Work) {
	tests := []struct {
		name string
		run  func(*testing.T, disk.Work, disk.Layer)
	}{
		{"Life", testWorkLife},
		{"CreateKeepsWhatIsThere", testWorkKeeps},
		{"CreateFails", testWorkFails},
		{"Copy", testWorkCopies},
		{"Grow", testWorkGrows},
		{"Open", testWorkOpens},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, l := newWork(t), newLayer(t)
			l.Base = ""
			t.Cleanup(func() {
				if err := w.Delete(context.WithoutCancel(t.Context()), bare(l)); err != nil {
					t.Errorf("Delete = %v", err)
				}
				wantEmpty(t, l.Dir)
			})
			tt.run(t, w, l)
		})
	}
}

func testWorkLife(t *testing.T, w disk.Work, l disk.Layer) {
	if err := w.Delete(t.Context(), bare(l)); err != nil {
		t.Errorf("Delete of nothing = %v", err)
	}
	for range 2 { // what was deleted can be made again
		if err := w.Create(t.Context(), l); err != nil {
			t.Fatalf("Create = %v", err)
		}
		path := w.Path(l)
		if !filepath.IsAbs(path) || filepath.Dir(path) != l.Dir {
			t.Errorf("Path = %s, want one in %s", path, l.Dir)
		}
		if fi := wantFile(t, path, l.UID); fi.Size() != l.SizeBytes {
			t.Errorf("the disk has %d bytes, want %d", fi.Size(), l.SizeBytes)
		}
		if names := entries(t, l.Dir); len(names) != 1 {
			t.Errorf("Create made %q, want one file", names)
		}
		for range 2 {
			if err := w.Delete(t.Context(), bare(l)); err != nil {
				t.Errorf("Delete = %v", err)
			}
		}
		wantEmpty(t, l.Dir)
	}
}

// A disk that grows keeps what is in it and whose it is, and never shrinks.
func testWorkGrows(t *testing.T, w disk.Work, l disk.Layer) {
	if err := w.Grow(t.Context(), l); err == nil {
		t.Error("a disk grew that is not there")
	}
	for dir := l.Dir; dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil { // its user must be able to pass, as on a host
			t.Fatal(err)
		}
	}
	if err := w.Create(t.Context(), l); err != nil {
		t.Fatalf("Create = %v", err)
	}
	bigger := l
	bigger.SizeBytes *= 2
	for _, grow := range []disk.Layer{bigger, bigger, l} {
		if err := w.Grow(t.Context(), grow); err != nil {
			t.Errorf("Grow to %d = %v", grow.SizeBytes, err)
		}
		if fi := wantFile(t, w.Path(l), l.UID); fi.Size() != bigger.SizeBytes {
			t.Errorf("the disk has %d bytes, want %d", fi.Size(), bigger.SizeBytes)
		}
	}
	if err := w.Delete(t.Context(), bare(l)); err != nil {
		t.Errorf("Delete = %v", err)
	}
}

// What is on a disk can be read while nobody uses it; on a new one there is
// nothing.
func testWorkOpens(t *testing.T, w disk.Work, l disk.Layer) {
	if _, err := w.Open(t.Context(), l); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of no disk = %v", err)
	}
	if err := w.Create(t.Context(), l); err != nil {
		t.Fatalf("Create = %v", err)
	}
	for range 2 {
		files, err := w.Open(t.Context(), l)
		if err != nil {
			t.Fatalf("Open = %v", err)
		}
		if _, err := files.Open("/no/such"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open of no file = %v", err)
		}
		if err := files.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
}

func testWorkKeeps(t *testing.T, w disk.Work, l disk.Layer) {
	if err := w.Create(t.Context(), l); err != nil {
		t.Fatalf("Create = %v", err)
	}
	const mark = "what the guest wrote"
	f, err := os.OpenFile(w.Path(l), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(mark), l.SizeBytes-4096); err != nil {
		t.Fatal(err)
	}
	bigger := l
	bigger.SizeBytes *= 2
	if err := w.Create(t.Context(), bigger); err != nil {
		t.Fatalf("Create = %v", err)
	}
	if fi := wantFile(t, w.Path(l), l.UID); fi.Size() != l.SizeBytes {
		t.Errorf("the disk has %d bytes now, want %d", fi.Size(), l.SizeBytes)
	}
	got := make([]byte, len(mark))
	if _, err := f.ReadAt(got, l.SizeBytes-4096); err != nil || string(got) != mark {
		t.Errorf("the disk holds %q, %v, want %q", got, err, mark)
	}
}

// A disk begins as its template does, and shares nothing with it.
func testWorkCopies(t *testing.T, w disk.Work, l disk.Layer) {
	const mark = "what a guest filled it with"
	from := newLayer(t)
	t.Cleanup(func() {
		if err := w.Delete(context.WithoutCancel(t.Context()), bare(from)); err != nil {
			t.Errorf("Delete = %v", err)
		}
	})
	if err := w.Create(t.Context(), from); err != nil {
		t.Fatalf("Create = %v", err)
	}
	at := from.SizeBytes - 4096
	write := func(l disk.Layer, text string) {
		t.Helper()
		f, err := os.OpenFile(w.Path(l), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte(text), at)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(l disk.Layer, want string) {
		t.Helper()
		f, err := os.Open(w.Path(l))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got := make([]byte, len(mark))
		if _, err := f.ReadAt(got, at); err != nil || strings.TrimRight(string(got), "\x00") != want {
			t.Errorf("%s holds %q (%v), want %q", w.Path(l), got, err, want)
		}
	}
	write(from, mark)
	l.Template, l.SizeBytes = w.Path(from), from.SizeBytes
	other := l
	other.SizeBytes *= 2
	for _, l := range []disk.Layer{l, other} {
		if err := w.Create(t.Context(), l); err != nil {
			t.Fatalf("Create = %v", err)
		}
		if fi := wantFile(t, w.Path(l), l.UID); fi.Size() != l.SizeBytes {
			t.Errorf("the disk has %d bytes, want %d", fi.Size(), l.SizeBytes)
		}
		holds(l, mark)
		write(l, "another's")
		holds(from, mark)
		if err := w.Delete(t.Context(), bare(l)); err != nil {
			t.Errorf("Delete = %v", err)
		}
	}
	small := l
	small.SizeBytes /= 2
	if err := w.Create(t.Context(), small); err == nil {
		t.Error("Create of a disk that is smaller than its template succeeded")
	}
	wantEmpty(t, l.Dir)
	l.Template += ".gone"
	if err := w.Create(t.Context(), l); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create = %v, want that its template is not there", err)
	}
	wantEmpty(t, l.Dir)
}

func testWorkFails(t *testing.T, w disk.Work, l disk.Layer) {
	for _, size := range []int64{0, -1 << 30, 4096, 1 << 62} {
		bad := l
		bad.SizeBytes = size
		if err := w.Create(t.Context(), bad); err == nil {
			t.Errorf("Create of %d bytes succeeded", size)
		}
		wantEmpty(t, l.Dir)
	}
	if err := w.Create(cancelled(t), l); !errors.Is(err, context.Canceled) {
		t.Errorf("Create = %v, want that it was cancelled", err)
	}
	wantEmpty(t, l.Dir)
	gone := l
	gone.Dir = filepath.Join(l.Dir, "gone")
	if err := w.Create(t.Context(), gone); err == nil {
		t.Error("Create without a directory succeeded")
	}
	if err := w.Delete(t.Context(), bare(gone)); err != nil {
		t.Errorf("Delete without a directory = %v", err)
	}
}
