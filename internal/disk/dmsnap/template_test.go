package dmsnap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/disk"
	"banger/internal/errkind"
)

// overTemplate returns a layer of its own directory over a template's COW, in
// which something stands at both ends and in between, as if the kernel had
// written it. The template is 16 MiB, and read-only.
func overTemplate(t *testing.T) disk.Layer {
	t.Helper()
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	l := disk.Layer{ID: "aa", Dir: t.TempDir(), Base: base, BaseID: "x", SizeBytes: 16 << 20}
	ls := New(Options{Tag: "0a1b2c"})
	if err := ls.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	template := filepath.Join(l.Dir, "root")
	if err := os.Rename(ls.Path(l), template); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1 << 12, 5 << 20, cowSize(16<<20) - 4096} {
		poke(t, template, bytes.Repeat([]byte{byte(at>>12) | 1}, 4096), at)
	}
	if err := os.Chmod(template, 0o444); err != nil {
		t.Fatal(err)
	}
	l.ID, l.Dir, l.Template = "b1", t.TempDir(), template
	return l
}

// poke writes to a file.
func poke(t *testing.T, path string, b []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func slurp(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A COW over a template's is that one, but for the record in it: as large, also
// if another size is asked for, as sparse, and another file.
func TestCreateOverTemplate(t *testing.T) {
	for name, size := range map[string]int64{"smaller": 0, "as large": 16 << 20, "larger": 64 << 20} {
		t.Run(name, func(t *testing.T) {
			ls, l := New(Options{Tag: "0a1b2c"}), overTemplate(t)
			l.SizeBytes = size
			before := slurp(t, l.Template)
			if err := ls.Create(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			got := slurp(t, ls.Path(l))
			if len(got) != len(before) || !bytes.Equal(got[chunkSize:], before[chunkSize:]) {
				t.Error("the COW is not what the template's is")
			}
			if !bytes.Equal(slurp(t, l.Template), before) {
				t.Error("the template's COW was changed")
			}
			p, err := openParts(l)
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			want := record{Version: 1, ID: "b1", Base: l.Base, BaseSize: 1 << 20, BaseID: "x", Size: 16 << 20, Chunk: 8}
			if p.record != want {
				t.Errorf("record = %+v, want %+v", p.record, want)
			}
			st, err := fstat(p.cow)
			if err != nil || st.Blocks*512 > 1<<20 || st.Mode&0o777 != 0o600 {
				t.Errorf("the COW takes %d bytes of the host, mode %o, %v", st.Blocks*512, st.Mode, err)
			}
		})
	}
}

// A machine's layer can be a template's in its turn, and the template may go.
func TestTemplateOfTemplate(t *testing.T) {
	ls, l := New(Options{Tag: "0a1b2c"}), overTemplate(t)
	if err := ls.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.Template); err != nil {
		t.Fatal(err)
	}
	next := l
	next.ID, next.Dir, next.Template = "c2", t.TempDir(), ls.Path(l)
	if err := ls.Create(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(slurp(t, ls.Path(next))[chunkSize:], slurp(t, ls.Path(l))[chunkSize:]) {
		t.Error("the second is not what the first is")
	}
}

func TestBadTemplate(t *testing.T) {
	number := func(at int64, n uint32) func(*testing.T, *disk.Layer) {
		return func(t *testing.T, l *disk.Layer) { poke(t, l.Template, binary.LittleEndian.AppendUint32(nil, n), at) }
	}
	rename := func(t *testing.T, l *disk.Layer) string {
		if err := os.Rename(l.Template, l.Template+".away"); err != nil {
			t.Fatal(err)
		}
		return l.Template + ".away"
	}
	cut := func(size int64) func(*testing.T, *disk.Layer) {
		return func(t *testing.T, l *disk.Layer) {
			if err := os.Truncate(l.Template, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		want  string
		spoil func(*testing.T, *disk.Layer)
	}{
		"missing":          {"no such file", func(t *testing.T, l *disk.Layer) { rename(t, l) }},
		"relative":         {"not absolute", func(t *testing.T, l *disk.Layer) { l.Template = "root" }},
		"a directory":      {"directory", func(t *testing.T, l *disk.Layer) { l.Template = filepath.Dir(l.Template) }},
		"empty":            {"no COW", cut(0)},
		"a header alone":   {"not known", cut(16)},
		"a chunk short":    {"bytes", cut(cowSize(16<<20) - 4096)},
		"a chunk long":     {"bytes", cut(cowSize(16<<20) + 4096)},
		"no magic":         {"no COW", number(0, 0)},
		"a qcow2":          {"no COW", number(0, 0xfb494651)},
		"marked invalid":   {"invalid", number(4, 0)},
		"another version":  {"version 2", number(8, 2)},
		"other chunks":     {"chunks of 16", number(12, 16)},
		"no record":        {"not known", number(recordAt, 0)},
		"of another image": {`content "x"`, func(t *testing.T, l *disk.Layer) { l.BaseID = "y" }},
		"of an image of another path": {"not over", func(t *testing.T, l *disk.Layer) {
			l.Base, l.BaseID = l.Base+".2", ""
			if err := os.WriteFile(l.Base, make([]byte, 1<<20), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		"of an image of another size": {"has 2097152", func(t *testing.T, l *disk.Layer) {
			if err := os.Truncate(l.Base, 2<<20); err != nil {
				t.Fatal(err)
			}
		}},
		"a link": {"symbolic link", func(t *testing.T, l *disk.Layer) {
			if err := os.Symlink(rename(t, l), l.Template); err != nil {
				t.Fatal(err)
			}
		}},
		"a second name": {"2 names", func(t *testing.T, l *disk.Layer) {
			if err := os.Link(l.Template, l.Template+".2"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ls, l := New(Options{Tag: "0a1b2c"}), overTemplate(t)
			tt.spoil(t, &l)
			err := ls.Create(t.Context(), l)
			if err == nil {
				t.Fatal("Create succeeded")
			}
			text := err.Error()
			if !strings.Contains(text, tt.want) || !strings.Contains(text, l.Template) || strings.Contains(text, "\n") {
				t.Errorf("Create = %v, want one line with %s and %q in it", err, l.Template, tt.want)
			}
			if name == "missing" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Create = %v, want that it does not exist", err)
			}
			if name != "relative" && len(errkind.Hints(err)) != 1 {
				t.Errorf("Create = %v, hints %q", err, errkind.Hints(err))
			}
			wantFiles(t, l.Dir)
		})
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != strings.Join(want, " ") {
		t.Errorf("there is %q, want %q", got, want)
	}
}

// looks is a context that is cancelled when it was looked at so many times.
type looks struct {
	context.Context
	left int
}

func (c *looks) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// Also while it is copied, a Create that is cancelled leaves nothing. Three
// parts of the template are not holes.
func TestCreateOverTemplateCancelled(t *testing.T) {
	ls, l := New(Options{Tag: "0a1b2c"}), overTemplate(t)
	looked := 4
	if clones(t, l.Template) {
		looked = 1 // nothing is copied
	}
	for n := range looked {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := ls.Create(&looks{ctx, n}, l); !errors.Is(err, context.Canceled) {
			t.Errorf("Create = %v, want that it was cancelled at look %d", err, n)
		}
		wantFiles(t, l.Dir)
	}
}

// clones reports whether the file system of a file can clone it.
func clones(t *testing.T, path string) bool {
	t.Helper()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(t.TempDir(), "clone"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// What a Create that died had begun is gone after the next, and counts for
// nothing.
func TestCreateAfterCrash(t *testing.T) {
	ls, l := New(Options{Tag: "0a1b2c"}), overTemplate(t)
	begun := []string{".root.cow.1.tmp", ".root.cow.json.2.tmp", "root.cow.json"}
	leave := func() {
		for _, name := range begun {
			if err := os.WriteFile(filepath.Join(l.Dir, name), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	leave()
	bad := l
	bad.Template += ".gone"
	if err := ls.Create(t.Context(), bad); err == nil {
		t.Error("Create over no template succeeded")
	}
	wantFiles(t, l.Dir)
	leave()
	if err := ls.Create(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, l.Dir, "root.cow", "root.cow.json")
	p, err := openParts(l)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
}

// The record stands in the COW, where there is but so much room.
func TestLongRecord(t *testing.T) {
	ls, l := New(Options{Tag: "0a1b2c"}), overTemplate(t)
	l.Template, l.BaseID = "", strings.Repeat("x", chunkSize)
	if err := ls.Create(t.Context(), l); err == nil || !strings.Contains(err.Error(), "record") {
		t.Errorf("Create = %v", err)
	}
	wantFiles(t, l.Dir)
}

func BenchmarkCreateOverTemplate(b *testing.B) {
	const written = 100 << 20
	base := filepath.Join(b.TempDir(), "base")
	if err := os.WriteFile(base, make([]byte, 4096), 0o644); err != nil {
		b.Fatal(err)
	}
	ls := New(Options{Tag: "0a1b2c"})
	l := disk.Layer{ID: "aa", Dir: b.TempDir(), Base: base, SizeBytes: 16 << 30}
	if err := ls.Create(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	f, err := os.OpenFile(ls.Path(l), os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, written), 8192)
	if err := errors.Join(err, f.Close()); err != nil {
		b.Fatal(err)
	}
	l.ID, l.Template, l.Dir = "bb", ls.Path(l), b.TempDir()
	for b.Loop() {
		if err := ls.Create(b.Context(), l); err != nil {
			b.Fatal(err)
		}
		if err := ls.Delete(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
}
