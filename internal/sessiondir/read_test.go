package sessiondir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestReadOne(t *testing.T) {
	b := newBed(t, 1<<20)
	defer b.remove()
	for _, text := range []string{"one\n", "two\n", "\n", "three\x00\xff\r", "!\n", "four"} {
		b.write(Stdout, text)
		b.clock.advance(time.Second)
	}
	const all = "one\ntwo\n\nthree\x00\xff\r!\nfour"
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	for _, tt := range []struct {
		q    Query
		want string
	}{
		{Query{}, all},
		{Query{Tail: 1}, "four"},
		{Query{Tail: 2}, "three\x00\xff\r!\nfour"},
		{Query{Tail: 3}, "\nthree\x00\xff\r!\nfour"},
		{Query{Tail: 5}, all},
		{Query{Tail: 6}, all},
		{Query{Tail: 1 << 62}, all},
		{Query{Tail: -1}, ""},
		{Query{Since: at(-1)}, all},
		{Query{Since: at(0)}, all},
		{Query{Since: at(1)}, "two\n\nthree\x00\xff\r!\nfour"},
		{Query{Since: at(4)}, "four"}, // the line before was begun earlier
		{Query{Since: at(5)}, "four"},
		{Query{Since: at(6)}, ""},
		{Query{Since: at(1 << 33)}, ""},
		{Query{Since: at(1), Tail: 2}, "three\x00\xff\r!\nfour"},
		{Query{Since: at(2), Tail: 9}, "\nthree\x00\xff\r!\nfour"},
		{Query{From: onOut(0)}, all},
		{Query{From: onOut(5), Tail: 1, Since: at(9)}, all[5:]},
		{Query{From: onOut(int64(len(all)) - 1)}, "r"},
		{Query{From: onOut(int64(len(all)))}, ""},
		{Query{From: onOut(1 << 62)}, ""},
	} {
		tt.q.Streams = []Stream{Stdout}
		wantRead(t, b.dir(), tt.q, tt.want)
		got := follow(t, b.dir(), tt.q).text.String()
		if got != tt.want {
			t.Errorf("Follow(%+v) = %q, want %q", tt.q, got, tt.want)
		}
	}
}

// Of both segments, where the older one begins at byte 20: what begins before
// is told by a mark.
func TestReadKept(t *testing.T) {
	b := newBed(t, 40)
	defer b.remove()
	for i := range 14 { // three segments of 20 bytes, and 10
		b.write(Stdout, fmt.Sprintf("%04d\n", i))
		b.clock.advance(time.Second)
	}
	const kept = "0008\n0009\n0010\n0011\n0012\n0013\n"
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	for _, tt := range []struct {
		q       Query
		missing int
		want    string
	}{
		{Query{}, 40, kept},
		{Query{From: onOut(0)}, 40, kept},
		{Query{From: onOut(39)}, 1, kept},
		{Query{From: onOut(40)}, 0, kept},
		{Query{From: onOut(62)}, 0, kept[22:]},
		{Query{Tail: 5}, 0, kept[5:]},
		{Query{Tail: 6}, 0, kept},
		{Query{Tail: 7}, 40, kept},
		{Query{Since: at(7)}, 40, kept},
		{Query{Since: at(9)}, 0, kept[5:]},
		{Query{Since: at(12)}, 0, kept[20:]},
		{Query{Since: at(13)}, 0, kept[25:]},
		{Query{Since: at(7), Tail: 2}, 0, kept[20:]},
	} {
		tt.q.Streams = []Stream{Stdout}
		if tt.missing > 0 {
			tt.want = fmt.Sprintf("[banger: %d earlier bytes were dropped]\n", tt.missing) + tt.want
		}
		wantRead(t, b.dir(), tt.q, tt.want)
	}
	_, chunks := read(t, b.dir(), query(Stdout))
	if c := chunks[0]; !c.Mark || c.Offset != 40 || !c.Time.Equal(at(8)) {
		t.Errorf("the mark is %+v", c)
	}
}

// What is missing between the segments parts lines.
func TestReadGap(t *testing.T) {
	b := newBed(t, 20)
	defer b.remove()
	b.write(Stdout, "one\ntwo\nthree\n")
	if err := os.Remove(b.path + "/stdout.log"); err != nil {
		t.Fatal(err)
	}
	b.clock.advance(checkEvery)
	b.write(Stdout, "four\n")
	const mark = "[banger: 6 earlier bytes were dropped]\n"
	for tail, want := range []string{
		"one\ntwo\n" + mark + "four\n", "four\n", "two\n" + mark + "four\n", "one\ntwo\n" + mark + "four\n", "one\ntwo\n" + mark + "four\n",
	} {
		q := query(Stdout)
		q.Tail = tail
		wantRead(t, b.dir(), q, want)
		q.Streams = []Stream{Stdout, Stderr}
		wantRead(t, b.dir(), q, want)
	}
}

func TestReadBoth(t *testing.T) {
	b := newBed(t, 1<<20)
	defer b.remove()
	for i, text := range []string{"out 1\n", "err 1\n", "out 2\nout 3\n", "err 2", " goes on\n", "out 4, ", "err 3\n", "goes on\n", "err"} {
		s := Stdout
		if strings.HasPrefix(text, "err") || i == 4 {
			s = Stderr
		}
		b.write(s, text)
		b.clock.advance(time.Second)
	}
	all := []string{"out 1\n", "err 1\n", "out 2\n", "out 3\n", "err 2 goes on\n", "out 4, goes on\n", "err 3\n", "err"}
	q := query(Stderr, Stdout)
	wantRead(t, b.dir(), q, strings.Join(all, ""))
	for n := 1; n < 12; n++ {
		q.Tail = n
		wantRead(t, b.dir(), q, strings.Join(all[max(0, len(all)-n):], ""))
	}
	q.Tail = -1
	wantRead(t, b.dir(), q, "")
	for i := range all {
		q := query(Stdout, Stderr)
		q.Since = t0.Add(time.Duration([]int{0, 1, 2, 2, 3, 5, 6, 8}[i]) * time.Second)
		first := i
		if i == 3 {
			first = 2
		}
		wantRead(t, b.dir(), q, strings.Join(all[first:], ""))
		q.Tail = 2
		wantRead(t, b.dir(), q, strings.Join(all[max(first, len(all)-2):], ""))
	}
	_, chunks := read(t, b.dir(), query(Stdout, Stderr))
	if len(chunks) != 7 || string(chunks[2].Data) != "out 2\nout 3\n" || !chunks[2].Time.Equal(t0.Add(2*time.Second)) {
		t.Errorf("the chunks are %v", chunks)
	}
}

// A line of any length is given in parts, with nothing between them.
func TestReadLongLines(t *testing.T) {
	b := newBed(t, 8<<20)
	defer b.remove()
	long := strings.Repeat("0123456789", 30_000)
	b.write(Stderr, "err 1\n")
	b.write(Stdout, long)
	b.write(Stderr, "err 2\n")
	b.write(Stdout, "end\nout 2\n")
	b.write(Stderr, "err 3\n")
	want := "err 1\n" + long + "end\nerr 2\nout 2\nerr 3\n"
	wantRead(t, b.dir(), query(Stdout, Stderr), want)
	for n, from := range map[int]int{5: 0, 4: 6, 3: 6 + len(long) + 4} {
		q := query(Stdout, Stderr)
		q.Tail = n
		wantRead(t, b.dir(), q, want[from:])
	}
	wantRead(t, b.dir(), Query{Streams: []Stream{Stdout}, Tail: 2}, long+"end\nout 2\n")
	if got := follow(t, b.dir(), query(Stdout, Stderr)).text.String(); got != want {
		t.Errorf("Follow = %q", short(got))
	}
}

// While it is followed, an unfinished line is held back; the other stream is
// not.
func TestFollowHoldsBack(t *testing.T) {
	b := newBed(t, 8<<20)
	defer b.remove()
	var o output
	expect := func(want string) {
		t.Helper()
		if got := o.text.String(); got != want {
			t.Errorf("after it was followed: %q, want %q", short(got), short(want))
		}
		o.text.Reset()
	}
	long := strings.Repeat("x", chunkSize)
	wait := rounds(func() {
		expect("")
		b.write(Stdout, "password: ")
		b.write(Stderr, "one\n")
		b.write(Stderr, "two\nthr")
	}, func() {
		expect("one\ntwo\n")
		b.write(Stdout, "done\n")
		b.write(Stderr, "ee\n")
	}, func() {
		expect("password: done\nthree\n")
		b.write(Stdout, long+"yz")
		b.write(Stderr, "four\n")
	}, func() {
		expect(long + "yzfour\n") // no more of the long line had come
		b.write(Stderr, "five\n")
		b.write(Stdout, "end\nnext\n")
	}, func() {
		expect("end\nfive\nnext\n")
		b.write(Stderr, "last")
		b.write(Stdout, "words")
	})
	if err := Follow(t.Context(), b.dir(), query(Stdout, Stderr), wait, o.emit(t)); err != nil {
		t.Errorf("Follow = %v", err)
	}
	expect("lastwords")
}

// A line that is held back keeps its place, also if its segment goes.
func TestFollowHeldAndOvertaken(t *testing.T) {
	b := newBed(t, 20)
	defer b.remove()
	got := follow(t, b.dir(), query(Stdout, Stderr), func() { b.write(Stderr, "held") }, func() {
		b.write(Stdout, "later\n")
		b.write(Stderr, " back\n12345678\n12345678\n12345678\n")
	}).text.String()
	if want := "held\n[banger: 15 earlier bytes were dropped]\n"; !strings.HasPrefix(got, want) {
		t.Errorf("Follow = %q, want %q first", got, want)
	}
}

func TestFollowFromTheEnd(t *testing.T) {
	for _, streams := range [][]Stream{{Stdout}, {Stdout, Stderr}} {
		b := newBed(t, 8<<20)
		b.write(Stdout, "old\n")
		q := query(streams...)
		q.Tail = -1
		got := follow(t, b.dir(), q, func() { b.write(Stdout, "new\n") }, func() {}, func() { b.write(Stdout, "newer\n") })
		if got.text.String() != "new\nnewer\n" {
			t.Errorf("Follow(%v) = %q", streams, got.text.String())
		}
		b.remove()
	}
}

func TestEndsEarly(t *testing.T) {
	b := newBed(t, 8<<20)
	defer b.remove()
	b.write(Stdout, "one\n")
	stop := errors.New("stop")
	for _, streams := range [][]Stream{{Stdout}, {Stdout, Stderr}} {
		refuse := func(Chunk) error { return stop }
		take := func(Chunk) error { return nil }
		if err := Read(t.Context(), b.dir(), query(streams...), refuse); err != stop {
			t.Errorf("Read = %v, want the error of emit", err)
		}
		if err := Follow(t.Context(), b.dir(), query(streams...), rounds(), refuse); err != stop {
			t.Errorf("Follow = %v, want the error of emit", err)
		}
		wait := func(context.Context) (bool, error) { return false, stop }
		if err := Follow(t.Context(), b.dir(), query(streams...), wait, take); err != stop {
			t.Errorf("Follow = %v, want the error of wait", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stop)
		for _, tail := range []int{0, 5} {
			q := query(streams...)
			q.Tail = tail
			if err := Read(ctx, b.dir(), q, take); err != stop {
				t.Errorf("Read = %v, want the cause", err)
			}
			if err := Follow(ctx, b.dir(), q, rounds(), take); err != stop {
				t.Errorf("Follow = %v, want the cause", err)
			}
		}
	}
	for _, streams := range [][]Stream{nil, {"stdin"}, {Stdout, ""}} {
		if err := Read(t.Context(), b.dir(), query(streams...), nil); err == nil {
			t.Errorf("Read of %q succeeded", streams)
		}
	}
	wantRead(t, memDir{}, query(Stdout, Stderr), "")
	wantRead(t, memDir{}, query(Stdout), "")
}

// Without an index that can be used there are no times and no order, but all
// bytes.
func TestWrongIndex(t *testing.T) {
	b := newBed(t, 80)
	defer b.remove()
	var out, err string
	for i := range 15 {
		b.write(Stdout, fmt.Sprintf("out %d\n", i%10))
		b.write(Stderr, fmt.Sprintf("err %d\n", i%10))
		out, err = out+fmt.Sprintf("out %d\n", i%10), err+fmt.Sprintf("err %d\n", i%10)
	}
	whole := memDir{}
	for _, name := range []string{"stdout.log", "stdout.log.1", "stdout.idx", "stdout.idx.1", "stderr.log", "stderr.log.1", "stderr.idx", "stderr.idx.1"} {
		whole[name] = []byte(b.content(t, name))
	}
	mark := "[banger: 36 earlier bytes were dropped]\n"
	out, err = out[36:], err[36:]
	for name, tt := range map[string]struct {
		spoil func(idx []byte) []byte
		mark  string
	}{
		"none":          {func(b []byte) []byte { return nil }, ""},
		"header cut":    {func(b []byte) []byte { return b[:20] }, ""},
		"entries cut":   {func(b []byte) []byte { return b[:headerSize+10] }, mark},
		"magic":         {func(b []byte) []byte { b[0]++; return b }, ""},
		"base negative": {func(b []byte) []byte { b[23] = 0xff; return b }, ""},
		"entries zero":  {func(b []byte) []byte { clear(b[headerSize:]); return b }, mark},
		"garbage":       {func(b []byte) []byte { return bytes.Repeat([]byte{0x5a}, len(b)) }, ""},
		"long":          {func(b []byte) []byte { return append(b[:headerSize], make([]byte, 1<<20)...) }, mark},
	} {
		d := memDir{}
		for name, data := range whole {
			d[name] = data
			if strings.Contains(name, "idx") {
				d[name] = tt.spoil(bytes.Clone(data))
			}
		}
		t.Log(name)
		wantRead(t, d, query(Stdout, Stderr), tt.mark+out+tt.mark+err)
		wantRead(t, d, query(Stderr), tt.mark+err)
		q := query(Stdout)
		q.Since = t0.Add(time.Hour)
		wantRead(t, d, q, tt.mark+out) // it may have been written then
	}
	// One index says where the other segment begins.
	for _, name := range []string{"stdout.idx", "stdout.idx.1"} {
		d := memDir{}
		for n, data := range whole {
			if n != name {
				d[n] = data
			}
		}
		wantRead(t, d, query(Stdout), mark+out)
	}
}

// What cannot be read is left out and named; all else is given.
func TestDamaged(t *testing.T) {
	line := strings.Repeat("x", 1023) + "\n"
	whole := memDir{"stdout.log": []byte(strings.Repeat(line, 100)), "stderr.log": []byte("err\n")}
	damage := func(name string, start, end int64) Dir {
		return funcDir(func(n string) (File, error) {
			f, err := whole.Open(n)
			if n == name && err == nil {
				if start < 0 {
					return nil, errDamaged
				}
				f = holeFile{f, start, end}
			}
			return f, err
		})
	}
	for _, tt := range []struct {
		start, end int64
		tail       int
		want       string
		at         int64 // of the error; -1 if there is none
	}{
		{-1, 0, 0, "", 0},
		{0, 1 << 40, 0, "[banger: 102400 bytes cannot be read]\n", 0},
		{5000, 5001, 0, strings.Repeat(line, 4) + line[:904] + "\n[banger: 3192 bytes cannot be read]\n" + strings.Repeat(line, 92), 5000},
		{5000, 5001, 3, strings.Repeat(line, 3), -1},
		{99 << 10, 1 << 40, 0, strings.Repeat(line, 99) + "[banger: 1024 bytes cannot be read]\n", 99 << 10},
	} {
		d := damage("stdout.log", tt.start, tt.end)
		for _, streams := range [][]Stream{{Stdout}, {Stdout, Stderr}} {
			q := query(streams...)
			q.Tail = tt.tail
			want := tt.want
			if len(streams) == 2 {
				q.Tail += min(1, tt.tail) // err, without times, comes last
				want += "err\n"
			}
			var o output
			err := Read(t.Context(), d, q, o.emit(t))
			if o.text.String() != want {
				t.Errorf("damaged from %d to %d, Read(%v) = %q, want %q", tt.start, tt.end, streams, short(o.text.String()), short(want))
			}
			re, ok := errors.AsType[*ReadError](err)
			if tt.at < 0 && err != nil || tt.at >= 0 && (!ok || re.Offset != tt.at || re.Stream != Stdout || !errors.Is(err, errDamaged)) {
				t.Errorf("damaged from %d to %d, Read(%v) = %v", tt.start, tt.end, streams, err)
			}
			o = output{}
			if err := Follow(t.Context(), d, q, rounds(func() {}), o.emit(t)); (err != nil) != (tt.at >= 0) || o.text.String() != want {
				t.Errorf("damaged from %d to %d, Follow(%v) = %q, %v", tt.start, tt.end, streams, short(o.text.String()), err)
			}
		}
	}
	d := damage("stdout.idx", -1, 0)
	if got, _ := read(t, d, query(Stdout)); len(got) != 100<<10 {
		t.Errorf("without an index %d bytes were read", len(got))
	}
}

// A file that claims to be longer than it is ends there, and says so.
func TestReadShort(t *testing.T) {
	d := funcDir(func(n string) (File, error) {
		f, err := memDir{"stdout.log": []byte("one\n")}.Open(n)
		if err != nil {
			return nil, err
		}
		return longFile{f}, nil
	})
	for _, streams := range [][]Stream{{Stdout}, {Stdout, Stderr}} {
		var o output
		err := Follow(t.Context(), d, query(streams...), rounds(func() {}, func() {}), o.emit(t))
		if want := "one\n[banger: 1020 bytes cannot be read]\n"; o.text.String() != want || err == nil {
			t.Errorf("Follow = %q, %v, want %q and an error", o.text.String(), err, want)
		}
	}
}

type longFile struct{ File }

func (longFile) Size() (int64, error) { return 1 << 10, nil }

// The tail of ten gigabytes costs what it is long.
func TestReadHuge(t *testing.T) {
	d := funcDir(func(n string) (File, error) {
		if n != "stdout.log" && n != "stdout.idx" {
			return memDir{}.Open(n)
		}
		return hugeFile{}, nil
	})
	for _, streams := range [][]Stream{{Stdout}, {Stdout, Stderr}} {
		q := query(streams...)
		q.Tail = 1
		wantRead(t, d, q, "\n")
		q.Tail = 200
		wantRead(t, d, q, strings.Repeat("\n", 200))
	}
	wantRead(t, d, Query{Streams: []Stream{Stdout}, From: onOut(hugeSize - 5)}, "\n\n\n\n\n")
}

const hugeSize = 10 << 30

// hugeFile has nothing but newlines.
type hugeFile struct{}

func (hugeFile) Close() error         { return nil }
func (hugeFile) Size() (int64, error) { return hugeSize, nil }
func (hugeFile) ReadAt(b []byte, off int64) (int, error) {
	for i := range b {
		b[i] = '\n'
	}
	return len(b), nil
}
