package firecracker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// line is what Firecracker writes when n bytes were read and 2n written.
func line(n int) string {
	return fmt.Sprintf(`{"utc_timestamp_ms":1,"block_disk0":{"read_bytes":%d},"block":{"read_bytes":%d,"write_bytes":%d,"read_agg":{"min_us":0}},`+
		`"net":{"rx_bytes_count":7},"vmm":{"panic_count":0}}`+"\n", n, n, 2*n)
}

func wantTraffic(t *testing.T, path string, n int64) {
	t.Helper()
	got, err := readTraffic(path)
	if want := (vmm.DiskTraffic{Read: n, Written: 2 * n}); err != nil || got != want {
		t.Errorf("readTraffic = %+v, %v, want %+v", got, err, want)
	}
}

// The figures of every line are summed up, of whole ones alone, and what was
// summed up takes no room.
func TestTraffic(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantTraffic(t, path, 0)
	var total int64
	for round := range 8 {
		text := ""
		for len(text) < 3*sumEvery/2 {
			total += int64(round) + 1
			text += line(round + 1)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			wantTraffic(t, path, total)
		}
		half := line(1000000)
		if _, err := f.WriteString(half[:50]); err != nil {
			t.Fatal(err)
		}
		wantTraffic(t, path, total)
		if _, err := f.WriteString(half[50:]); err != nil {
			t.Fatal(err)
		}
		total += 1000000
		wantTraffic(t, path, total)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > 3*sumEvery {
		t.Errorf("%d bytes of metrics take %d", st.Size, st.Blocks*512)
	}
}

// A file of the VMM's user may hold anything.
func TestHostileMetrics(t *testing.T) {
	good := line(5)
	for name, text := range map[string]string{
		"no JSON":      "hello\n" + good,
		"wrong types":  `{"block":[]}` + "\n" + good,
		"below zero":   `{"block":{"read_bytes":-1,"write_bytes":9}}` + "\n" + good,
		"endless line": strings.Repeat("x", 3*maxMetricsLine) + "\n" + good,
		"zeros":        strings.Repeat("\x00", 100) + "\n" + good,
		"sum beyond":   `{"until":1000000000000,"read":1}` + "\n" + good,
		"sum before":   `{"until":-5,"read":1}` + "\n" + good,
		"sum below":    `{"until":5,"read":-1}` + "\n" + good,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metrics")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			wantTraffic(t, path, 5)
		})
	}
	path := filepath.Join(t.TempDir(), "metrics")
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if _, err := readTraffic(path); err == nil {
		t.Error("readTraffic followed a link")
	}
}

func FuzzTraffic(f *testing.F) {
	f.Add([]byte(line(1)))
	f.Add([]byte(`{"until":1,"read":9223372036854775807}`))
	f.Add([]byte(`{"block":{"read_bytes":9223372036854775807}}` + "\n" + line(1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "metrics")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readTraffic(path); err != nil || got.Read < 0 || got.Written < 0 {
			t.Errorf("readTraffic = %+v, %v", got, err)
		}
	})
}
