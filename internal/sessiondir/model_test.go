package sessiondir

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A model is what a session has written, all in memory, and what the files say
// of the order.
type model struct {
	*bed
	written map[Stream][]byte
}

// A modelLine is one of a model.
type modelLine struct {
	stream Stream
	offset int64
	text   string
	seq    uint64
}

// What is read is what the model has, whatever was written, and wherever it is
// to begin.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{newBed(t, rapid.Int64Range(20, 300).Draw(t, "limit")), make(map[Stream][]byte)}
		defer m.remove()
		t.Repeat(map[string]func(*rapid.T){
			"write": m.writeSome,
			"one":   m.readOne,
			"both":  m.readBoth,
		})
	})
}

func (m *model) writeSome(t *rapid.T) {
	for range rapid.IntRange(1, 8).Draw(t, "writes") {
		s := anyStream.Draw(t, "stream")
		b := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n\n\x00\xff")), 1, 30).Draw(t, "bytes")
		m.clock.advance(time.Duration(rapid.IntRange(0, 20).Draw(t, "ms")) * time.Millisecond)
		m.Write(s, b)
		m.written[s] = append(m.written[s], b...)
	}
}

// kept returns what is kept of a stream, and where it begins.
func (m *model) kept(t *rapid.T, s Stream) (data []byte, base int64) {
	n := namesOf(s)
	for _, name := range []string{n.olderLog, n.log} {
		if f, err := m.dir().Open(name); err == nil {
			f.Close()
			data = append(data, m.content(t, name)...)
		}
	}
	base = int64(len(m.written[s]) - len(data))
	if !bytes.Equal(data, m.written[s][base:]) {
		t.Fatalf("%s holds %q, want the end of %q", s, data, m.written[s])
	}
	return data, base
}

// entries returns those of a stream's indexes.
func (m *model) entries(t *rapid.T, s Stream) (all []entry) {
	n := namesOf(s)
	for _, name := range []string{n.olderIdx, n.idx} {
		if f, err := m.dir().Open(name); err == nil {
			f.Close()
			for b := range slices.Chunk([]byte(m.content(t, name))[headerSize:], entrySize) {
				all = append(all, decodeEntry(b))
			}
		}
	}
	return all
}

// lines returns the lines that are kept of a stream, from an offset on.
func (m *model) lines(t *rapid.T, s Stream, from int64) (all []modelLine) {
	data, at := m.kept(t, s)
	entries := m.entries(t, s)
	for text := range bytes.Lines(data) {
		l := modelLine{stream: s, offset: at, text: string(text)}
		for _, e := range entries {
			if e.offset <= at {
				l.seq = e.seq
			}
		}
		if at >= from {
			all = append(all, l)
		}
		at += int64(len(text))
	}
	return all
}

// since returns where the lines begin that were written at a time or later, and
// whether some of those that are not kept may have been.
func (m *model) since(t *rapid.T, s Stream, when time.Time) (from int64, older bool) {
	data, base := m.kept(t, s)
	for i, e := range m.entries(t, s) {
		if e.time < when.UnixNano() {
			continue
		}
		if i == 0 {
			return base, true
		}
		from := e.offset - base
		if data[from-1] != '\n' {
			from += int64(bytes.IndexByte(data[from:], '\n')) + 1
			if from == e.offset-base { // it does not end
				from = int64(len(data))
			}
		}
		return base + from, false
	}
	return base + int64(len(data)), false
}

func anyQuery(t *rapid.T, m *model) Query {
	q := Query{Tail: rapid.IntRange(-1, 12).Draw(t, "tail")}
	if rapid.Bool().Draw(t, "has since") {
		q.Since = m.clock.t.Add(-time.Duration(rapid.IntRange(-5, 300).Draw(t, "ago")) * time.Millisecond)
	}
	return q
}

func (m *model) readOne(t *rapid.T) {
	s := anyStream.Draw(t, "stream")
	data, base := m.kept(t, s)
	q := anyQuery(t, m)
	q.Streams = []Stream{s}
	from, older := base, true
	end := base + int64(len(data))
	missing := base
	switch {
	case rapid.Bool().Draw(t, "has from"):
		at := rapid.Int64Range(0, end+5).Draw(t, "from")
		q.From = map[Stream]int64{s: at}
		from, missing = min(max(base, at), end), base-at
		older = missing > 0
	case q.Tail < 0:
		from, older = end, false
	default:
		if !q.Since.IsZero() {
			from, older = m.since(t, s, q.Since)
		}
		if lines := m.lines(t, s, from); q.Tail > 0 && q.Tail <= len(lines) {
			from, older = lines[len(lines)-q.Tail].offset, false
		}
	}
	want := string(data[from-base:])
	if older && base > 0 {
		want = fmt.Sprintf("[banger: %d earlier bytes were dropped]\n%s", missing, want)
	}
	if got, _ := read(t, m.dir(), q); got != want {
		t.Fatalf("Read(%+v) = %q, want %q", q, got, want)
	}
	if got := follow(t, m.dir(), q).text.String(); got != want {
		t.Fatalf("Follow(%+v) = %q, want %q", q, got, want)
	}
}

func (m *model) readBoth(t *rapid.T) {
	q := anyQuery(t, m)
	q.Streams = []Stream{Stdout, Stderr}
	var all []modelLine
	for _, s := range q.Streams {
		from := int64(0)
		if !q.Since.IsZero() {
			from, _ = m.since(t, s, q.Since)
		}
		all = append(all, m.lines(t, s, from)...)
	}
	slices.SortStableFunc(all, func(a, b modelLine) int { return cmp.Compare(a.seq, b.seq) })
	switch {
	case q.Tail < 0:
		all = nil
	case q.Tail > 0:
		all = all[max(0, len(all)-q.Tail):]
	}
	var want strings.Builder
	for _, l := range all {
		want.WriteString(l.text)
	}
	var got strings.Builder
	_, chunks := read(t, m.dir(), q)
	for _, c := range chunks {
		if !c.Mark {
			got.Write(c.Data)
		}
	}
	if got.String() != want.String() {
		t.Fatalf("Read(%+v) = %q, want %q", q, got.String(), want.String())
	}
}
