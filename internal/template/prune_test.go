package template

import (
	"slices"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(hours int) time.Time { return now.Add(-time.Duration(hours) * time.Hour) }
	all := []Template{
		{ID: "broken", Damaged: "ram is short", SizeBytes: 50},
		{ID: "fresh", CreatedAt: ago(1), SizeBytes: 10},                      // never used
		{ID: "old", CreatedAt: ago(9), SizeBytes: 10},                        // never used
		{ID: "hot", CreatedAt: ago(9), UsedAt: ago(2), SizeBytes: 10},        // made long ago
		{ID: "oldest", CreatedAt: ago(99), UsedAt: ago(50), SizeBytes: 10},   //
		{ID: "odd", CreatedAt: ago(3), UsedAt: time.Time{}, SizeBytes: 1000}, // large
	}
	keep := func(ids ...string) map[string]bool {
		m := make(map[string]bool)
		for _, id := range ids {
			m[id] = true
		}
		return m
	}
	for _, tt := range []struct {
		name string
		o    PruneOptions
		want []string
	}{
		{"nothing said", PruneOptions{}, []string{"broken"}},
		{"damaged but in use", PruneOptions{Keep: keep("broken")}, nil},
		{"unused", PruneOptions{UnusedFor: 8 * time.Hour}, []string{"broken", "oldest", "old"}},
		{"unused for just that long", PruneOptions{UnusedFor: 9 * time.Hour}, []string{"broken", "oldest"}},
		{"unused but in use", PruneOptions{UnusedFor: 8 * time.Hour, Keep: keep("oldest", "hot")}, []string{"broken", "old"}},
		{"all", PruneOptions{UnusedFor: 1}, []string{"broken", "oldest", "old", "odd", "hot", "fresh"}},
		{"room for all", PruneOptions{MaxBytes: 1040}, []string{"broken"}},
		{"a byte too little", PruneOptions{MaxBytes: 1039}, []string{"broken", "oldest"}},
		{"little room", PruneOptions{MaxBytes: 20}, []string{"broken", "oldest", "old", "odd"}},
		{"what is in use takes room", PruneOptions{MaxBytes: 1039, Keep: keep("broken")}, []string{"oldest", "old", "odd"}},
		{"what is in use stays without room", PruneOptions{MaxBytes: 1, Keep: keep("odd", "hot")}, []string{"broken", "oldest", "old", "fresh"}},
		{"old ones make room", PruneOptions{UnusedFor: 8 * time.Hour, MaxBytes: 1020}, []string{"broken", "oldest", "old"}},
		{"both", PruneOptions{UnusedFor: 8 * time.Hour, MaxBytes: 1000}, []string{"broken", "oldest", "old", "odd"}},
	} {
		var got []string
		for _, x := range tt.o.Choose(all, now) {
			got = append(got, x.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: Choose = %q, want %q", tt.name, got, tt.want)
		}
	}
	if all[0].ID != "broken" || all[5].ID != "odd" {
		t.Error("Choose changed what it was given")
	}
}

// Of two that were last used at one time, the ID decides, not the order given.
func TestChooseIsStable(t *testing.T) {
	a, b := Template{ID: "a", SizeBytes: 1}, Template{ID: "b", SizeBytes: 1}
	for _, all := range [][]Template{{a, b}, {b, a}} {
		got := PruneOptions{MaxBytes: 1}.Choose(all, time.Now())
		if len(got) != 1 || got[0].ID != "a" {
			t.Errorf("Choose = %+v", got)
		}
	}
}
