package agent

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

func TestParseMeminfo(t *testing.T) {
	total, available, err := parseMeminfo(strings.NewReader("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:     24 kB\nHugePages_Total:  0\n"))
	if total != 1000<<10 || available != 24<<10 || err != nil {
		t.Errorf("%d, %d, %v", total, available, err)
	}
	if _, _, err := parseMeminfo(strings.NewReader("MemTotal: many kB\n")); err == nil {
		t.Error("many kB were taken")
	}
}

func TestStats(t *testing.T) {
	got, err := service{}.Stats(t.Context(), connect.NewRequest(&wire.StatsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	m := got.Msg
	if m.GetUptimeSeconds() <= 0 || m.GetMemoryAvailableBytes() <= 0 || m.GetMemoryBytes() < m.GetMemoryAvailableBytes() {
		t.Errorf("Stats = %v", m)
	}
	for _, fs := range []*wire.FileSystem{m.GetRoot(), m.GetWork()} {
		if fs.GetSizeBytes() <= 0 || fs.GetUsedBytes() < 0 || fs.GetUsedBytes() > fs.GetSizeBytes() {
			t.Errorf("file system %v", fs)
		}
	}
}
