//go:build lab && bench

package lab

import (
	"os"
	"testing"
	"time"
)

// TestBench runs the benchmarks of what is real in the lab alone.
func TestBench(t *testing.T) {
	share := t.TempDir()
	o := options(t, share)
	s := suite{
		name: "bench", pkg: "banger/test/bench", tags: "bench", run: "^TestInLab$", time: 30 * time.Minute,
		env: map[string]string{"BANGER_BENCH_PARTS": "/parts", "BANGER_BENCH_RUNS": os.Getenv("BANGER_BENCH_RUNS")},
	}
	compile(t, s, share)
	runSuite(t, bootLab(t, o), s)
}
