package sessiondir

import (
	"bytes"
	"fmt"
	"testing"
)

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{64, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, err := CreateLogs(b.TempDir(), LogOptions{})
			if err != nil {
				b.Fatal(err)
			}
			data := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				l.Write(Stdout, data)
			}
			if err := l.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const size = 16 << 20
	dir := b.TempDir()
	l, err := CreateLogs(dir, LogOptions{})
	if err != nil {
		b.Fatal(err)
	}
	line := bytes.Repeat([]byte("x"), 63)
	line = append(line, '\n')
	for range size / 128 {
		l.Write(Stdout, line)
		l.Write(Stderr, line)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	both := []Stream{Stdout, Stderr}
	for name, q := range map[string]Query{
		"one":      {Streams: both[:1]},
		"both":     {Streams: both},
		"tail":     {Streams: both[:1], Tail: 200},
		"tailBoth": {Streams: both, Tail: 200},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var n int64
			for b.Loop() {
				n = 0
				err := Read(b.Context(), OSDir(dir), q, func(c Chunk) error { n += int64(len(c.Data)); return nil })
				if err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(n)
		})
	}
}
