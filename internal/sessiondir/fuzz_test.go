package sessiondir

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func FuzzStatus(f *testing.F) {
	f.Add([]byte(`{"state":"exited","boot_id":"` + aBootID + `","supervisor":{"pid":7,"start":9},"command":{"pid":8,"start":10},"code":3,"started_at":"2026-01-02T03:04:05Z","stdin_open":true}`))
	f.Add([]byte(`{"state":"failed","signal":"KILL","stage":"check","message":"no such directory"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadStatus(memDir{"status": data})
		if err != nil {
			if !errors.Is(err, ErrGarbled) || len(err.Error()) > 300 {
				t.Errorf("ReadStatus = %v", err)
			}
			return
		}
		dir := t.TempDir()
		if err := s.Write(dir); err != nil {
			t.Fatalf("Write of what was read: %v", err)
		}
		if again, err := ReadStatus(OSDir(dir)); err != nil || again != s {
			t.Errorf("ReadStatus = %+v, %v, was %+v", again, err, s)
		}
	})
}

// Whatever stands in the files, reading ends, and gives of each log every byte
// at most once, in order.
func FuzzLogs(f *testing.F) {
	b := newBed(f, 60)
	for i, text := range []string{"one\n", "two two two\n", "three\n", "four four four four\n", "five\n", "six\n", "seven"} {
		b.write([]Stream{Stdout, Stderr}[i%2], text)
		b.write(Stdout, text)
	}
	var files [8][]byte
	for i, name := range fuzzFiles {
		files[i] = []byte(b.content(f, name))
	}
	b.remove()
	for _, streams := range []uint8{1, 2, 3} {
		f.Add(files[0], files[1], files[2], files[3], files[4], files[5], files[6], files[7], streams, 0, int64(0), int64(-1))
		f.Add(files[0], files[1], files[2], files[3], files[4], files[5], files[6], files[7], streams, 3, t0.UnixNano(), int64(7))
		f.Add(files[0], files[1], files[2], files[1], files[4], files[5], files[6], []byte{}, streams, 2, int64(0), int64(-1))
	}
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i []byte, streams uint8, tail int, since, from int64) {
		data := [][]byte{a, b, c, d, e, g, h, i}
		first, second := memDir{}, memDir{}
		for n, name := range fuzzFiles {
			if len(data[n]) > 0 {
				first[name], second[name] = data[n], data[(n+2)%len(data)] // then something else
			}
		}
		q := Query{Tail: tail}
		if from >= 0 {
			q.From = map[Stream]int64{Stdout: from, Stderr: from / 2}
		}
		if since != 0 {
			q.Since = time.Unix(0, since)
		}
		for n, s := range []Stream{Stdout, Stderr} {
			if streams>>n&1 == 1 {
				q.Streams = append(q.Streams, s)
			}
		}
		if len(q.Streams) == 0 {
			return
		}
		fuzzRead(t, first, q)
		fuzzFollow(t, first, second, q)
	})
}

var fuzzFiles = [8]string{
	"stdout.log", "stdout.idx", "stdout.log.1", "stdout.idx.1",
	"stderr.log", "stderr.idx", "stderr.log.1", "stderr.idx.1",
}

// ordered returns an emit that checks that each stream goes forward.
func ordered(t *testing.T, limit int) func(Chunk) error {
	at := make(map[Stream]int64)
	return func(c Chunk) error {
		if len(c.Data) == 0 || len(c.Data) > chunkSize || c.Offset < at[c.Stream] {
			t.Fatalf("%d bytes at %d after %d", len(c.Data), c.Offset, at[c.Stream])
		}
		at[c.Stream] = c.Offset
		if c.Mark {
			return nil
		}
		at[c.Stream] += int64(len(c.Data))
		if limit -= len(c.Data); limit < 0 {
			t.Fatal("more is given than there is")
		}
		return nil
	}
}

func fuzzRead(t *testing.T, d memDir, q Query) {
	limit := 0
	for name, data := range d {
		if strings.Contains(name, ".log") {
			limit += len(data)
		}
	}
	if err := Read(context.Background(), d, q, ordered(t, limit)); err != nil {
		t.Fatalf("Read = %v", err)
	}
}

// fuzzFollow follows a directory in which something else stands later.
func fuzzFollow(t *testing.T, first, second memDir, q Query) {
	now := first
	limit := 0
	for _, d := range []memDir{first, second} {
		for _, data := range d {
			limit += len(data)
		}
	}
	d := funcDir(func(name string) (File, error) { return now.Open(name) })
	wait := rounds(func() { now = second }, func() {})
	if err := Follow(context.Background(), d, q, wait, ordered(t, limit)); err != nil {
		t.Fatalf("Follow = %v", err)
	}
}
