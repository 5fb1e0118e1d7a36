package sessiondir

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestCreateLogs(t *testing.T) {
	dir := t.TempDir()
	for _, limit := range []int64{-1, 1, minLimit - 1} {
		if _, err := CreateLogs(dir, LogOptions{LimitBytes: limit}); err == nil {
			t.Errorf("CreateLogs with a limit of %d bytes succeeded", limit)
		}
	}
	if _, err := CreateLogs(filepath.Join(dir, "none"), LogOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CreateLogs in no directory = %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stdout.log.1"), []byte("of another session"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := CreateLogs(dir, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.Write(Stdout, []byte("out\n"))
	l.Write(Stderr, []byte("err\n"))
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	l.Write(Stdout, []byte("late\n"))
	wantRead(t, OSDir(dir), query(Stdout), "out\n")
	wantRead(t, OSDir(dir), query(Stderr), "err\n")
	_, chunks := read(t, OSDir(dir), query(Stderr))
	if d := time.Since(chunks[0].Time); d < 0 || d > time.Minute {
		t.Errorf("it was written at %v", chunks[0].Time)
	}
	if fi, err := os.Stat(filepath.Join(dir, "stdout.log")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("stdout.log: %v, %v, want mode 0600", fi.Mode(), err)
	}
}

// What stands in the way is an error, and leaves no logs.
func TestCreateLogsFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "stderr.log", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateLogs(dir, LogOptions{}); err == nil {
		t.Error("CreateLogs succeeded")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func TestRotate(t *testing.T) {
	b := newBed(t, 20)
	defer b.remove()
	b.write(Stdout, "one\ntwo\nthree\nfo") // parted after two
	if got := b.content(t, "stdout.log.1"); got != "one\ntwo\n" {
		t.Errorf("the older half is %q", got)
	}
	wantRead(t, b.dir(), query(Stdout), "one\ntwo\nthree\nfo")
	b.write(Stdout, "ur\nfive\n")
	if got := b.content(t, "stdout.log.1") + "|" + b.content(t, "stdout.log"); got != "three\nfo|ur\nfive\n" {
		t.Errorf("the halves are %q", got)
	}
	wantRead(t, b.dir(), query(Stdout), "[banger: 8 earlier bytes were dropped]\nthree\nfour\nfive\n")
	b.write(Stdout, "0123456789abcdefghijklmnopqrstuvwxyz")
	wantRead(t, b.dir(), query(Stdout), "[banger: 44 earlier bytes were dropped]\nklmnopqrstuvwxyz")
}

// No log takes more than it may, and no index more than its share.
func TestBounds(t *testing.T) {
	const limit = 1 << 18
	b := newBed(t, limit)
	defer b.remove()
	line := []byte("x\n")
	for range limit {
		b.Write(Stdout, line)
		b.Write(Stderr, line)
		b.clock.advance(time.Second / 50)
	}
	for _, name := range []string{"stdout.log", "stdout.log.1", "stderr.log", "stderr.log.1"} {
		if n := len(b.content(t, name)); n > limit/2 {
			t.Errorf("%s has %d bytes", name, n)
		}
	}
	for _, name := range []string{"stdout.idx.1", "stderr.idx.1"} {
		if n := len(b.content(t, name)); n > indexFree+limit/2/indexShare || n < indexFree {
			t.Errorf("%s has %d bytes", name, n)
		}
	}
}

// Writes of less than 10 ms after one another are one entry, unless the other
// stream comes between.
func TestEntries(t *testing.T) {
	b := newBed(t, 1<<20)
	defer b.remove()
	entries := func(s Stream) int { return (len(b.content(t, string(s)+".idx")) - headerSize) / entrySize }
	for i, tt := range []struct {
		stream   Stream
		after    time.Duration
		out, err int
	}{
		{Stdout, 0, 1, 0},
		{Stdout, 9 * time.Millisecond, 1, 0},
		{Stdout, time.Millisecond, 2, 0},
		{Stderr, 0, 2, 1},
		{Stderr, 0, 2, 1},
		{Stdout, 0, 3, 1},
		{Stdout, -time.Hour, 3, 1}, // the clock was set
		{Stderr, time.Hour, 3, 2},
	} {
		b.clock.advance(tt.after)
		b.write(tt.stream, "x\n")
		if out, err := entries(Stdout), entries(Stderr); out != tt.out || err != tt.err {
			t.Errorf("after write %d there are %d and %d entries, want %d and %d", i, out, err, tt.out, tt.err)
		}
	}
}

// full is a disk on which so many bytes are free. Only writes need any.
func full(free *int) func(string, string, int) (int, error) {
	return func(op, _ string, n int) (int, error) {
		if op != "write" || n <= *free {
			if op == "write" {
				*free -= n
			}
			return n, nil
		}
		n, *free = *free, 0
		return n, syscall.ENOSPC
	}
}

func TestDiskFull(t *testing.T) {
	b := newBed(t, 1<<20)
	defer b.remove()
	free := entrySize + 3
	b.disk.testOnlyFault = full(&free)
	b.write(Stdout, "12345")
	b.write(Stdout, "6789\n")
	b.write(Stderr, "never\n")
	wantRead(t, b.dir(), query(Stdout), "123")
	free = 1 << 20
	b.write(Stdout, "again\n")
	b.write(Stderr, "again\n")
	wantRead(t, b.dir(), query(Stdout), "123\n[banger: 7 bytes were dropped: no space left on device]\nagain\n")
	wantRead(t, b.dir(), query(Stderr), "[banger: 6 bytes were dropped: no space left on device]\nagain\n")

	free = 0
	b.write(Stdout, "at the end")
	free = 1 << 20
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	wantRead(t, b.dir(), Query{Streams: []Stream{Stdout}, Tail: 1}, "[banger: 10 bytes were dropped: no space left on device]\n")
}

// A new segment that cannot be begun is begun later; till then the older half
// is there.
func TestDiskFullWhileRotating(t *testing.T) {
	for _, op := range []string{"create .stdout.idx.tmp", "write .stdout.idx.tmp", "rename stdout.idx", "create stdout.log", "rename stdout.log.1", "remove stdout.log.1"} {
		b := newBed(t, 200)
		first := strings.Repeat("x", 98) + "\n"
		b.write(Stdout, first)
		b.disk.testOnlyFault = func(o, name string, n int) (int, error) {
			if o+" "+name == op {
				return 0, syscall.ENOSPC
			}
			return n, nil
		}
		b.write(Stdout, "three\n")
		b.write(Stdout, "four\n")
		wantRead(t, b.dir(), query(Stdout), first)
		b.disk.testOnlyFault = nil
		b.write(Stdout, "five\n")
		t.Log(op)
		wantRead(t, b.dir(), query(Stdout), first+"[banger: 11 bytes were dropped: no space left on device]\nfive\n")
		b.remove()
	}
}

// What the guest does to the files costs what was in them, and what was written
// before it is noticed; offsets go on.
func TestTakenAway(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(path string) error
		want string
	}{
		"log removed": {
			func(path string) error { return os.Remove(path + "/stdout.log") },
			"[banger: 8 earlier bytes were dropped]\ntwo\n",
		},
		"log moved": {
			func(path string) error { return os.Rename(path+"/stdout.log", path+"/saved") },
			"[banger: 8 earlier bytes were dropped]\ntwo\n",
		},
		"log replaced": {
			func(path string) error {
				return errors.Join(os.WriteFile(path+"/new", []byte("fake"), 0o600), os.Rename(path+"/new", path+"/stdout.log"))
			},
			"[banger: 8 earlier bytes were dropped]\ntwo\n",
		},
		"log cut": {
			func(path string) error { return os.Truncate(path+"/stdout.log", 0) },
			"[banger: 4 earlier bytes were dropped]\nown\ntwo\n",
		},
		"index removed":     {func(path string) error { return os.Remove(path + "/stdout.idx") }, "one\nown\ntwo\n"},
		"index cut":         {func(path string) error { return os.Truncate(path+"/stdout.idx", 30) }, "one\nown\ntwo\n"},
		"other log removed": {func(path string) error { return os.Remove(path + "/stderr.log") }, "one\nown\ntwo\n"},
		"all removed": {
			func(path string) error {
				names, err := filepath.Glob(path + "/*")
				for _, name := range names {
					err = errors.Join(err, os.Remove(name))
				}
				return err
			},
			"[banger: 8 earlier bytes were dropped]\ntwo\n",
		},
	} {
		b := newBed(t, 1<<20)
		got := follow(t, b.dir(), query(Stdout), func() {
			b.write(Stdout, "one\n")
		}, func() {
			if err := tt.do(b.path); err != nil {
				t.Fatal(err)
			}
			b.write(Stdout, "own\n") // not noticed yet
		}, func() {
			b.clock.advance(checkEvery)
			b.write(Stdout, "two\n")
		}).text.String()
		if want := "one\nown\ntwo\n"; got != want {
			t.Errorf("%s: who follows sees %q, want %q", name, got, want)
		}
		if got, _ := read(t, b.dir(), query(Stdout)); got != tt.want {
			t.Errorf("%s: Read = %q, want %q", name, got, tt.want)
		}
		b.clock.advance(time.Second / 2)
		b.write(Stdout, "three\n")
		_, chunks := read(t, b.dir(), Query{Streams: []Stream{Stdout}, Tail: 1})
		if c := chunks[0]; c.Offset != 12 || string(c.Data) != "three\n" {
			t.Errorf("%s: the last line is %q at %d", name, c.Data, c.Offset)
		}
		b.remove()
	}
}

// What others add to a log is of it.
func TestAddedTo(t *testing.T) {
	b := newBed(t, 40)
	defer b.remove()
	b.write(Stdout, "one\n")
	f, err := os.OpenFile(b.path+"/stdout.log", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("added\n"); err != nil {
		t.Fatal(err)
	}
	b.write(Stdout, "two\n")
	b.write(Stdout, "three four\n")
	wantRead(t, b.dir(), query(Stdout), "one\nadded\ntwo\nthree four\n")
}

// What is added to the older half, whose end is known, is not.
func TestAddedToOlder(t *testing.T) {
	b := newBed(t, 20)
	defer b.remove()
	b.write(Stdout, "one\ntwo\nthree\n")
	f, err := os.OpenFile(b.path+"/stdout.log.1", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("added\n"); err != nil {
		t.Fatal(err)
	}
	wantRead(t, b.dir(), query(Stdout), "one\ntwo\nthree\n")
}

// The clock of the guest may be set back; times in the index do not go back.
func TestClockSetBack(t *testing.T) {
	b := newBed(t, 1<<20)
	defer b.remove()
	b.write(Stdout, "one\n")
	b.clock.advance(time.Minute)
	b.write(Stdout, "two\n")
	b.clock.advance(-time.Hour)
	b.write(Stderr, "three\n")
	for _, streams := range [][]Stream{{Stdout, Stderr}, {Stderr, Stdout}} {
		q := query(streams...)
		q.Since = t0.Add(time.Minute)
		wantRead(t, b.dir(), q, "two\nthree\n")
	}
}

func TestWriteConcurrently(t *testing.T) {
	b := newBed(t, 1<<20)
	defer b.remove()
	var wg sync.WaitGroup
	for _, s := range []Stream{Stdout, Stderr} {
		for _, c := range []string{"a", "b"} {
			wg.Go(func() {
				for range 500 {
					b.write(s, strings.Repeat(c, 10)+"\n")
				}
			})
		}
	}
	wg.Wait()
	for _, s := range []Stream{Stdout, Stderr} {
		got, _ := read(t, b.dir(), query(s))
		a, c := strings.Count(got, "aaaaaaaaaa\n"), strings.Count(got, "bbbbbbbbbb\n")
		if a != 500 || c != 500 || len(got) != 11000 {
			t.Errorf("%s holds %d and %d lines in %d bytes", s, a, c, len(got))
		}
	}
}

func TestWriteAllocatesNothing(t *testing.T) {
	b := newBed(t, 64<<20)
	defer b.remove()
	line := bytes.Repeat([]byte("x"), 64)
	if n := testing.AllocsPerRun(1000, func() { b.Write(Stdout, line) }); n > 0 {
		t.Errorf("Write allocates %v times", n)
	}
}

func TestWriteToNoStream(t *testing.T) {
	b := newBed(t, 1<<20)
	defer b.remove()
	defer func() {
		if recover() == nil {
			t.Error("Write to no stream did not panic")
		}
	}()
	b.write("stdin", "x")
}
