package templatefs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// content is a file of a size with bytes at some places.
func content(size int64, at ...int64) []byte {
	data := make([]byte, size)
	for i, p := range at {
		data[p] = byte(i + 1)
	}
	return data
}

// naive is sum of what is in memory.
func naive(data []byte) string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(data))))
	for n := 0; n*block < len(data); n++ {
		b := data[n*block : min((n+1)*block, len(data))]
		if len(bytes.Trim(b, "\x00")) > 0 {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sparse writes content, each page that is zero as a hole.
func sparse(t *testing.T, data []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for at := 0; at < len(data); at += 4096 {
		page := data[at:min(at+4096, len(data))]
		if len(bytes.Trim(page, "\x00")) == 0 {
			continue
		}
		if _, err := f.WriteAt(page, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSum(t *testing.T) {
	seen := make(map[string]int)
	for i, data := range [][]byte{
		content(0),
		content(1), content(1, 0),
		content(block), content(block, 0), content(block, block-1),
		content(block + 1), content(block+1, block), content(block+1, 0),
		content(3*block, block+5000), content(3*block, 2*block+5000), content(3*block, 5000),
		content(20*block, 7*block, 9*block-1, 19*block+9999),
		content(20*block+10, 7*block, 9*block-1, 19*block+9999),
	} {
		want := naive(data)
		if got, err := sum(context.Background(), sparse(t, data)); err != nil || got != want {
			t.Errorf("%d, with holes: sum = %s, %v, want %s", i, got, err, want)
		}
		full, err := os.Create(filepath.Join(t.TempDir(), "full"))
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		if _, err := full.Write(data); err != nil {
			t.Fatal(err)
		}
		if got, err := sum(context.Background(), full); err != nil || got != want {
			t.Errorf("%d, without holes: sum = %s, %v, want %s", i, got, err, want)
		}
		if other, ok := seen[want]; ok {
			t.Errorf("%d and %d have one sum", i, other)
		}
		seen[want] = i
	}
}

// Holes cost nothing: reading a TiB would take minutes.
func TestSumOfHoles(t *testing.T) {
	f := sparse(t, content(block, 1))
	if err := f.Truncate(1 << 40); err != nil {
		t.Skip(err)
	}
	if _, err := sum(context.Background(), f); err != nil {
		t.Error(err)
	}
}

func TestSumCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := sum(ctx, sparse(t, content(block, 1))); !errors.Is(err, context.Canceled) {
		t.Errorf("sum = %v", err)
	}
}
