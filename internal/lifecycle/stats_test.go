package lifecycle_test

import (
	"context"
	"testing"
	"time"

	"banger/internal/errkind"
	"banger/internal/vm"
)

// What machines use is told also of one whose agent or VMM does not answer, and
// soon.
func TestStats(t *testing.T) {
	l := newLife(t)
	web, db := l.create("web", false), l.create("db", false)
	if _, err := l.Stats(context.Background(), []vm.VM{web}); errkind.Of(err) != errkind.Conflict {
		t.Errorf("Stats of one that is not up: %v", err)
	}
	mustStart(t, l, web)
	mustStart(t, l, db)
	vms := []vm.VM{l.record(web.ID), l.record(db.ID)}
	stats := func(guests bool) {
		t.Helper()
		began := time.Now()
		got, err := l.Stats(context.Background(), vms)
		if err != nil || len(got) != 2 || got[0].VM.Name != "web" || got[1].VM.Name != "db" {
			t.Fatalf("Stats = %+v, %v", got, err)
		}
		for _, s := range got {
			if (s.Guest != nil) != guests {
				t.Errorf("Stats of %s = %+v, want its guest's: %t", s.VM.Name, s, guests)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
	}
	stats(true)
	l.w.Silent.Store(true)
	stats(false)
	l.w.Silent.Store(false)
	stats(true)
}
