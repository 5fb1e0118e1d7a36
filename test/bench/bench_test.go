//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/test/netns"
)

// runs is how often each row is measured: as BANGER_BENCH_RUNS says.
func runs(t *testing.T) int { return runsOr(t, 20) }

// runsOr is runs, n if nobody says.
func runsOr(t *testing.T, n int) int {
	if text := os.Getenv("BANGER_BENCH_RUNS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("BANGER_BENCH_RUNS = %q", text)
		}
	}
	return n
}

// A row is one thing that is measured, beside its floor: what it cannot be
// quicker than, measured in turns with it.
type row struct {
	name  string
	once  func() time.Duration
	floor *row // nil: it has none
	// goal is what is wrong with the figures, or "".
	goal func(r *row) string
	took []time.Duration
}

// TestBench prints the table of docs/benchmarks.md, and writes it as JSON to
// the file that BANGER_BENCH_JSON names.
func TestBench(t *testing.T) {
	n := runs(t)
	var rows []*row
	for _, g := range []struct {
		name string
		n    int
		rows func(*testing.T) []*row
	}{
		{"machines", n, machineRows},
		{"warm", runsOr(t, warmRuns), warmRows},
		{"first", min(n, 10), firstRows},
		{"list", n, listRows},
		{"sessions", max(n, 50), sessionRows},
		{"copies", min(n, 3), copyRows},
		{"output", min(n, 3), outputRows},
		{"lives", min(n, 5), lifeRows},
	} {
		// What one has made is gone before the next is measured.
		t.Run(g.name, func(t *testing.T) { rows = append(rows, measure(g.n, g.rows(t))...) })
	}
	t.Run("idle", idleDaemon)
	t.Run("many sessions", manySessions)
	t.Run("at once", atOnce)
	t.Run("memory", idleMemory)
	report(t, rows)
}

// report prints the rows, and fails the test if one misses its goal.
func report(t *testing.T, rows []*row) {
	printTable(rows)
	if path := os.Getenv("BANGER_BENCH_JSON"); path != "" {
		writeJSON(t, path, rows)
	}
	for _, r := range rows {
		if r.goal == nil {
			continue
		}
		if miss := r.goal(r); miss != "" {
			t.Errorf("%s: %s", r.name, miss)
		}
	}
}

// measure takes turns among rows, n times.
func measure(n int, rows []*row) []*row {
	for range n {
		for _, r := range rows {
			r.took = append(r.took, r.once())
		}
	}
	return rows
}

func (r *row) at(q float64) time.Duration {
	s := slices.Sorted(slices.Values(r.took))
	return s[int(q*float64(len(s)-1)+0.5)]
}

// ratio is the row's median as a multiple of its floor's.
func (r *row) ratio() float64 { return float64(r.at(0.5)) / float64(r.floor.at(0.5)) }

// atMost is a goal: no more than so many times the floor.
func atMost(times float64) func(*row) string {
	return func(r *row) string {
		if r.ratio() > times {
			return fmt.Sprintf("%.2f times the floor; the goal is %.2f", r.ratio(), times)
		}
		return ""
	}
}

// within is a goal: the median takes no longer than that.
func within(d time.Duration) func(*row) string { return quantileWithin(0.5, d) }

// quantileWithin is a goal: so many of the runs, as a part of all, take no longer
// than that.
func quantileWithin(q float64, d time.Duration) func(*row) string {
	return func(r *row) string {
		if got := r.at(q); got > d {
			return fmt.Sprintf("p%.0f is %s; the goal is %s", 100*q, got, d)
		}
		return ""
	}
}

// both are two goals.
func both(one, other func(*row) string) func(*row) string {
	return func(r *row) string {
		misses := slices.DeleteFunc([]string{one(r), other(r)}, func(s string) bool { return s == "" })
		return strings.Join(misses, ", and ")
	}
}

func ms(d time.Duration) string {
	if d < 100*time.Millisecond {
		return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000)
	}
	return strconv.FormatInt(d.Milliseconds(), 10)
}

func printTable(rows []*row) {
	fmt.Printf("\n| Row | n | p50 ms | p90 ms | p99 ms | max ms | floor | of the floor |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		floor, ratio := "", ""
		if r.floor != nil {
			floor, ratio = r.floor.name, fmt.Sprintf("%.2f", r.ratio())
		}
		fmt.Printf("| %s | %d | %s | %s | %s | %s | %s | %s |\n", r.name, len(r.took), ms(r.at(0.5)), ms(r.at(0.9)), ms(r.at(0.99)), ms(slices.Max(r.took)), floor, ratio)
	}
	fmt.Println()
}

// A figure is a row as JSON; times are in seconds.
type figure struct {
	Name  string  `json:"name"`
	N     int     `json:"n"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
	Floor string  `json:"floor,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
}

func writeJSON(t *testing.T, path string, rows []*row) {
	figures := []figure{}
	for _, r := range rows {
		f := figure{Name: r.name, N: len(r.took), P50: r.at(0.5).Seconds(), P90: r.at(0.9).Seconds(), P99: r.at(0.99).Seconds(), Max: slices.Max(r.took).Seconds()}
		if r.floor != nil {
			f.Floor, f.Ratio = r.floor.name, r.ratio()
		}
		figures = append(figures, f)
	}
	text, err := json.MarshalIndent(map[string]any{"rows": figures}, "", "  ")
	check(t, err)
	check(t, os.WriteFile(path, append(text, '\n'), 0o644))
}

// A bench is a daemon with a root and a network namespace of its own.
type bench struct {
	t    *testing.T
	root string
	bin  string
	host *netns.NS
}

// small is the configuration of a bench whose machines are no more than they must
// be, and whose daemon makes nothing in the background while something is measured.
var small = []string{`image = "busybox"`, `memory = "256M"`, `templates = false`, `pool = 0`}

// newBench returns a daemon with these lines of configuration, whose machines are
// deleted in the end. Images and kernels are those of the tests; what is missing is
// fetched first.
func newBench(t *testing.T, conf ...string) *bench {
	b := newRoot(t, conf...)
	b.banger("vm", "create", "--no-start", "--network", "none", "first") // fetches
	b.banger("vm", "delete", "first")
	b.banger("daemon", "stop")
	b.host, _ = netns.New(t)
	t.Cleanup(func() {
		for _, name := range bytes.Fields(b.banger("vm", "list", "--names")) {
			b.banger("vm", "delete", string(name))
		}
		b.remove()
	})
	return b
}

// newRoot returns a root in which no daemon has run yet.
func newRoot(t *testing.T, conf ...string) *bench {
	root, err := os.MkdirTemp("/tmp", "banger-bench-")
	check(t, err)
	check(t, os.Chmod(root, 0o711))
	bin, cache := findParts(t)
	conf = append([]string{fmt.Sprintf("cache = %q", cache), "vcpus = 1"}, conf...)
	check(t, os.WriteFile(filepath.Join(root, "config.toml"), []byte(strings.Join(conf, "\n")+"\n"), 0o600))
	return &bench{t: t, root: root, bin: bin}
}

// remove stops the daemon and removes its root.
func (b *bench) remove() {
	b.banger("daemon", "stop")
	check(b.t, os.RemoveAll(b.root))
}

// findParts returns where the programs are, and images and kernels: in the lab
// they were handed in.
func findParts(t *testing.T) (bin, cache string) {
	if dir := os.Getenv("BANGER_BENCH_PARTS"); dir != "" {
		return filepath.Join(dir, "bin"), filepath.Join(dir, "cache")
	}
	bin, err := filepath.Abs("../../bin")
	check(t, err)
	cache, err = filepath.Abs("../../.cache/test")
	check(t, err)
	check(t, os.MkdirAll(cache, 0o755))
	return bin, cache
}

func (b *bench) cmd(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(b.bin, "banger"), args...)
	c.Env = append(os.Environ(), "BANGER_ROOT="+b.root, "BANGER_LOG_LEVEL=debug")
	return c
}

// start starts a command where the daemon is, which costs no program.
func (b *bench) start(c *exec.Cmd) error {
	if b.host == nil {
		return c.Start()
	}
	return b.host.Start(c)
}

// banger runs a command and returns its output.
func (b *bench) banger(args ...string) []byte {
	b.t.Helper()
	c := b.cmd(args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	check(b.t, b.start(c))
	if err := c.Wait(); err != nil {
		b.t.Fatalf("banger %q: %v\n%s", args, err, errs.Bytes())
	}
	return out.Bytes()
}

func (b *bench) time(args ...string) time.Duration {
	b.t.Helper()
	start := time.Now()
	b.banger(args...)
	return time.Since(start)
}

func (b *bench) json(v any, args ...string) {
	b.t.Helper()
	check(b.t, json.Unmarshal(b.banger(append(args, "--json")...), v))
}

// A machine is what the benchmarks take of `vm show`.
type machine struct {
	Dir      string `json:"vm_dir"`
	API      string `json:"api_sock_path"`
	Image    string
	Kernel   string
	Template string
	Handles  struct{ PID int }
}

func (b *bench) show(name string) (m machine) {
	b.t.Helper()
	b.json(&m, "vm", "show", name)
	return m
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
