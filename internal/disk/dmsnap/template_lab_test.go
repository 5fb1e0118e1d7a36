//go:build lab

package dmsnap

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/disk"
)

// putOnTemplate makes l stand on a template in which the first bytes were
// written, the second half of them first: the COW has them in that order.
func putOnTemplate(t testing.TB, l *disk.Layer, written int64) {
	t.Helper()
	ls, maker := testLayers(), *l
	maker.ID, maker.Dir = "t0", machineDir(t)
	t.Cleanup(func() { deleteLayer(t, maker) })
	d := attach(t, ls, maker)
	data := pattern(7, written)
	half := written / 2 / chunkSize * chunkSize
	write(t, d.Path, data[half:], half)
	write(t, d.Path, data[:half], 0)
	detach(t, ls, maker)
	l.Template = filepath.Join(t.TempDir(), "root")
	must(t, os.Rename(ls.Path(maker), l.Template))
	must(t, os.Chmod(l.Template, 0o444))
}

// Whatever a template's COW is filled with, also where that ends with a full
// area of metadata, a layer over it takes every write.
func TestOverTemplateCannotOverflow(t *testing.T) {
	for _, tt := range []struct{ written, size int64 }{
		{4096, 512 << 12}, {255 << 12, 512 << 12}, {256 << 12, 512 << 12}, {257 << 12, 512 << 12},
		{512 << 12, 512 << 12}, {256<<12 + 512, 256<<12 + 512}, {256 << 12, 256 << 12}, {513 << 12, 1<<22 + 512},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.written, tt.size), func(t *testing.T) {
			wantNothingLeft(t)
			ls, l := testLayers(), newLayer(t, "a1", 1<<19, tt.size)
			putOnTemplate(t, &l, tt.written)
			want := make([]byte, tt.size)
			copy(want, pattern(1, 1<<19))
			copy(want, pattern(7, tt.written))
			d := attach(t, ls, l)
			wantContent(t, d.Path, want)
			if used, total := wantUsage(t, ls, l); used < tt.written || total != cowSize(tt.size) {
				t.Errorf("Usage = %d of %d, want %d or more of %d", used, total, tt.written, cowSize(tt.size))
			}
			// The second half first: what the template has not.
			copy(want, pattern(3, tt.size))
			half := tt.size / 2 / chunkSize * chunkSize
			write(t, d.Path, want[half:], half)
			write(t, d.Path, want[:half], 0)
			used, total := wantUsage(t, ls, l)
			if used < tt.size || used > total {
				t.Errorf("Usage = %d of %d", used, total)
			}
			for range 2 {
				detach(t, ls, l)
				wantContent(t, attach(t, ls, l).Path, want)
			}
		})
	}
}

// A kernel that has used a COW has left the record in it alone; and a layer
// needs its template no more.
func TestTemplateGoes(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 1<<20, 2<<20)
	putOnTemplate(t, &l, 8192)
	want := append(pattern(1, 1<<20), make([]byte, 1<<20)...)
	copy(want, pattern(7, 8192))
	write(t, attach(t, ls, l).Path, pattern(8, 4096), 1<<20)
	copy(want[1<<20:], pattern(8, 4096))
	must(t, os.Remove(l.Template))
	detach(t, ls, l)
	next := l
	next.ID, next.Dir, next.Template = "b2", machineDir(t), ls.Path(l)
	t.Cleanup(func() { deleteLayer(t, next) })
	for _, l := range []disk.Layer{l, next} {
		wantContent(t, attach(t, ls, l).Path, want)
	}
}

// A template of which the kernel could not write all, in its maker's time.
func TestInvalidTemplate(t *testing.T) {
	wantNothingLeft(t)
	ls, l := testLayers(), newLayer(t, "a1", 4<<20, 4<<20)
	maker := l
	maker.ID, maker.Dir = "t0", machineDir(t)
	tool(t, "mount", "-t", "tmpfs", "-o", "size=1m", "none", maker.Dir)
	t.Cleanup(func() { tool(t, "umount", maker.Dir) })
	f, err := os.OpenFile(attach(t, ls, maker).Path, os.O_WRONLY, 0)
	must(t, err)
	f.Write(bytes.Repeat([]byte{1}, 4<<20))
	f.Sync() // one of the two fails
	f.Close()
	detach(t, ls, maker)
	l.Template = ls.Path(maker)
	if err := ls.Create(t.Context(), l); err == nil {
		t.Error("Create over it succeeded")
	} else {
		t.Log(err)
	}
	if es, err := os.ReadDir(l.Dir); err != nil || len(es) != 0 {
		t.Errorf("Create left %v (%v)", es, err)
	}
	deleteLayer(t, maker)
}
