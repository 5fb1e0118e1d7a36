package transfer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// Wherever a copy breaks off, nothing is at its place that is not whole, and
// another goes on: it sends less than all, and the outcome is the same.
func TestResume(t *testing.T) {
	src := t.TempDir() + "/src"
	forest(t, src)
	want := snapshot(t, src)
	o := ReceiveOptions{Names: []string{"src"}, Special: true}
	full, err := carryBy(t, &loop{}, t.TempDir()+"/dst", []string{src}, SendOptions{}, o)
	must(t, err)
	o.Resume = true
	for cut := 1; cut <= full.items; cut++ {
		dir := t.TempDir()
		if _, err := carryBy(t, &loop{cut: cut}, dir+"/dst", []string{src}, SendOptions{}, o); !errors.Is(err, errBroken) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if _, err := os.Lstat(dir + "/dst"); err == nil && cut < full.items {
			t.Fatalf("cut at %d: it is at its place", cut)
		}
		l, err := carryBy(t, &loop{}, dir+"/dst", []string{src}, SendOptions{Resume: true}, o)
		if cut == full.items { // all was there but the last word
			continue
		}
		if err != nil {
			t.Fatalf("resumed after %d: %v", cut, err)
		}
		if diff := cmp.Diff(want, snapshot(t, dir+"/dst")); diff != "" {
			t.Fatalf("resumed after %d: %s", cut, diff)
		}
		if cut > full.items/2 && l.bytes >= full.bytes {
			t.Errorf("resumed after %d: sent all %d bytes again", cut, l.bytes)
		}
		noParts(t, dir)
	}
}

// The same with a file alone, and into directories that are there.
func TestResumeFile(t *testing.T) {
	for name, target := range map[string]string{"new": "dst", "into": "dir", "deep": "dir"} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			put(t, "src/big", random(5*chunk+1))
			put(t, "dir/sub/old", nil)
			put(t, "dir/src/old", nil)
			source, result, o := "src/big", "dst", named("big")
			switch name {
			case "into":
				result = "dir/big"
			case "deep":
				source, result, o = "src", "dir/src/big", named("src")
			}
			if _, err := carryBy(t, &loop{cut: 6}, target, []string{source}, SendOptions{}, o); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			if p := parts(t, "."); len(p) != 1 {
				t.Fatalf("parts after an interruption: %v", p)
			}
			l, err := carryBy(t, &loop{}, target, []string{source}, SendOptions{Resume: true}, o)
			must(t, err)
			same(t, "src/big", result)
			if l.bytes > 4*chunk {
				t.Errorf("sent %d bytes again", l.bytes)
			}
			if l, err = carryBy(t, &loop{}, target, []string{source}, SendOptions{Resume: true}, o); err != nil || l.bytes != 0 {
				t.Errorf("resumed when all was there: %d bytes, %v", l.bytes, err)
			}
			noParts(t, ".")
		})
	}
}

func same(t *testing.T, a, b string) {
	t.Helper()
	x, aerr := os.ReadFile(a)
	y, berr := os.ReadFile(b)
	if aerr != nil || berr != nil || !bytes.Equal(x, y) {
		t.Errorf("%s and %s differ (%d and %d bytes, %v, %v)", a, b, len(x), len(y), aerr, berr)
	}
}

// Without Resume, and when the source has changed, what was left is worth
// nothing, and goes.
func TestPartsReplaced(t *testing.T) {
	for _, change := range []bool{false, true} {
		t.Chdir(t.TempDir())
		put(t, "src", random(5*chunk))
		put(t, "tree/big", random(5*chunk))
		must(t, os.Mkdir("dir", 0o755))
		for _, source := range []string{"src", "tree"} {
			if _, err := carryBy(t, &loop{cut: 5}, "dir", []string{source}, SendOptions{}, named(source)); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
		}
		if p := parts(t, "dir"); len(p) != 3 {
			t.Fatalf("parts after interruptions: %v", p)
		}
		if change {
			put(t, "src", random(5*chunk))
			put(t, "tree/big", random(5*chunk))
		}
		for _, source := range []string{"src", "tree"} {
			must(t, carry(t, "dir", []string{source}, SendOptions{Resume: change}, ReceiveOptions{Names: []string{source}, Resume: change}))
		}
		same(t, "src", "dir/src")
		same(t, "tree/big", "dir/tree/big")
		noParts(t, "dir")
	}
}

// A file that changes between its offer and its turn is sent from its
// beginning.
func TestResumeChanged(t *testing.T) {
	t.Chdir(t.TempDir())
	put(t, "src", random(5*chunk))
	if _, err := carryBy(t, &loop{cut: 4}, "dst", []string{"src"}, SendOptions{}, named("src")); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	l := &loop{forge: func(*wire.CopyHave) { put(t, "src", random(5*chunk)) }}
	_, err := carryBy(t, l, "dst", []string{"src"}, SendOptions{Resume: true}, named("src"))
	must(t, err)
	same(t, "src", "dst")
}

// Two copies of the same: the second waits a moment for the first to let go,
// and never writes into what the other one writes.
func TestTwoAtOnce(t *testing.T) {
	for _, source := range []string{"src", "tree"} {
		t.Chdir(t.TempDir())
		put(t, "src", random(5*chunk))
		put(t, "tree/f", random(5*chunk))
		first := &loop{seen: func(n int, _ *wire.CopyItem) {
			if n != 4 {
				return
			}
			if err := carry(t, "dst", []string{source}, SendOptions{}, named(source)); !errors.Is(err, ErrBusy) {
				t.Errorf("the second: %v", err)
			}
		}}
		_, err := carryBy(t, first, "dst", []string{source}, SendOptions{}, named(source))
		must(t, err)

		r, err := NewReceiver("other", named(source))
		must(t, err)
		if err := Send(context.Background(), &loop{r: r, cut: 4}, []string{source}, SendOptions{}); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		time.AfterFunc(lockTime/10, func() { r.Close() })
		must(t, carry(t, "other", []string{source}, SendOptions{}, named(source)))
		noParts(t, ".")
	}
}

// Who waits for another copy to let go can be called off, and leaves alone what
// that writes.
func TestWaitCalledOff(t *testing.T) {
	for _, source := range []string{"src", "tree", "dir"} {
		t.Chdir(t.TempDir())
		put(t, "src", random(5*chunk))
		put(t, "tree/f", random(5*chunk))
		put(t, "dir/a/f", nil)
		put(t, "dir/b", random(5*chunk))
		if source == "dir" { // which waits below its first level
			must(t, os.MkdirAll("dst/dir", 0o755))
		}
		calledOff := errors.New("called off")
		ctx, cancel := context.WithCancelCause(context.Background())
		first := &loop{seen: func(n int, it *wire.CopyItem) {
			if len(it.GetData()) == 0 || ctx.Err() != nil {
				return
			}
			time.AfterFunc(lockTime/10, func() { cancel(calledOff) })
			_, err := carryBy(t, &loop{ctx: ctx}, "dst", []string{source}, SendOptions{}, named(source))
			if !errors.Is(err, calledOff) || errors.Is(err, ErrBusy) {
				t.Errorf("%s: the second: %v", source, err)
			}
		}}
		_, err := carryBy(t, first, "dst", []string{source}, SendOptions{}, named(source))
		must(t, err)
		if ctx.Err() == nil {
			t.Errorf("%s: there was no second", source)
		}
		noParts(t, ".")
	}
}

// What a copy has by the time that it is called off stays for another.
func TestCalledOffKeeps(t *testing.T) {
	t.Chdir(t.TempDir())
	put(t, "src/a", random(5*chunk))
	put(t, "src/b", random(5*chunk))
	calledOff := errors.New("called off")
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &loop{ctx: ctx, seen: func(_ int, it *wire.CopyItem) {
		if string(it.GetFile().GetName()) == "b" {
			cancel(calledOff)
		}
	}}
	if _, err := carryBy(t, l, "dst", []string{"src"}, SendOptions{}, named("src")); !errors.Is(err, calledOff) {
		t.Errorf("called off: %v", err)
	}
	o := ReceiveOptions{Names: []string{"src"}, Resume: true}
	l, err := carryBy(t, &loop{}, "dst", []string{"src"}, SendOptions{Resume: true}, o)
	must(t, err)
	if l.bytes != 5*chunk {
		t.Errorf("%d bytes were sent again, want those of one file", l.bytes)
	}
	same(t, "src/b", "dst/b")
	noParts(t, ".")
}

// What stands at the name of a part and is none is not written to.
func TestPlantedPart(t *testing.T) {
	for kind, plant := range map[string]func(string) error{
		"link":     func(p string) error { return os.Symlink("victim", p) },
		"hardlink": func(p string) error { return os.Link("victim", p) },
		"fifo":     func(p string) error { return unix.Mkfifo(p, 0o600) },
		"dir":      func(p string) error { return os.MkdirAll(p+"/x", 0o755) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Chdir(t.TempDir())
			put(t, "victim", []byte("victim"))
			put(t, "src", random(5*chunk))
			fi, err := os.Stat("src")
			must(t, err)
			must(t, plant(stageName("dst", fi.Size(), mtime(fi))))
			must(t, carry(t, "dst", []string{"src"}, SendOptions{Resume: true}, ReceiveOptions{Names: []string{"src"}, Resume: true}))
			same(t, "src", "dst")
			if got, err := os.ReadFile("victim"); err != nil || string(got) != "victim" {
				t.Errorf("victim: %q, %v", got, err)
			}
			noParts(t, ".")
		})
	}
}

// An end that lies about what it has gets what it asks for, within the file.
func TestForgedHave(t *testing.T) {
	t.Chdir(t.TempDir())
	put(t, "src/a", random(5*chunk))
	put(t, "src/b", random(7))
	for _, offsets := range [][]int64{{-1, -1}, {1 << 62, 1 << 62}, {5 * chunk, 7}, {}, {0, 0, 0}, {1 << 10, 0}} {
		l := &loop{forge: func(h *wire.CopyHave) { h.Offsets = offsets }}
		_, err := carryBy(t, l, filepath.Join(t.TempDir(), "dst"), []string{"src"}, SendOptions{Resume: true}, named("src"))
		switch {
		case len(offsets) != 2 && !errors.Is(err, ErrInvalid),
			len(offsets) == 2 && offsets[0] == 1<<10 && !errors.Is(err, ErrInvalid), // it has not what it said
			len(offsets) == 2 && offsets[0] != 1<<10 && err != nil:
			t.Errorf("%v: %v", offsets, err)
		}
	}
}
