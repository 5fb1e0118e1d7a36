package trace

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestSpans(t *testing.T) {
	before := time.Now().UnixNano()
	r := New()
	ctx := With(t.Context(), r)
	outer := Span(ctx, Daemon, "outer")
	inner := Span(context.WithoutCancel(ctx), VMM, "inner")
	inner()
	Span(ctx, Guest, "goes on")
	outer()
	stages, dropped := r.Stages()
	outer() // the first time counts
	again, _ := r.Stages()
	if len(stages) != 3 || dropped != 0 {
		t.Fatalf("Stages = %v, %d, want three", stages, dropped)
	}
	o, i, g := stages[0], stages[1], stages[2]
	if o.Row != Daemon || o.Name != "outer" || i.Row != VMM || i.Name != "inner" || g.Name != "goes on" {
		t.Errorf("Stages = %v", stages)
	}
	if after := time.Now().UnixNano(); o.Start < before || o.end() > after {
		t.Errorf("outer is %v, want within %d and %d", o, before, after)
	}
	if i.Start < o.Start || i.end() > o.end() || i.Length < 0 {
		t.Errorf("inner is %v, want within outer, %v", i, o)
	}
	if again[0] != o || again[2].Length < g.Length {
		t.Errorf("later Stages = %v, before %v", again, stages)
	}
}

// Without a recorder nothing is recorded, at no cost.
func TestNoRecorder(t *testing.T) {
	ctx := With(t.Context(), nil)
	if n := testing.AllocsPerRun(100, func() { Span(ctx, Daemon, "disk")() }); n != 0 {
		t.Errorf("a span that nobody records allocates %v times", n)
	}
	var r *Recorder
	r.Begin(Daemon, "disk")()
	r.Add([]Stage{{Name: "x"}}, 1)
	if stages, dropped := r.Stages(); stages != nil || dropped != 0 {
		t.Errorf("Stages = %v, %d, want none", stages, dropped)
	}
}

func TestAdd(t *testing.T) {
	r := New()
	began := time.Unix(1_700_000_000, 0)
	r.BeginAt(began, Banger, "load")()
	r.Add([]Stage{{Row: Daemon, Name: "disk", Start: 7, Length: 5}, {Row: Daemon, Name: "odd", Start: 9, Length: -3}}, 2)
	stages, dropped := r.Stages()
	want := []Stage{{Daemon, "disk", 7, 5}, {Daemon, "odd", 9, 0}}
	if len(stages) != 3 || stages[1] != want[0] || stages[2] != want[1] || dropped != 2 {
		t.Errorf("Stages = %v, %d, want %v at the end and 2", stages, dropped, want)
	}
	if got := stages[0]; got.Length <= 0 || got.Start-began.UnixNano() > int64(time.Hour) {
		t.Errorf("a stage that began at %d is %v", began.UnixNano(), got)
	}
}

// What is recorded is bounded, also if it is recorded by many at once, and what
// began first is kept.
func TestBound(t *testing.T) {
	r := New()
	ctx := With(t.Context(), r)
	first := Span(ctx, Daemon, "first")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range Max / 4 {
				Span(ctx, VMM, fmt.Sprint(i))()
				if i == 0 {
					r.Add([]Stage{{Row: Guest, Name: "added"}}, 0)
				}
			}
		})
	}
	wg.Wait()
	first()
	stages, dropped := r.Stages()
	if began := 1 + 9*(Max/4); len(stages) != Max || len(stages)+dropped != began {
		t.Errorf("%d kept and %d dropped of %d, want %d kept", len(stages), dropped, began, Max)
	}
	if stages[0].Name != "first" {
		t.Errorf("the first is %v", stages[0])
	}
}
