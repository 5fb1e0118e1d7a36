package cli

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"banger/internal/api"
)

// benchHost is what figures depend on. What cannot be told is empty.
type benchHost struct {
	CPU           string  `json:"cpu"`
	CPUs          int     `json:"cpu_count"`
	MemoryBytes   int64   `json:"memory_bytes"`
	Kernel        string  `json:"kernel"`
	Driver        string  `json:"driver"`
	Accelerated   bool    `json:"accelerated"`
	DriverVersion string  `json:"driver_version"`
	Banger        string  `json:"banger_version"`
	Image         string  `json:"image"`   // of machines; empty if there was none
	Network       string  `json:"network"` // theirs: "nat" or "none"
	Load          float64 `json:"load"`    // of the last minute, before the start
}

// host tells of this host, which is the daemon's too.
func (b *bench) host(ctx context.Context) (h benchHost, err error) {
	b.p.brief("wait for the daemon")
	st, err := b.c.Daemon.Status(ctx, connect.NewRequest(&api.StatusRequest{}))
	if err != nil {
		return h, cannot("ask the daemon", err)
	}
	h = benchHost{
		CPUs: runtime.NumCPU(), Driver: st.Msg.Driver, Accelerated: st.Msg.Accelerated,
		DriverVersion: st.Msg.DriverVersion, Banger: st.Msg.Version,
		Image: b.spec.Image, Network: orElse(b.spec.Network, "nat"),
	}
	h.CPU = valueIn(readProc("cpuinfo"), "model name")
	h.Kernel = strings.TrimSpace(readProc("sys/kernel/osrelease"))
	kb, _, _ := strings.Cut(valueIn(readProc("meminfo"), "MemTotal"), " ")
	if n, err := strconv.ParseInt(kb, 10, 64); err == nil {
		h.MemoryBytes = n << 10
	}
	load, _, _ := strings.Cut(readProc("loadavg"), " ")
	h.Load, _ = strconv.ParseFloat(load, 64)
	return h, nil
}

// readProc is what a file under /proc says, "" if that cannot be told.
func readProc(name string) string {
	text, err := os.ReadFile("/proc/" + name)
	if err != nil {
		return ""
	}
	return string(text)
}

// valueIn is the value of the first line "KEY: VALUE".
func valueIn(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// line is all of it for people.
func (h benchHost) line() string {
	how := "in software"
	if h.Accelerated {
		how = "accelerated"
	}
	return fmt.Sprintf("%s (%d), %s; Linux %s; %s; banger %s; %s; load %.2f",
		orElse(h.CPU, "unknown processor"), h.CPUs, size(h.MemoryBytes), orElse(h.Kernel, "unknown"),
		joinWords(h.Driver, h.DriverVersion, how), orElse(h.Banger, "unknown"),
		joinWords(h.Image, "network", h.Network), h.Load)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// joinWords joins those that there are.
func joinWords(words ...string) string {
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}
