package sessiondir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// fatal is what a test and a run of a property have in common.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// A clock stands still until it is set.
type clock struct{ t time.Time }

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// A bed is a session's directory with a writer.
type bed struct {
	*Logs
	clock *clock
	path  string
	disk  *disk
}

func newBed(t fatal, limit int64) *bed {
	t.Helper()
	path, err := os.MkdirTemp("/dev/shm", "sessiondir-") // memory: these tests make and rename many files
	if err != nil {
		path, err = os.MkdirTemp("", "sessiondir-")
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	b := &bed{clock: &clock{t0}, path: path, disk: &disk{dir: path}}
	b.Logs, err = createLogs(b.disk, LogOptions{LimitBytes: limit, Now: b.clock.now})
	if err != nil {
		t.Fatalf("create logs: %v", err)
	}
	return b
}

// remove ends the bed. It does not wait for the disk.
func (b *bed) remove() {
	b.closed = true
	b.out.close()
	b.err.close()
	os.RemoveAll(b.path)
}

func (b *bed) dir() Dir { return OSDir(b.path) }

func (b *bed) write(s Stream, text string) { b.Write(s, []byte(text)) }

// memDir is a directory in memory.
type memDir map[string][]byte

func (d memDir) Open(name string) (File, error) {
	b, ok := d[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return memFile{bytes.NewReader(b)}, nil
}

var errDamaged = errors.New("damaged")

type memFile struct{ *bytes.Reader }

func (memFile) Close() error           { return nil }
func (f memFile) Size() (int64, error) { return f.Reader.Size(), nil }

// holeFile has bytes from start to end that cannot be read.
type holeFile struct {
	File
	start, end int64
}

func (f holeFile) ReadAt(b []byte, off int64) (int, error) {
	if off < f.start && off+int64(len(b)) > f.start {
		n, err := f.File.ReadAt(b[:f.start-off], off)
		if err == nil {
			err = errDamaged
		}
		return n, err
	}
	if off >= f.start && off < f.end {
		return 0, errDamaged
	}
	return f.File.ReadAt(b, off)
}

// A funcDir opens files in a way of its own.
type funcDir func(name string) (File, error)

func (f funcDir) Open(name string) (File, error) { return f(name) }

// query is one from the beginning.
func query(streams ...Stream) Query { return Query{Streams: streams} }

// An output is what was emitted.
type output struct {
	chunks []Chunk
	text   strings.Builder
}

// emit keeps a chunk, after looking at what holds for each.
func (o *output) emit(t fatal) func(Chunk) error {
	return func(c Chunk) error {
		if len(c.Data) == 0 || len(c.Data) > chunkSize {
			t.Errorf("a chunk of %d bytes", len(c.Data))
		}
		o.text.Write(c.Data)
		c.Data = bytes.Clone(c.Data)
		o.chunks = append(o.chunks, c)
		return nil
	}
}

// read returns what Read gives.
func read(t fatal, d Dir, q Query) (text string, chunks []Chunk) {
	t.Helper()
	var o output
	if err := Read(context.Background(), d, q, o.emit(t)); err != nil {
		t.Fatalf("Read(%+v) = %v", q, err)
	}
	return o.text.String(), o.chunks
}

// wantRead checks what Read gives.
func wantRead(t *testing.T, d Dir, q Query, want string) {
	t.Helper()
	if got, _ := read(t, d, q); got != want {
		t.Errorf("Read(%+v) = %q, want %q", q, short(got), short(want))
	}
}

func short(s string) string {
	if len(s) > 400 {
		return s[:200] + "…" + s[len(s)-200:]
	}
	return s
}

// rounds returns a wait for Follow that runs steps, one each time; the session
// has ended with the last.
func rounds(steps ...func()) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		if len(steps) == 0 {
			return true, ctx.Err()
		}
		steps[0]()
		steps = steps[1:]
		return len(steps) == 0, ctx.Err()
	}
}

func follow(t fatal, d Dir, q Query, steps ...func()) *output {
	t.Helper()
	var o output
	if err := Follow(context.Background(), d, q, rounds(steps...), o.emit(t)); err != nil {
		t.Fatalf("Follow(%+v) = %v", q, err)
	}
	return &o
}

// content returns the bytes of a file of the directory.
func (b *bed) content(t fatal, name string) string {
	t.Helper()
	f, err := b.dir().Open(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return string(data)
}

// onOut begins in stdout at a logical offset.
func onOut(offset int64) map[Stream]int64 { return map[Stream]int64{Stdout: offset} }
