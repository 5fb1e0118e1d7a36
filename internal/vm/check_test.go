package vm

import (
	"slices"
	"testing"

	"banger/internal/errkind"
)

func TestChangeIllegalSaysWhat(t *testing.T) {
	tests := []struct {
		from, to   State
		text, hint string
	}{
		{Running, Starting, `machine "web" is running already`, "banger vm show web"},
		{Starting, Starting, `machine "web" is starting already`, "banger vm show web"},
		{Stopped, Stopping, `machine "web" is stopped already`, "banger vm start web"},
		{Created, Stopping, `machine "web" was never started`, "banger vm start web"},
		{Stopped, Paused, `machine "web" is stopped`, "banger vm start web"},
		{Paused, Starting, `machine "web" is paused`, "banger vm show web"},
		{Deleting, Starting, `machine "web" is being deleted`, "banger vm delete web"},
		{Faulty, Starting, `machine "web" is faulty: taking it down failed`, "banger vm stop web"},
	}
	for _, tt := range tests {
		err := VM{Name: "web", State: tt.from}.Check(tt.to)
		if err.Error() != tt.text || !slices.Equal(errkind.Hints(err), []string{tt.hint}) || errkind.Of(err) != errkind.Conflict {
			t.Errorf("%s to %s: %q, %q", tt.from, tt.to, err, errkind.Hints(err))
		}
	}
}
