// Command picture draws what banger vm run --trace wrote, for
// docs/benchmarks.md: a line for each stage that took long enough to be seen.
//
//	go run ./test/bench/picture [-least MS] run.json
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

const width = 64 // of the bars, in columns

// stage is an event of the Trace Event Format; times are in microseconds.
type stage struct {
	Name   string  `json:"name"`
	Row    string  `json:"cat"`
	Phase  string  `json:"ph"`
	Time   float64 `json:"ts"`
	Length float64 `json:"dur"`
}

func main() {
	least := flag.Float64("least", 1, "milliseconds of the shortest stage that is drawn")
	flag.Parse()
	if err := draw(os.Stdout, flag.Arg(0), *least*1000); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

// draw draws the stages in a file that took least microseconds or longer.
func draw(w io.Writer, path string, least float64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc struct {
		Stages []stage `json:"traceEvents"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var end float64
	for _, s := range doc.Stages {
		end = max(end, s.Time+s.Length)
	}
	for _, s := range doc.Stages {
		if s.Phase == "X" && s.Length >= least {
			fmt.Fprintf(w, "%7s  %-28s %s %6.1f\n", s.Row, s.Name, s.bar(end), s.Length/1000)
		}
	}
	return nil
}

// bar is the stage's part of the whole, as text.
func (s stage) bar(end float64) string {
	column := func(at float64) int { return int(at / end * width) }
	from, to := column(s.Time), max(column(s.Time+s.Length), column(s.Time)+1)
	return strings.Repeat("·", from) + strings.Repeat("█", to-from) + strings.Repeat("·", max(width-to, 0))
}
