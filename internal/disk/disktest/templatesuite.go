package disktest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/disk"
)

// Medium reads and writes attached devices as the VMM does whose layers they
// are. On an error its methods end the test.
type Medium interface {
	// Read returns all that the guest would see.
	Read(t *testing.T, d disk.Device) []byte
	// Write writes as the guest would, and flushes.
	Write(t *testing.T, d disk.Device, data []byte, at int64)
}

// templateSize is that of the disks of [RunTemplates], in bytes: larger than
// their images.
const templateSize = 4 << 20

// templates is what a test of [RunTemplates] has: layers, and a machine's over a
// template in which what is in want was written.
type templates struct {
	disk.Layers
	m    Medium
	l    disk.Layer
	want []byte
}

// RunTemplates checks that an implementation keeps what [disk.Layers] promises of
// layers over a template's, whose file is root's and was a layer's at Path, not
// attached. It needs what RunLayers needs.
func RunTemplates(t *testing.T, newLayers func(t *testing.T) disk.Layers, m Medium) {
	tests := []struct {
		name string
		run  func(*testing.T, templates)
	}{
		{"IsSeen", testTemplateIsSeen},
		{"IsLeftAlone", testTemplateIsLeftAlone},
		{"TwoLayers", testTwoOfTemplate},
		{"Full", testTemplateFull},
		{"CreateFails", testTemplateCreateFails},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := newTemplates(t, newLayers(t), m)
			cleanUp(t, x, x.l)
			tt.run(t, x)
		})
	}
}

// cleanUp deletes a layer when the test ends, and wants nothing left of it.
func cleanUp(t *testing.T, ls disk.Layers, l disk.Layer) {
	t.Cleanup(func() {
		if err := ls.Delete(context.WithoutCancel(t.Context()), bare(l)); err != nil {
			t.Errorf("Delete = %v", err)
		}
		wantEmpty(t, l.Dir)
	})
}

// newTemplates makes a template: the beginning and the end of the disk were
// written, and something across the end of the image.
func newTemplates(t *testing.T, ls disk.Layers, m Medium) templates {
	t.Helper()
	l := newLayer(t)
	l.SizeBytes = templateSize
	if err := os.WriteFile(l.Base, marked(1, baseSize), 0o644); err != nil {
		t.Fatal(err)
	}
	x := templates{Layers: ls, m: m, l: l, want: make([]byte, templateSize)}
	copy(x.want, marked(1, baseSize))
	x.build(t, map[int64][]byte{
		0: marked(2, 512), baseSize - 4096: marked(3, 10_240), templateSize - 65_536: marked(4, 65_536),
	})
	return x
}

// build has a machine write and makes a template of its layer, on which x.l
// stands then.
func (x *templates) build(t *testing.T, writes map[int64][]byte) {
	t.Helper()
	maker := x.l
	maker.ID, maker.Dir, maker.Template = "c0ffee", t.TempDir(), ""
	create(t, x, maker)
	d := attach(t, x, maker)
	for at, data := range writes {
		x.m.Write(t, d, data, at)
		copy(x.want[at:], data)
	}
	if err := x.Detach(t.Context(), bare(maker)); err != nil {
		t.Fatalf("Detach = %v", err)
	}
	path := filepath.Join(t.TempDir(), "root")
	if err := os.Rename(x.Path(maker), path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chown(path, os.Geteuid(), os.Getegid()), os.Chmod(path, 0o444)); err != nil {
		t.Fatal(err)
	}
	if err := x.Delete(t.Context(), bare(maker)); err != nil {
		t.Errorf("Delete = %v", err)
	}
	x.l.Template = path
}

// marked is n bytes that differ with seed, and from sector to sector.
func marked(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed<<4 ^ byte(i) ^ byte(i>>9) ^ byte(i>>17) | 1
	}
	return b
}

// wantContent checks what the guest of a layer sees.
func (x templates) wantContent(t *testing.T, d disk.Device, want []byte) {
	t.Helper()
	got := x.m.Read(t, d)
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("the disk has %d bytes, want %d, and is another from byte %d on", len(got), len(want), at)
}

// What the template's machine wrote is there, and what is written then stays. The
// disk is as large as the template's, whatever is asked for.
func testTemplateIsSeen(t *testing.T, x templates) {
	x.l.SizeBytes *= 2
	create(t, x, x.l)
	wantKept(t, x.Path(x.l), x.l.UID)
	d := attach(t, x, x.l)
	wantDevice(t, d, x.l.UID)
	x.wantContent(t, d, x.want)
	for at, data := range map[int64][]byte{
		256: marked(5, 512), baseSize: marked(6, 8192), templateSize - 4096: marked(7, 4096),
	} {
		x.m.Write(t, d, data, at)
		copy(x.want[at:], data)
	}
	for range 2 {
		if err := x.Detach(t.Context(), bare(x.l)); err != nil {
			t.Errorf("Detach = %v", err)
		}
		create(t, x, x.l) // which leaves it as it is
		x.wantContent(t, attach(t, x, x.l), x.want)
	}
}

// Nothing that is done with a layer changes its template, nor the image.
func testTemplateIsLeftAlone(t *testing.T, x templates) {
	type file struct {
		info os.FileInfo
		data []byte
	}
	look := func(path string) (f file) {
		var err, rerr error
		f.info, err = os.Lstat(path)
		f.data, rerr = os.ReadFile(path)
		if err := errors.Join(err, rerr); err != nil {
			t.Fatal(err)
		}
		return f
	}
	paths := []string{x.l.Template, x.l.Base}
	var before []file
	for _, path := range paths {
		before = append(before, look(path))
	}
	create(t, x, x.l)
	x.m.Write(t, attach(t, x, x.l), marked(5, templateSize), 0)
	if err := x.Delete(t.Context(), bare(x.l)); err != nil {
		t.Errorf("Delete = %v", err)
	}
	for i, path := range paths {
		was, is := before[i], look(path)
		if !os.SameFile(was.info, is.info) || was.info.Mode() != is.info.Mode() ||
			!was.info.ModTime().Equal(is.info.ModTime()) || !bytes.Equal(was.data, is.data) {
			t.Errorf("%s was changed", path)
		}
	}
	create(t, x, x.l)
	x.wantContent(t, attach(t, x, x.l), x.want)
}

// Machines of one template do not see each other's writes, nor the end of one
// another.
func testTwoOfTemplate(t *testing.T, x templates) {
	other := x.l
	other.ID, other.Dir = "d4e5f6", t.TempDir()
	cleanUp(t, x, other)
	var devices []disk.Device
	for _, l := range []disk.Layer{x.l, other} {
		create(t, x, l)
		devices = append(devices, attach(t, x, l))
	}
	wants := [][]byte{bytes.Clone(x.want), bytes.Clone(x.want)}
	for round := range 2 {
		for i, d := range devices {
			// Both where the template has something and where it has nothing.
			for _, at := range []int64{0, baseSize / 2, baseSize, templateSize - 8192} {
				data := marked(byte(5+2*i+round), 4096)
				x.m.Write(t, d, data, at+int64(4096*round))
				copy(wants[i][at+int64(4096*round):], data)
			}
		}
		for i, d := range devices {
			x.wantContent(t, d, wants[i])
		}
	}
	if err := x.Delete(t.Context(), bare(other)); err != nil {
		t.Errorf("Delete = %v", err)
	}
	x.wantContent(t, devices[0], wants[0])
}

// In the template every part of the disk was written; a layer over it takes as
// much once more.
func testTemplateFull(t *testing.T, x templates) {
	x.build(t, map[int64][]byte{0: marked(5, templateSize)})
	create(t, x, x.l)
	d := attach(t, x, x.l)
	x.wantContent(t, d, x.want)
	x.m.Write(t, d, marked(6, templateSize), 0)
	if err := x.Detach(t.Context(), bare(x.l)); err != nil {
		t.Errorf("Detach = %v", err)
	}
	x.wantContent(t, attach(t, x, x.l), marked(6, templateSize))
}

func testTemplateCreateFails(t *testing.T, x templates) {
	good, err := os.ReadFile(x.l.Template)
	if err != nil {
		t.Fatal(err)
	}
	// fresh puts a file of its own in the template's place.
	fresh := func(l *disk.Layer, data []byte) {
		l.Template = filepath.Join(t.TempDir(), "root")
		if err := os.WriteFile(l.Template, data, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	for name, edit := range map[string]func(*disk.Layer) error{
		"missing":   func(l *disk.Layer) error { l.Template += ".gone"; return nil },
		"relative":  func(l *disk.Layer) error { l.Template = "root"; return nil },
		"directory": func(l *disk.Layer) error { l.Template = filepath.Dir(l.Template); return nil },
		"the image": func(l *disk.Layer) error { l.Template = l.Base; return nil },
		"empty":     func(l *disk.Layer) error { fresh(l, nil); return nil },
		"too short": func(l *disk.Layer) error { fresh(l, good[:64]); return nil },
		"zeros":     func(l *disk.Layer) error { fresh(l, make([]byte, len(good))); return nil },
		"a link": func(l *disk.Layer) error {
			to := l.Template
			l.Template = filepath.Join(t.TempDir(), "link")
			return os.Symlink(to, l.Template)
		},
		"a second name": func(l *disk.Layer) error {
			fresh(l, good)
			return os.Link(l.Template, l.Template+".2")
		},
		"of another image": func(l *disk.Layer) error {
			l.Base = filepath.Join(t.TempDir(), "other")
			return os.WriteFile(l.Base, marked(1, baseSize), 0o644)
		},
	} {
		bad := x.l
		if err := edit(&bad); err != nil {
			t.Fatal(err)
		}
		if err := x.Create(t.Context(), bad); err == nil {
			t.Errorf("%s: Create succeeded", name)
		}
		wantEmpty(t, x.l.Dir)
	}
	if err := x.Create(cancelled(t), x.l); !errors.Is(err, context.Canceled) {
		t.Errorf("Create = %v, want that it was cancelled", err)
	}
	wantEmpty(t, x.l.Dir)
	create(t, x, x.l)
}
