package trace

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	r := New()
	r.Add([]Stage{
		{Banger, `vm "run"`, 1_700_000_000_000_000_000, 5_000_042},
		{Daemon, "disk", 1_700_000_000_000_001_001, 2_000},
	}, 3)
	got, err := r.Encode("banger")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"traceEvents":[
{"name":"process_name","ph":"M","ts":0.000,"pid":1,"tid":0,"args":{"name":"banger"}},
{"name":"thread_name","ph":"M","ts":0.000,"pid":1,"tid":1,"args":{"name":"banger"}},
{"name":"thread_sort_index","ph":"M","ts":0.000,"pid":1,"tid":1,"args":{"sort_index":1}},
{"name":"thread_name","ph":"M","ts":0.000,"pid":1,"tid":2,"args":{"name":"bangerd"}},
{"name":"thread_sort_index","ph":"M","ts":0.000,"pid":1,"tid":2,"args":{"sort_index":2}},
{"name":"thread_name","ph":"M","ts":0.000,"pid":1,"tid":3,"args":{"name":"VMM"}},
{"name":"thread_sort_index","ph":"M","ts":0.000,"pid":1,"tid":3,"args":{"sort_index":3}},
{"name":"thread_name","ph":"M","ts":0.000,"pid":1,"tid":4,"args":{"name":"guest"}},
{"name":"thread_sort_index","ph":"M","ts":0.000,"pid":1,"tid":4,"args":{"sort_index":4}},
{"name":"vm \"run\"","cat":"banger","ph":"X","ts":0.000,"dur":5000.042,"pid":1,"tid":1},
{"name":"disk","cat":"bangerd","ph":"X","ts":1.001,"dur":2.000,"pid":1,"tid":2}
],
"displayTimeUnit":"ms",
"otherData":{"began":"2023-11-14T22:13:20Z","dropped":3}}
`
	if string(got) != want {
		t.Errorf("Encode =\n%s\nwant\n%s", got, want)
	}
	if !json.Valid(got) {
		t.Error("it is no JSON")
	}
}

// Of nothing there is a document too.
func TestEncodeNothing(t *testing.T) {
	got, err := New().Encode("")
	if err != nil || !json.Valid(got) {
		t.Errorf("Encode = %s, %v", got, err)
	}
}

// In one lane nothing overlaps but what is within.
func TestLanes(t *testing.T) {
	for _, c := range []struct {
		name   string
		stages []Stage
		want   string // the lanes of bangerd
	}{
		{"side by side", []Stage{{Daemon, "a", 0, 5}, {Daemon, "b", 5, 5}}, "a b"},
		{"within", []Stage{{Daemon, "a", 0, 9}, {Daemon, "b", 0, 5}, {Daemon, "c", 5, 4}}, "a b c"},
		{"the inner one came first", []Stage{{Daemon, "b", 0, 5}, {Daemon, "a", 0, 9}}, "a b"},
		{"as long", []Stage{{Daemon, "a", 0, 9}, {Daemon, "b", 0, 9}}, "a b"},
		{"of no length", []Stage{{Daemon, "a", 0, 9}, {Daemon, "b", 9, 0}, {Daemon, "c", 3, 0}}, "a c b"},
		{"beside", []Stage{{Daemon, "a", 0, 9}, {Daemon, "b", 1, 5}, {Daemon, "c", 2, 5}}, "a b|c"},
		{"longer than what is around", []Stage{{Daemon, "a", 0, 9}, {Daemon, "b", 1, 9}, {Daemon, "c", 10, 1}}, "a c|b"},
		{"three at once", []Stage{{Daemon, "a", 0, 3}, {Daemon, "b", 1, 3}, {Daemon, "c", 2, 3}, {Daemon, "d", 4, 1}}, "a d|b|c"},
	} {
		var got []string
		for _, l := range lanes(c.stages) {
			var names []string
			for _, s := range l.stages {
				names = append(names, s.Name)
			}
			if l.row == Daemon {
				got = append(got, strings.Join(names, " "))
			}
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s: lanes are %q, want %q", c.name, s, c.want)
		}
	}
}

// Lanes of a row are drawn together, and what is not known below.
func TestOrderOfLanes(t *testing.T) {
	var got []string
	for _, l := range lanes([]Stage{{"odd", "a", 0, 9}, {"even", "a", 0, 9}, {Daemon, "a", 0, 9}, {Daemon, "b", 1, 9}, {"odd", "b", 1, 9}}) {
		got = append(got, l.row)
	}
	want := []string{Banger, Daemon, Daemon, VMM, Guest, "even", "odd", "odd"}
	if !slices.Equal(got, want) {
		t.Errorf("rows are %q, want %q", got, want)
	}
}
