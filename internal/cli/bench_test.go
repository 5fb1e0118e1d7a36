package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
)

func TestPercentile(t *testing.T) {
	upTo := func(n int) (times []time.Duration) {
		for i := n; i > 0; i-- { // not sorted
			times = append(times, time.Duration(i))
		}
		return times
	}
	for _, tt := range []struct {
		n, p int
		want time.Duration
	}{
		{1, 50, 1}, {1, 99, 1}, {2, 50, 1}, {2, 90, 2}, {3, 50, 2}, {4, 50, 2},
		{10, 50, 5}, {10, 90, 9}, {10, 99, 10}, {100, 50, 50}, {100, 90, 90}, {100, 99, 99}, {200, 99, 198}, {101, 99, 100},
	} {
		times := upTo(tt.n)
		if got := percentile(times, tt.p); got != tt.want {
			t.Errorf("percentile(1 to %d, %d) = %d, want %d", tt.n, tt.p, got, tt.want)
		}
		if !slices.Equal(times, upTo(tt.n)) {
			t.Errorf("percentile(1 to %d, %d) has sorted what it was given", tt.n, tt.p)
		}
	}
}

func TestFiguresOf(t *testing.T) {
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	f := figuresOf("cold", []lap{{ms(3), ms(30)}, {ms(1.2345), ms(10)}, {ms(2), ms(20)}})
	if f.Gone == nil {
		t.Fatal("what it took until all was gone is not told")
	}
	if got, want := fmt.Sprint(f.Name, f.N, f.P50, f.P90, f.P99, f.Max, *f.Gone), fmt.Sprint("cold", 3, 2., 3., 3., 3., 20.); got != want {
		t.Errorf("figuresOf = %s, want %s", got, want)
	}
	f = figuresOf("exec", []lap{{answer: ms(1.2345)}})
	if f.Gone != nil || f.P50 != 1.235 && f.P50 != 1.234 {
		t.Errorf("figuresOf what deletes nothing = %+v", f)
	}
}

func TestBenchRemarks(t *testing.T) {
	r := benchReport{
		Rows:    []benchFigures{{Name: "exec", P50: 10}, {Name: "resume", P50: 9.5}},
		Missing: []missingRow{{Name: "docker", Why: "it is\nodd", Hints: []string{"mend it"}}},
	}
	want := []string{"resume: -0.5 ms to exec", "docker: not measured: it is odd", "hint: mend it"}
	if got := r.remarks(); !slices.Equal(got, want) {
		t.Errorf("remarks = %q, want %q", got, want)
	}
	r.Rows, r.Missing = r.Rows[:1], nil
	if got := r.remarks(); len(got) > 0 {
		t.Errorf("remarks without resume = %q", got)
	}
}

func TestBenchHostLine(t *testing.T) {
	h := benchHost{
		CPU: "A processor", CPUs: 2, MemoryBytes: 3 << 30, Kernel: "6.1.0", Driver: "qemu", DriverVersion: "7.2.22",
		Banger: "v1", Image: "busybox", Network: "none", Load: 1.234,
	}
	if got, want := h.line(), "A processor (2), 3G; Linux 6.1.0; qemu 7.2.22 in software; banger v1; busybox network none; load 1.23"; got != want {
		t.Errorf("line = %q, want %q", got, want)
	}
	h = benchHost{CPUs: 1, MemoryBytes: 1 << 30, Driver: "firecracker", Accelerated: true, Network: "nat"}
	if got, want := h.line(), "unknown processor (1), 1G; Linux unknown; firecracker accelerated; banger unknown; network nat; load 0.00"; got != want {
		t.Errorf("line of what cannot be told = %q, want %q", got, want)
	}
}

func TestBenchKinds(t *testing.T) {
	for _, tt := range []struct {
		n       int
		rows    []string
		want    string // names, or what the error says
		refused bool
	}{
		{20, nil, "cold restored pooled exec resume docker", false},
		{1, []string{"resume", "cold", "cold"}, "cold resume", false},
		{1, []string{}, "--rows is empty", true},
		{1, []string{"warm"}, "there is no row warm; there is cold, restored", true},
		{0, nil, "it takes 1 to", true},
		{maxTurns + 1, nil, "it takes 1 to", true},
	} {
		kinds, err := benchOptions{n: tt.n, rows: tt.rows}.kinds(tt.rows != nil)
		var names []string
		for _, k := range kinds {
			names = append(names, k.name)
		}
		switch {
		case tt.refused && (errkind.Of(err) != errkind.Usage || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%d of %q: %v, want %q", tt.n, tt.rows, err, tt.want)
		case !tt.refused && (err != nil || strings.Join(names, " ") != tt.want):
			t.Errorf("%d of %q: %q, %v, want %q", tt.n, tt.rows, names, err, tt.want)
		}
	}
}

// Whoever has enough of it presses Ctrl-C, and nothing is left.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	root := bed(t)
	f, c := onTerminal(t, root, "bench", "-n", "100000", "--rows", "cold,exec,resume")
	readUntil(t, f, "measure")
	_, err := f.Write([]byte{3})
	must(t, err)
	rest, _ := io.ReadAll(f) // its error is that the terminal was closed
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != 130 {
		t.Errorf("it ended with %v, want 130\n%s", err, rest)
	}
	// The machine of a call that was given up is deleted by the daemon, which
	// may only be about to hear of that.
	waitUntil(t, "no machine is left", func() bool {
		out, err := program(root, "vm", "list", "--names").Output()
		must(t, err)
		return len(out) == 0
	})
}
