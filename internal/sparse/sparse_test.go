package sparse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

const mib = 1 << 20

// file makes a file of size bytes that holds text in some places.
func file(t *testing.T, size int64, text string, places ...int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	errs := []error{f.Truncate(size)}
	for _, at := range places {
		_, err := f.WriteAt([]byte(text), at)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCopy(t *testing.T) {
	for name, from := range map[string]*os.File{
		"empty":          file(t, 0, ""),
		"hole":           file(t, 64*mib, ""),
		"no hole":        file(t, 0, "text", 0),
		"holes":          file(t, 64*mib, "text", 0, 20*mib, 40*mib+1, 64*mib-4),
		"over many ends": file(t, 64*mib, string(bytes.Repeat([]byte("x"), 20*mib)), 3*mib),
	} {
		whole := content(t, from)
		for _, size := range []int64{0, 2, 20*mib + 2, int64(len(whole)), int64(len(whole)) + 5} {
			to := file(t, 0, "")
			if err := Copy(t.Context(), to, from, size); err != nil {
				t.Errorf("%s, %d bytes: Copy = %v", name, size, err)
			}
			want := make([]byte, size)
			copy(want, whole)
			if got := content(t, to); !bytes.Equal(got, want) {
				t.Errorf("%s, %d bytes: the copy is not what was copied, and has %d", name, size, len(got))
			}
			if had, has := blocks(t, from), blocks(t, to); has > had+16 {
				t.Errorf("%s, %d bytes: the copy takes %d blocks, what was copied %d", name, size, has, had)
			}
		}
	}
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func TestCopyFails(t *testing.T) {
	from := file(t, mib, "text", 0)
	shut := file(t, mib, "text", 0)
	shut.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"cancelled":       Copy(ctx, file(t, 0, ""), from, mib),
		"from nowhere":    Copy(t.Context(), file(t, 0, ""), shut, mib),
		"to nowhere":      Copy(t.Context(), shut, from, mib),
		"a negative size": Copy(t.Context(), file(t, 0, ""), from, -1),
	} {
		if err == nil && name != "cancelled" {
			t.Errorf("%s: Copy succeeded", name)
		}
		// Where blocks are shared there is nothing to cancel.
		if name == "cancelled" && err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Copy = %v", name, err)
		}
	}
}
