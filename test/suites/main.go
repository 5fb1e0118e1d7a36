// Command suites prints which conformance suite passed where, as a table, from
// what go test -v printed:
//
//	go run ./test/suites host=FILE lab=FILE …
//
// A line may stand after a word in brackets, as the lab prints it.
//
// A suite is a test whose name is Test, the contract, Suite, and what stands
// behind it, as in TestVMMSuiteFirecracker; its cases are subtests. The command
// fails if a case failed, or was skipped without a word.
package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A suite is one contract's, with what was tried against it in columns.
type suite struct {
	cases   []string // in the order in which they were met
	columns []string
	results map[[2]string]string // by case and column
	notes   []string             // what was said instead of running
}

// Suites are those that were met, by contract.
type Suites map[string]*suite

var (
	labLine    = regexp.MustCompile(`^(\[\w+\]) (.*)`)
	runLine    = regexp.MustCompile(`^=== (?:RUN|CONT|NAME) +(\S+)`)
	resultLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) `)
	logLine    = regexp.MustCompile(`^ +\S+\.go:\d+: (.+)`)
	suiteName  = regexp.MustCompile(`^Test(\w+)Suite(\w+?)/([^/]+)$`)
)

func main() {
	all := Suites{}
	for _, arg := range os.Args[1:] {
		where, path, _ := strings.Cut(arg, "=")
		f, err := os.Open(path)
		if err == nil {
			err = all.Read(where, f)
			f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "suites:", err)
			os.Exit(1)
		}
	}
	if !all.Print(os.Stdout) {
		os.Exit(1)
	}
}

// Read adds what go test -v printed at where.
func (all Suites) Read(where string, r io.Reader) error {
	said := make(map[string]string)    // by test, its last word
	current := make(map[string]string) // test, by the word before the line
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		word, line := "", lines.Text()
		if m := labLine.FindStringSubmatch(line); m != nil {
			word, line = m[1], m[2]
		}
		if m := runLine.FindStringSubmatch(line); m != nil {
			current[word] = m[1]
		} else if m := resultLine.FindStringSubmatch(line); m != nil {
			all.add(where, m[2], m[1], said[m[2]])
		} else if m := logLine.FindStringSubmatch(line); m != nil {
			said[current[word]] = m[1]
		}
	}
	return lines.Err()
}

// add adds the result of a test, if it is a suite's case.
func (all Suites) add(where, test, result, said string) {
	m := suiteName.FindStringSubmatch(test)
	if m == nil {
		return
	}
	s, column, name := all[m[1]], m[2]+", "+where, m[3]
	if s == nil {
		s = &suite{results: make(map[[2]string]string)}
		all[m[1]] = s
	}
	if !slices.Contains(s.cases, name) {
		s.cases = append(s.cases, name)
	}
	if !slices.Contains(s.columns, column) {
		s.columns = append(s.columns, column)
	}
	text := map[string]string{"PASS": "passed", "FAIL": "FAILED", "SKIP": "SKIPPED"}[result]
	if result == "SKIP" && said != "" {
		text = "n/a"
		s.notes = append(s.notes, fmt.Sprintf("%s, %s: %s", column, name, said))
	}
	s.results[[2]string{name, column}] = text
}

// Print prints a table for each contract, and reports whether all is well.
func (all Suites) Print(w io.Writer) bool {
	good := len(all) > 0
	for _, contract := range slices.Sorted(maps.Keys(all)) {
		s := all[contract]
		fmt.Fprintf(w, "| %s | %s |\n|%s\n", contract, strings.Join(s.columns, " | "), strings.Repeat(" --- |", len(s.columns)+1))
		for _, name := range s.cases {
			fmt.Fprintf(w, "| %s |", name)
			for _, column := range s.columns {
				text := s.results[[2]string{name, column}]
				good = good && (text == "passed" || text == "n/a")
				fmt.Fprintf(w, " %s |", text)
			}
			fmt.Fprintln(w)
		}
		for _, note := range s.notes {
			fmt.Fprintf(w, "\nn/a: %s\n", note)
		}
		fmt.Fprintln(w)
	}
	return good
}
