package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// A traceEvent is one of a trace's, as who draws it reads it.
type traceEvent struct {
	Name, Cat, Ph string
	Ts, Dur       json.Number // microseconds
	Pid, Tid      int
	Args          map[string]any
}

// from and to are when an event was, in nanoseconds.
func (e traceEvent) from() int64 { return nanos(e.Ts) }
func (e traceEvent) to() int64   { return nanos(e.Ts) + nanos(e.Dur) }

func nanos(n json.Number) int64 {
	whole, rest, _ := strings.Cut(n.String(), ".")
	ns, err := strconv.ParseInt(whole+(rest + "000")[:3], 10, 64)
	if err != nil {
		panic(err)
	}
	return ns
}

// readTrace returns the events of a trace that last, by row, each row in the
// order in which they began. That of a row that is named and holds nothing is
// empty.
func readTrace(text string) (map[string][]traceEvent, error) {
	var doc struct{ TraceEvents []traceEvent }
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return nil, err
	}
	names, byThread := map[int]string{}, map[int][]traceEvent{}
	for _, e := range doc.TraceEvents {
		switch {
		case e.Ph == "M" && e.Name == "thread_name":
			names[e.Tid] = fmt.Sprint(e.Args["name"])
		case e.Ph == "X":
			byThread[e.Tid] = append(byThread[e.Tid], e)
		}
	}
	byRow := make(map[string][]traceEvent)
	for tid, name := range names {
		byRow[name] = append(byRow[name], byThread[tid]...)
		if err := checkNested(byThread[tid]); err != nil {
			return nil, fmt.Errorf("row %s (%d): %w", name, tid, err)
		}
		delete(byThread, tid)
	}
	if len(byThread) > 0 {
		return nil, fmt.Errorf("events in rows without a name: %v", byThread)
	}
	return byRow, nil
}

// checkNested returns an error if what overlaps in one row is not nested.
func checkNested(es []traceEvent) error {
	for i, e := range es {
		if e.from() < 0 || e.to() < e.from() {
			return fmt.Errorf("%q is from %s for %s", e.Name, e.Ts, e.Dur)
		}
		for _, later := range es[i+1:] {
			if later.from() < e.from() || later.from() < e.to() && later.to() > e.to() {
				return fmt.Errorf("%q is not within %q, nor after it", later.Name, e.Name)
			}
		}
	}
	return nil
}

// tracedCmd is "traced FILE ROW/NAME [ROW/PARENT]": it checks a trace, and that
// a row of it holds a stage, once, and if there is a third word, during that.
func tracedCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: traced FILE ROW/NAME [ROW/PARENT]")
	}
	rows, err := readTrace(ts.ReadFile(args[0]))
	ts.Check(err)
	if got := slices.Sorted(maps.Keys(rows)); !slices.Equal(got, []string{"VMM", "banger", "bangerd", "guest"}) {
		ts.Fatalf("rows are %q", got)
	}
	found := func(what string) []traceEvent {
		row, name, _ := strings.Cut(what, "/")
		return slices.DeleteFunc(slices.Clone(rows[row]), func(e traceEvent) bool { return e.Name != name })
	}
	es := found(args[1])
	if neg != (len(es) != 1) || neg && len(es) > 0 {
		ts.Fatalf("%s is there %d times (not: %t):\n%s", args[1], len(es), neg, ts.ReadFile(args[0]))
	}
	if len(args) == 2 {
		return
	}
	parents := found(args[2])
	if len(parents) != 1 || es[0].from() < parents[0].from() || es[0].to() > parents[0].to() {
		ts.Fatalf("%s is not during %s:\n%s", args[1], args[2], ts.ReadFile(args[0]))
	}
}
