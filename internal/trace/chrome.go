package trace

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// process is the one process of a picture; its threads are the rows.
const process = 1

// event is one of the Trace Event Format's, as Chrome, Perfetto and speedscope
// read it: an "X" lasts from Time for Length, an "M" tells of its row.
type event struct {
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Phase    string         `json:"ph"`
	Time     micros         `json:"ts"`
	Length   *micros        `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// micros are nanoseconds, written as microseconds without loss.
type micros int64

func (m micros) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%d.%03d", m/1000, m%1000), nil
}

// Encode returns what was recorded, under a title, as a document of the Trace
// Event Format (its JSON Object Format): an event a line, with times from that
// of the first stage on, which otherData tells.
func (r *Recorder) Encode(title string) ([]byte, error) {
	stages, dropped := r.Stages()
	var began int64
	if len(stages) > 0 {
		began = slices.MinFunc(stages, byStart).Start
	}
	other, err := json.Marshal(map[string]any{
		"began": time.Unix(0, began).UTC().Format(time.RFC3339Nano), "dropped": dropped,
	})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("{\"traceEvents\":[")
	for i, e := range events(title, began, stages) {
		line, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		b.Write(line)
	}
	fmt.Fprintf(&b, "\n],\n\"displayTimeUnit\":\"ms\",\n\"otherData\":%s}\n", other)
	return b.Bytes(), nil
}

// events returns those of stages, the first of which began at began.
func events(title string, began int64, stages []Stage) []event {
	all := []event{about(0, "process_name", "name", title)}
	var xs []event
	for i, l := range lanes(stages) {
		thread := i + 1
		all = append(all, about(thread, "thread_name", "name", l.row), about(thread, "thread_sort_index", "sort_index", thread))
		for _, s := range l.stages {
			length := micros(s.Length)
			xs = append(xs, event{
				Name: s.Name, Category: s.Row, Phase: "X",
				Time: micros(s.Start - began), Length: &length, Process: process, Thread: thread,
			})
		}
	}
	return append(all, xs...)
}

// about is an event that tells of a thread; 0: of the process.
func about(thread int, what, key string, value any) event {
	return event{Name: what, Phase: "M", Process: process, Thread: thread, Args: map[string]any{key: value}}
}

// A lane is a row, or the part of one, whose stages stand side by side or
// within one another, as the format wants them.
type lane struct {
	row    string
	stages []Stage
	open   []int64 // ends of those around the next one, innermost last
}

// take puts s, which begins no sooner than those before, into the lane if it
// fits.
func (l *lane) take(s Stage) bool {
	for len(l.open) > 0 && l.open[len(l.open)-1] <= s.Start {
		l.open = l.open[:len(l.open)-1]
	}
	if len(l.open) > 0 && l.open[len(l.open)-1] < s.end() {
		return false
	}
	l.stages, l.open = append(l.stages, s), append(l.open, s.end())
	return true
}

// lanes parts stages into lanes, at least one for each row there is always.
// What went on beside something else of its row has another lane below.
func lanes(stages []Stage) []*lane {
	var all []*lane
	for _, row := range rows {
		all = append(all, &lane{row: row})
	}
	sorted := slices.SortedStableFunc(slices.Values(stages), func(a, b Stage) int {
		return cmp.Or(byStart(a, b), cmp.Compare(b.Length, a.Length))
	})
	for _, s := range sorted {
		fits := func(l *lane) bool { return l.row == s.Row && l.take(s) }
		if !slices.ContainsFunc(all, fits) {
			all = append(all, &lane{row: s.Row, stages: []Stage{s}, open: []int64{s.end()}})
		}
	}
	slices.SortStableFunc(all, func(a, b *lane) int {
		return cmp.Or(cmp.Compare(rank(a.row), rank(b.row)), cmp.Compare(a.row, b.row))
	})
	return all
}

// rank is where a row is drawn; unknown ones are last.
func rank(row string) int {
	if i := slices.Index(rows, row); i >= 0 {
		return i
	}
	return len(rows)
}

func byStart(a, b Stage) int { return cmp.Compare(a.Start, b.Start) }
