package vm

import "testing"

// Every state that names unfinished work must have a way out other than success,
// or reconcile would have nowhere to put the record.
func TestUnfinishedStatesCanFail(t *testing.T) {
	for s := range next {
		if s.Unfinished() && s.Check(Faulty) != nil {
			t.Errorf("%s cannot become %s", s, Faulty)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		from, to State
		ok       bool
	}{
		{Created, Starting, true},
		{Created, Running, false},
		{Running, Starting, false},
		{Running, Deleting, true},
		{Stopped, Deleting, true},
		{Starting, Deleting, false},
		{Deleting, Stopped, false},
	}
	for _, tt := range tests {
		if err := tt.from.Check(tt.to); (err == nil) != tt.ok {
			t.Errorf("%s to %s: %v", tt.from, tt.to, err)
		}
	}
}

func TestValid(t *testing.T) {
	if State("").Valid() || State("happy").Valid() || !Running.Valid() {
		t.Error("Valid takes a state that is none, or not one that is")
	}
	for _, s := range States() {
		if !s.Valid() {
			t.Errorf("%s is none", s)
		}
	}
	if len(States()) != len(next) {
		t.Errorf("%d states of %d", len(States()), len(next))
	}
}
