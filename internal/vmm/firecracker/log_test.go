package firecracker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLastWords(t *testing.T) {
	const info = "2026-01-01T00:00:00.0 [a1:fc_api:INFO] The API server received a Put request.\n"
	for name, tt := range map[string]struct{ log, want string }{
		"nothing":      {"", ""},
		"no complaint": {info, ""},
		"errors":       {info + "2026-01-01T00:00:00.0 [a1:main:WARN] hm\n" + info + "2026-01-01T00:00:00.0 [a1:main:ERROR] b\x1b[31mad\nError: Bad(…)\n", "hm;b[31mad"},
		"stderr":       {"Arguments parsing error: no\n", "Arguments parsing error: no"},
		"after a hole": {strings.Repeat("\x00", 9000) + "\n2026-01-01T00:00:00.0 [a1:main:ERROR] bad\n", "bad"},
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(tt.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastWords(path); got != tt.want {
			t.Errorf("%s: lastWords = %q, want %q", name, got, tt.want)
		}
	}
}

// A log that is trimmed keeps its end, where it was.
func TestTrimLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := strings.Repeat("x", 3*maxLog) + "\n2026-01-01T00:00:00.0 [a1:main:INFO] Firecracker exiting successfully. exit_code=0\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		trimLog(path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != int64(len(text)) || st.Blocks*512 > maxLog {
		t.Errorf("the log of %d bytes has %d and takes %d", len(text), st.Size, st.Blocks*512)
	}
	if !endedWell(path) {
		t.Error("endedWell = false")
	}
	trimLog(path + ".gone")
}
