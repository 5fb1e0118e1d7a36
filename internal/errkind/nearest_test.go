package errkind

import (
	"slices"
	"testing"
)

func TestNearest(t *testing.T) {
	got := Nearest("debian-bookwrom", []string{"busybox", "alpine", "debian-bookworm", "debian-trixie"})
	if want := []string{"debian-bookworm", "debian-trixie", "busybox"}; got[0] != want[0] || got[1] != want[1] || len(got) != 3 {
		t.Errorf("Nearest = %q, want %q", got, want)
	}
	if got := Nearest("x", nil); !slices.Equal(got, []string{}) && got != nil {
		t.Errorf("Nearest of none = %q", got)
	}
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "ab", 2}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
