// Package trace records when the stages of one call were, from the terminal to
// the guest, and writes that down for tools that draw it.
//
// A [Recorder] travels in a context. Where there is none, nothing is recorded,
// at no cost: so what is slow enough to ask about may always say what it does.
package trace

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Max is how many stages a recorder keeps.
const Max = 4096

// The rows of a picture: whose doing a stage was.
const (
	Banger = "banger"
	Daemon = "bangerd"
	VMM    = "VMM"
	Guest  = "guest" // as the daemon sees it
)

// rows is the order in which they are drawn.
var rows = []string{Banger, Daemon, VMM, Guest}

// A Stage is something that took its time.
type Stage struct {
	Row, Name string
	Start     int64 // Unix time, in nanoseconds
	Length    int64 // in nanoseconds
}

func (s Stage) end() int64 { return s.Start + s.Length }

// goesOn is the length of a stage that has not ended.
const goesOn = -1

// A Recorder keeps stages. Nil keeps none. Its methods may be called
// concurrently.
type Recorder struct {
	base time.Time // all times are told from here, so that a clock that is set spoils none

	mu      sync.Mutex
	stages  []Stage // at most Max; guarded by mu
	dropped int     // guarded by mu
}

// New returns a recorder that keeps [Max] stages: those that began first.
func New() *Recorder { return &Recorder{base: time.Now()} }

type key struct{}

// With returns a context in which r records.
func With(ctx context.Context, r *Recorder) context.Context {
	if r == nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, r)
}

// From returns the recorder of a context, nil if there is none.
func From(ctx context.Context) *Recorder {
	r, _ := ctx.Value(key{}).(*Recorder)
	return r
}

// Span begins a stage of what ctx is for, and returns what ends it; see
// [Recorder.Begin].
func Span(ctx context.Context, row, name string) (end func()) {
	return From(ctx).Begin(row, name)
}

// Begin begins a stage and returns what ends it, which may be called twice: the
// first time counts.
func (r *Recorder) Begin(row, name string) (end func()) {
	if r == nil {
		return nothing
	}
	return r.BeginAt(time.Now(), row, name)
}

func nothing() {}

// BeginAt is [Recorder.Begin] of a stage that began at a time.
func (r *Recorder) BeginAt(at time.Time, row, name string) (end func()) {
	if r == nil {
		return nothing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.stages)
	if !r.keep(Stage{Row: row, Name: name, Start: r.unix(at), Length: goesOn}) {
		return nothing
	}
	return func() {
		now := time.Now()
		r.mu.Lock()
		defer r.mu.Unlock()
		if s := &r.stages[i]; s.Length == goesOn {
			s.Length = max(0, r.unix(now)-s.Start)
		}
	}
}

// Add keeps stages that somebody else recorded, of which dropped more were not
// kept.
func (r *Recorder) Add(stages []Stage, dropped int) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped += dropped
	for _, s := range stages {
		s.Length = max(0, s.Length)
		r.keep(s)
	}
}

// keep keeps a stage if there is room. Preconditions: r.mu is held.
func (r *Recorder) keep(s Stage) bool {
	if len(r.stages) == Max {
		r.dropped++
		return false
	}
	r.stages = append(r.stages, s)
	return true
}

// Stages returns what was recorded, in the order in which it came, and how many
// stages there was no room for. What has not ended lasts until now.
func (r *Recorder) Stages() (stages []Stage, dropped int) {
	if r == nil {
		return nil, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.unix(time.Now())
	stages = slices.Clone(r.stages)
	for i := range stages {
		if s := &stages[i]; s.Length == goesOn {
			s.Length = max(0, now-s.Start)
		}
	}
	return stages, r.dropped
}

// unix is a time by the clock as it stood when the recorder was made.
func (r *Recorder) unix(t time.Time) int64 {
	return r.base.UnixNano() + int64(t.Sub(r.base))
}
