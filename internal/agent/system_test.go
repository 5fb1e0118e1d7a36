package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRenameJournal(t *testing.T) {
	tr, root, outside := newTree(t)
	put(t, root, "var/log/journal/old/system.journal", "entries")
	put(t, root, "var/log/journal/other/system.journal", "theirs")
	for range 2 { // then there is none
		if err := renameIn(tr, "/var/log/journal", "old", "new"); err != nil {
			t.Fatal(err)
		}
	}
	if err := renameIn(tr, "/run/log/journal", "old", "new"); err != nil {
		t.Errorf("without a directory: %v", err)
	}
	for name, want := range map[string]string{"new": "entries", "other": "theirs", "old": "-"} {
		if got := content(t, filepath.Join(root, "var/log/journal", name, "system.journal")); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	// What is there under the new name is nobody's to lose.
	put(t, root, "var/log/journal/old/system.journal", "entries")
	if err := renameIn(tr, "/var/log/journal", "old", "new"); err == nil {
		t.Error("renamed over what is there")
	}
	// A link leads nowhere but into the tree.
	put(t, outside, "old/system.journal", "host's")
	symlink(t, outside, root+"/var/log/linked")
	if err := renameIn(tr, "/var/log/linked", "old", "new"); err != nil || content(t, outside+"/old/system.journal") != "host's" {
		t.Errorf("by a link: %v", err)
	}
}

// TestKeep replaces the bundle that a template's agent was started with.
func TestKeep(t *testing.T) {
	tr, root, _ := newTree(t)
	if err := install(tr, templateBundle(), false); err != nil {
		t.Fatal(err)
	}
	data, err := machineBundle().Encode()
	must(t, err)
	if err := keep(tr, data); err != nil {
		t.Fatal(err)
	}
	got, err := readBundle(root + runBundle)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(machineBundle(), got); d != "" {
		t.Error(d)
	}
	if fi, err := os.Stat(root + runBundle); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v (%v)", fi.Mode(), err)
	}
}

func TestPoolInfo(t *testing.T) {
	entropy := []byte(strings.Repeat("e", 32))
	info := poolInfo(entropy)
	ne := binary.NativeEndian
	if bits, size := ne.Uint32(info), ne.Uint32(info[4:]); bits != 256 || size != 32 || string(info[8:]) != string(entropy) {
		t.Errorf("%d bits, %d bytes: %q", bits, size, info[8:])
	}
}

// TestNoMathRand: what it gives may be the same in every machine of a template.
func TestNoMathRand(t *testing.T) {
	for _, dir := range []string{".", "../guest/wire", "../sessiondir", "../transfer", "../atomicfile"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				if strings.HasPrefix(spec.Path.Value, `"math/rand`) {
					t.Errorf("%s imports %s", name, spec.Path.Value)
				}
			}
		}
	}
}

func TestAwaitSize(t *testing.T) {
	dev := filepath.Join(t.TempDir(), "dev")
	put(t, filepath.Dir(dev), "dev", "x")
	never := func(context.Context) error { t.Error("waited"); return errors.New("waited") }
	for _, size := range []int64{0, 1} {
		if err := awaitSize(t.Context(), dev, size, never); err != nil {
			t.Error(err)
		}
	}
	// Announced, or found by looking again, in any number of steps.
	sizes := []int64{4 << 10, 8 << 10, 1 << 20}
	grows := func(context.Context) error {
		must(t, os.Truncate(dev, sizes[0]))
		sizes = sizes[1:]
		if len(sizes) == 1 {
			return os.ErrDeadlineExceeded
		}
		return nil
	}
	if err := awaitSize(t.Context(), dev, 1<<20, grows); err != nil || len(sizes) != 0 {
		t.Errorf("awaitSize = %v, %v to come", err, sizes)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stays := func(context.Context) error { cancel(); return os.ErrDeadlineExceeded }
	if err := awaitSize(ctx, dev, 2<<20, stays); !errors.Is(err, context.Canceled) {
		t.Errorf("awaitSize of a disk that does not grow = %v", err)
	}
	broken := errors.New("broken")
	if err := awaitSize(t.Context(), dev, 2<<20, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("awaitSize = %v", err)
	}
}

func TestRunProgram(t *testing.T) {
	g := newGuestSystem(newSpawner())
	out, err := g.run(testContext(t), []string{"sh", "-c", "echo out; echo err >&2; exit 3"})
	var code exitError
	if !errors.As(err, &code) || code != 3 || out != "out\nerr\n" {
		t.Errorf("run = %q, %v", out, err)
	}
	if out, err := g.run(testContext(t), []string{"sh", "-c", "yes | head -c 1000000"}); err != nil || len(out) != maxLine {
		t.Errorf("run = %d bytes, %v", len(out), err)
	}
	if _, err := g.run(testContext(t), []string{"no-such-program"}); err == nil || errors.As(err, &code) {
		t.Errorf("run of what is not there = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.run(ctx, []string{"sh", "-c", "sleep 1000"}); !errors.Is(err, context.Canceled) {
		t.Errorf("run = %v", err)
	}
}
