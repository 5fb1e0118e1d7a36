package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// benchReport is what a bench found, and its --json. Times are in milliseconds.
type benchReport struct {
	Host    benchHost      `json:"host"`
	Rows    []benchFigures `json:"rows"`
	Missing []missingRow   `json:"missing"`
}

// benchFigures are those of one row.
type benchFigures struct {
	Name string   `json:"name"`
	N    int      `json:"n"`
	P50  float64  `json:"p50_ms"`
	P90  float64  `json:"p90_ms"`
	P99  float64  `json:"p99_ms"`
	Max  float64  `json:"max_ms"`
	Gone *float64 `json:"gone_p50_ms"` // nil: nothing is deleted
}

// missingRow is a row that cannot be measured here.
type missingRow struct {
	Name  string   `json:"name"`
	Why   string   `json:"why"`
	Hints []string `json:"hints"`
}

// figuresOf sums laps up, of which there is at least one.
func figuresOf(name string, laps []lap) benchFigures {
	var answers, gone []time.Duration
	for _, l := range laps {
		answers, gone = append(answers, l.answer), append(gone, l.gone)
	}
	f := benchFigures{
		Name: name, N: len(laps),
		P50: millis(percentile(answers, 50)), P90: millis(percentile(answers, 90)),
		P99: millis(percentile(answers, 99)), Max: millis(slices.Max(answers)),
	}
	if slices.Max(gone) > 0 {
		m := millis(percentile(gone, 50))
		f.Gone = &m
	}
	return f
}

// percentile is the least of times, of which there is at least one, that p of a
// hundred do not exceed: one that was measured, not one between two.
func percentile(times []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	rank := (p*len(sorted) + 99) / 100 // from 1
	return sorted[max(rank, 1)-1]
}

// millis is a time in milliseconds, to a thousandth.
func millis(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

func (a *app) printBench(r *benchReport) error {
	if err := a.print([]byte(clean(r.Host.line()) + "\n\n")); err != nil {
		return err
	}
	t := &table{head: []string{"ROW", "N", "P50 MS", "P90 MS", "P99 MS", "MAX MS", "GONE MS"}}
	for _, f := range r.Rows {
		gone := ""
		if f.Gone != nil {
			gone = tenths(*f.Gone)
		}
		t.add(f.Name, strconv.Itoa(f.N), tenths(f.P50), tenths(f.P90), tenths(f.P99), tenths(f.Max), gone)
	}
	if err := a.printTable(t); err != nil {
		return err
	}
	for _, line := range r.remarks() {
		if err := a.print([]byte(clean(line) + "\n")); err != nil {
			return err
		}
	}
	return nil
}

func tenths(ms float64) string { return strconv.FormatFloat(ms, 'f', 1, 64) }

// remarks are what the table does not say.
func (r *benchReport) remarks() []string {
	var lines []string
	p50 := make(map[string]float64)
	for _, f := range r.Rows {
		p50[f.Name] = f.P50
	}
	if exec, resume := p50["exec"], p50["resume"]; exec > 0 && resume > 0 {
		lines = append(lines, fmt.Sprintf("resume: %+.1f ms to exec", resume-exec))
	}
	for _, m := range r.Missing {
		lines = append(lines, m.Name+": not measured: "+strings.ReplaceAll(m.Why, "\n", " "))
		for _, h := range m.Hints {
			lines = append(lines, "hint: "+h)
		}
	}
	return lines
}
