package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
)

var bundle = wire.Bundle{
	Hostname:  "web",
	MachineID: strings.Repeat("0a", 16),
	Token:     strings.Repeat("f1", 16),
	Root:      wire.Mount{Serial: "root", FSType: "ext4"},
}

// an entry is one file of an initramfs.
type entry struct {
	Name, Content string
	Mode          uint64
}

// unpack reads an initramfs by the rules of the kernel (init/initramfs.c),
// which are stricter than cpio's: headers stand at multiples of 4 bytes of the
// whole file, and between archives there are only zeroes.
func unpack(t *testing.T, data []byte) []entry {
	t.Helper()
	var entries []entry
	for at := 0; at < len(data); {
		if data[at] == 0 {
			at++
			continue
		}
		if at%4 != 0 || !bytes.HasPrefix(data[at:], []byte("070701")) {
			t.Fatalf("no header at byte %d of %d", at, len(data))
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(data[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := string(data[at+110 : at+110+nameSize-1])
		body := (at + 110 + nameSize + 3) &^ 3
		at = (body + size + 3) &^ 3
		if name != "TRAILER!!!" {
			entries = append(entries, entry{name, string(data[body : body+size]), uint64(mode)})
		}
	}
	return entries
}

// files makes an agent and modules, of sizes that leave every remainder by 4.
func files(t *testing.T, modules int) (agent string, paths []string) {
	t.Helper()
	dir := t.TempDir()
	agent = filepath.Join(dir, "banger-agent")
	write(t, agent, strings.Repeat("agent", 1000))
	for i := range modules {
		// In an order that is not that of their names.
		p := filepath.Join(dir, fmt.Sprintf("m%d.ko", modules-i))
		write(t, p, strings.Repeat("m", i+1))
		paths = append(paths, p)
	}
	return agent, paths
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func newBoot(t *testing.T, agent string) *Boot {
	t.Helper()
	b, err := New(Options{Agent: agent})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWrite(t *testing.T) {
	encoded, err := bundle.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		agent, modules := files(t, n)
		dir := t.TempDir()
		path := filepath.Join(dir, "initrd")
		write(t, path, "what was there")
		if err := newBoot(t, agent).Write(t.Context(), path, modules, bundle, uint32(os.Geteuid())); err != nil {
			t.Fatal(err)
		}
		want := []entry{{"init", strings.Repeat("agent", 1000), 0o100755}, {"mod", "", 0o40700}}
		for i := range n {
			want = append(want, entry{fmt.Sprintf("mod/%03d-m%d.ko", i, n-i), strings.Repeat("m", i+1), 0o100600})
		}
		want = append(want, entry{"banger", "", 0o40700}, entry{wire.BundlePath, string(encoded), 0o100600})
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, unpack(t, data)); d != "" {
			t.Errorf("%d modules: %s", n, d)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != 0o600 {
			t.Errorf("mode %v, want 0600: it holds secrets", fi.Mode())
		}
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("directory holds %v", got)
		}
	}
}

func TestWriteFails(t *testing.T) {
	agent, modules := files(t, 2)
	empty := filepath.Join(t.TempDir(), "empty.ko")
	write(t, empty, "")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	incomplete := bundle
	incomplete.Token = ""
	tests := map[string]struct {
		ctx     context.Context
		modules []string
		bundle  wire.Bundle
	}{
		"module missing":     {t.Context(), []string{modules[0], "/nowhere/x.ko"}, bundle},
		"module empty":       {t.Context(), []string{empty}, bundle},
		"module a directory": {t.Context(), []string{t.TempDir()}, bundle},
		"too many modules":   {t.Context(), make([]string, MaxModules+1), bundle},
		"bundle incomplete":  {t.Context(), modules, incomplete},
		"cancelled":          {canceled, modules, bundle},
	}
	for name, tt := range tests {
		dir := t.TempDir()
		path := filepath.Join(dir, "initrd")
		write(t, path, "old")
		err := newBoot(t, agent).Write(tt.ctx, path, tt.modules, tt.bundle, uint32(os.Geteuid()))
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if tt.ctx.Err() != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		data, err := os.ReadFile(path)
		if string(data) != "old" {
			t.Errorf("%s: initrd holds %q (%v)", name, data, err)
		}
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("%s: directory holds %v", name, got)
		}
	}
}

func TestWriteAtOnce(t *testing.T) {
	agent, modules := files(t, 3)
	b := newBoot(t, agent)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			path := filepath.Join(dir, fmt.Sprintf("initrd-%d", i%4)) // two for each
			if err := b.Write(t.Context(), path, modules, bundle, uint32(os.Geteuid())); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := names(t, dir)
	if len(got) != 4 {
		t.Fatalf("directory holds %v", got)
	}
	for _, name := range got {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(unpack(t, data)) != 7 {
			t.Errorf("%s: %d entries (%v)", name, len(unpack(t, data)), err)
		}
	}
}

func TestRemove(t *testing.T) {
	agent, _ := files(t, 0)
	b := newBoot(t, agent)
	dir := filepath.Join(t.TempDir(), "a[b]*") // no pattern
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd")
	write(t, path, "x")
	write(t, filepath.Join(dir, ".initrd.123.tmp"), "left by a daemon that was killed")
	write(t, filepath.Join(dir, "other"), "")
	for range 2 {
		if err := b.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"other"}, names(t, dir)); d != "" {
		t.Error(d)
	}
	if err := b.Remove(filepath.Join(dir, "gone", "initrd")); err != nil {
		t.Errorf("Remove in a directory that is gone: %v", err)
	}
}

// A VMM that was broken into may put a directory where its initramfs was.
func TestRemoveOfPlantedDirectory(t *testing.T) {
	agent, _ := files(t, 0)
	b := newBoot(t, agent)
	dir := t.TempDir()
	path := filepath.Join(dir, "initrd")
	if err := os.MkdirAll(filepath.Join(path, "deep", "er"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Remove(path); err != nil {
			t.Errorf("Remove = %v", err)
		}
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("Remove left %v", got)
	}
	write(t, path, "")
	if err := b.Remove(filepath.Join(path, "initrd")); err != nil {
		t.Errorf("Remove where the directory is a file: %v", err)
	}
}

func TestNewWithoutAgent(t *testing.T) {
	for _, path := range []string{"", "/nowhere/banger-agent", t.TempDir()} {
		_, err := New(Options{Agent: path})
		if errkind.Of(err) != errkind.Host {
			t.Errorf("New(%q) = %v, want an error of kind host", path, err)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// BenchmarkWrite is on the path of every start of a machine.
func BenchmarkWrite(b *testing.B) {
	dir := b.TempDir()
	agent := filepath.Join(dir, "agent")
	if err := os.WriteFile(agent, make([]byte, 15<<20), 0o755); err != nil {
		b.Fatal(err)
	}
	w, err := New(Options{Agent: agent})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := w.Write(b.Context(), filepath.Join(dir, "initrd"), nil, bundle, uint32(os.Geteuid())); err != nil {
			b.Fatal(err)
		}
	}
}

// The agent's ID is that of its content, also when that is exchanged.
func TestAgentID(t *testing.T) {
	agent, _ := files(t, 0)
	b := newBoot(t, agent)
	first, err := b.AgentID()
	again, aerr := b.AgentID()
	if err != nil || aerr != nil || len(first) != 64 || again != first {
		t.Errorf("AgentID = %q, %v; then %q, %v", first, err, again, aerr)
	}
	write(t, agent+".new", "another agent")
	if err := os.Rename(agent+".new", agent); err != nil {
		t.Fatal(err)
	}
	if other, err := b.AgentID(); err != nil || other == first {
		t.Errorf("of another agent: AgentID = %q, %v", other, err)
	}
	if err := os.Remove(agent); err != nil {
		t.Fatal(err)
	}
	if id, err := b.AgentID(); err == nil {
		t.Errorf("of none: AgentID = %q", id)
	}
}
