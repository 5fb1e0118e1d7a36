package vm

import (
	"regexp"
	"strings"
	"testing"

	"banger/internal/errkind"
)

var label = regexp.MustCompile(`\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\z`)

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"web", "a", "", "-a", "a-", "a--b", "A", "a.b", "ü", "a\n", "../x", strings.Repeat("a", 63), strings.Repeat("a", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := CheckName(s)
		if (err == nil) != label.MatchString(s) {
			t.Errorf("CheckName(%q) = %v", s, err)
		}
		if err != nil && errkind.Of(err) != errkind.Usage {
			t.Errorf("CheckName(%q) has kind %s", s, errkind.Of(err))
		}
	})
}

func TestNewID(t *testing.T) {
	a, b := NewID(), NewID()
	if a == b || !a.Valid() || !b.Valid() {
		t.Errorf("NewID gave %q and %q", a, b)
	}
	for _, id := range []ID{"", "1234567", "123456789", "1234567G", "../12345"} {
		if id.Valid() {
			t.Errorf("%q is valid", id)
		}
	}
}
