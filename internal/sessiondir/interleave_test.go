package sessiondir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A stage is a writer that stops before each change of the directory, so that a
// reader can be run between any two of them.
type stage struct {
	*bed
	step  chan struct{}
	at    chan struct{} // it has come to a change
	ended chan struct{}
	torn  int // how many bytes of the change that a crash meets are written

	crashed bool
	written map[Stream][]byte // all of it, by logical offset
	bases   map[Stream][]int64
}

var errCrash = errors.New("crash")

// A staged is one write of a stage, and how much later than the one before.
type staged struct {
	stream Stream
	text   string
	after  time.Duration
}

// drawStage returns a stage of n lines that are numbered over both streams.
func drawStage(t *rapid.T, n int) *stage {
	var writes []staged
	for i := range n {
		w := staged{stream: anyStream.Draw(t, "stream"), after: time.Duration(rapid.IntRange(0, 15).Draw(t, "ms")) * time.Millisecond}
		w.text = fmt.Sprintf("%04d %s\n", i, strings.Repeat("x", rapid.IntRange(0, 12).Draw(t, "more")))
		writes = append(writes, w)
	}
	return newStage(t, rapid.Int64Range(40, 400).Draw(t, "limit"), writes)
}

// newStage returns a writer that stands before its first change.
func newStage(t fatal, limit int64, writes []staged) *stage {
	s := &stage{
		bed: newBed(t, limit), step: make(chan struct{}),
		at: make(chan struct{}, 1), ended: make(chan struct{}),
		written: make(map[Stream][]byte), bases: make(map[Stream][]int64),
	}
	for _, w := range writes {
		s.written[w.stream] = append(s.written[w.stream], w.text...)
	}
	s.disk.testOnlyFault = func(_, _ string, n int) (int, error) {
		s.at <- struct{}{}
		if _, ok := <-s.step; !ok {
			n, s.torn = min(n, s.torn), 0
			return n, errCrash
		}
		return n, nil
	}
	go func() {
		defer close(s.ended)
		for _, w := range writes {
			s.clock.advance(w.after)
			s.write(w.stream, w.text)
		}
	}()
	s.arrive()
	return s
}

var anyStream = rapid.SampledFrom([]Stream{Stdout, Stderr})

// arrive waits until the writer stands before a change, or has ended.
func (s *stage) arrive() {
	select {
	case <-s.at:
	case <-s.ended:
	}
	for _, w := range []*streamLog{s.out, s.err} {
		stream := Stream(strings.TrimSuffix(w.names.log, ".log"))
		if b := s.bases[stream]; len(b) == 0 || b[len(b)-1] != w.base {
			s.bases[stream] = append(b, w.base)
		}
	}
}

// run lets the writer make so many changes, and reports whether it has ended.
func (s *stage) run(changes int) (ended bool) {
	for range changes {
		select {
		case <-s.ended:
			return true
		case s.step <- struct{}{}:
			s.arrive()
		}
	}
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// crash lets no further change happen, but for a part of a write.
func (s *stage) crash(torn int) {
	s.torn, s.crashed = torn, true
	close(s.step)
	for {
		select {
		case <-s.at:
		case <-s.ended:
			return
		}
	}
}

// A racing is the directory of a stage in which the writer goes on with each
// thing that the reader does.
type racing struct {
	Dir
	go1 func()
}

func (d racing) Open(name string) (File, error) {
	d.go1()
	f, err := d.Dir.Open(name)
	return racingFile{f, d.go1}, err
}

type racingFile struct {
	File
	go1 func()
}

func (f racingFile) ReadAt(b []byte, off int64) (int, error) { f.go1(); return f.File.ReadAt(b, off) }
func (f racingFile) Size() (int64, error)                    { f.go1(); return f.File.Size() }

// checker looks at each chunk of whole lines that a reader is given while the
// writer of a stage goes on.
type checker struct {
	t    fatal
	s    *stage
	both bool
	at   map[Stream]int64 // where the stream goes on
	line string           // the last of all
}

func (c *checker) emit(chunk Chunk) error {
	at := c.at[chunk.Stream]
	if chunk.Mark {
		var n int64
		if _, err := fmt.Sscanf(strings.TrimSpace(string(chunk.Data)), "[banger: %d earlier bytes were dropped]", &n); err != nil {
			c.t.Fatalf("a mark %q: %v", chunk.Data, err)
		}
		if at+n != chunk.Offset {
			c.t.Fatalf("%q at %d, was at %d", chunk.Data, chunk.Offset, at)
		}
		c.lost(chunk.Stream, chunk.Offset)
		c.at[chunk.Stream] = chunk.Offset
		return nil
	}
	if chunk.Offset != at {
		c.t.Fatalf("%s goes on at %d, was at %d", chunk.Stream, chunk.Offset, at)
	}
	end := at + int64(len(chunk.Data))
	if all := c.s.written[chunk.Stream]; end > int64(len(all)) || !bytes.Equal(all[at:end], chunk.Data) {
		c.t.Fatalf("%s holds %q at %d", chunk.Stream, chunk.Data, at)
	}
	c.at[chunk.Stream] = end
	if c.both {
		c.lines(chunk)
	}
	return nil
}

// lines checks that lines are whole and in order.
func (c *checker) lines(chunk Chunk) {
	if !bytes.HasSuffix(chunk.Data, []byte("\n")) {
		if !c.s.crashed {
			c.t.Fatalf("%q is not of whole lines", chunk.Data)
		}
		return // a write was torn
	}
	for l := range bytes.Lines(chunk.Data) {
		if string(l) <= c.line {
			c.t.Fatalf("%s: %q after %q", chunk.Stream, l, c.line)
		}
		c.line = string(l)
	}
}

// lost checks that a mark stands only for segments that have gone: the one after
// them is the older one by now, or is about to be.
func (c *checker) lost(s Stream, to int64) {
	bases := c.s.bases[s]
	i, ok := slices.BinarySearch(bases, to)
	if !ok {
		c.t.Fatalf("%s goes on at %d, segments begin at %v", s, to, bases)
	}
	if _, err := os.Lstat(c.s.path + "/" + namesOf(s).olderLog); i == len(bases)-1 && err == nil {
		c.t.Fatalf("%s goes on at %d, but what was before is there; segments begin at %v", s, to, bases)
	}
}

func streamsOf(t *rapid.T) []Stream {
	return rapid.SampledFrom([][]Stream{{Stdout}, {Stderr}, {Stdout, Stderr}}).Draw(t, "streams")
}

func newChecker(t fatal, s *stage, streams []Stream) *checker {
	return &checker{t: t, s: s, both: len(streams) == 2, at: make(map[Stream]int64)}
}

// drawn returns what to do with each thing that a reader does: mostly nothing,
// sometimes let the writer make a change or many.
func (s *stage) drawn(t *rapid.T) func() {
	changes := rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 3, 10, 40})
	return func() { s.run(changes.Draw(t, "changes")) }
}

// A reader that follows a writer, wherever the two stand, is given what is
// kept, once and in order, and is told what is missing.
func TestFollowBetweenChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStage(t, 60)
		defer s.remove()
		streams := streamsOf(t)
		c := newChecker(t, s, streams)
		go1 := s.drawn(t)
		wait := func(context.Context) (bool, error) { return s.run(1), nil }
		if err := Follow(context.Background(), racing{s.dir(), go1}, query(streams...), wait, c.emit); err != nil {
			t.Fatalf("Follow = %v", err)
		}
		for _, stream := range streams {
			if got, want := c.at[stream], int64(len(s.written[stream])); got != want {
				t.Fatalf("%s was given up to %d of %d bytes", stream, got, want)
			}
		}
	})
}

// Nothing is lost to a reader that looks after each change.
func TestFollowEachChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStage(t, 60)
		defer s.remove()
		streams := streamsOf(t)
		c := newChecker(t, s, streams)
		emit := func(chunk Chunk) error {
			if chunk.Mark {
				t.Fatalf("%q at %d", chunk.Data, chunk.Offset)
			}
			return c.emit(chunk)
		}
		wait := func(context.Context) (bool, error) { return s.run(1), nil }
		if err := Follow(context.Background(), s.dir(), query(streams...), wait, emit); err != nil {
			t.Fatalf("Follow = %v", err)
		}
		for _, stream := range streams {
			if got, want := c.at[stream], int64(len(s.written[stream])); got != want {
				t.Fatalf("%s was given up to %d of %d bytes", stream, got, want)
			}
		}
	})
}

// A reader that comes after any change, or after a crash there, is given a part
// of what was written; no more is missing at its ends than what was not written
// yet, and what has gone.
func TestReadBetweenChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStage(t, 60)
		defer s.remove()
		for ended := false; !ended; ended = s.run(rapid.IntRange(1, 5).Draw(t, "changes")) {
			s.read(t, streamsOf(t))
		}
	})
}

func TestReadAfterCrash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStage(t, 60)
		defer s.remove()
		s.run(rapid.IntRange(0, 300).Draw(t, "changes"))
		bases := map[Stream]int64{Stdout: s.out.end(), Stderr: s.err.end()}
		s.crash(rapid.IntRange(0, 20).Draw(t, "torn"))
		s.read(t, streamsOf(t))
		for _, stream := range []Stream{Stdout, Stderr} {
			c := newChecker(t, s, nil)
			if err := Read(context.Background(), s.dir(), query(stream), c.emit); err != nil {
				t.Fatalf("Read = %v", err)
			}
			if c.at[stream] < bases[stream] {
				t.Fatalf("%s ends at %d, %d bytes were written", stream, c.at[stream], bases[stream])
			}
		}
	})
}

func (s *stage) read(t fatal, streams []Stream) {
	t.Helper()
	c := newChecker(t, s, streams)
	if err := Read(context.Background(), s.dir(), query(streams...), c.emit); err != nil {
		t.Fatalf("Read = %v", err)
	}
	for _, stream := range streams {
		w := s.out
		if stream == Stderr {
			w = s.err
		}
		if c.at[stream] < w.end() {
			t.Fatalf("%s ends at %d, %d bytes were written", stream, c.at[stream], w.end())
		}
	}
}

// Wherever a rotation stands when a reader comes, and at whichever two of the
// things that the reader does it goes on: nothing is given twice, and no more is
// missing than what has gone.
func TestOpenBetweenChanges(t *testing.T) {
	var writes []staged
	for i := range 8 {
		writes = append(writes, staged{stream: Stdout, text: fmt.Sprintf("%04d 67890\n", i)})
	}
	for start := 14; start < 24; start++ { // more than one rotation
		for first := range 12 {
			for second := first; second < 12; second++ {
				for changes := 1; changes < 9; changes++ {
					s := newStage(t, 44, writes)
					s.run(start)
					n := 0
					d := racing{s.dir(), func() {
						switch n++; n {
						case first + 1:
							s.run(1)
						case second + 2:
							s.run(changes)
						}
					}}
					c := newChecker(t, s, []Stream{Stdout})
					before := s.out.end()
					if err := Read(t.Context(), d, query(Stdout), c.emit); err != nil || c.at[Stdout] < before {
						t.Fatalf("from change %d on, going on at %d and by %d at %d, Read ends at %d, %v; %d bytes were written",
							start, first, changes, second, c.at[Stdout], err, before)
					}
					s.crash(0)
					s.remove()
				}
			}
		}
	}
}
