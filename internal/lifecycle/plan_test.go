package lifecycle

import (
	"testing"

	"banger/internal/vm"
)

// The table "record × process" of the design, each cell.
func TestPlan(t *testing.T) {
	tests := []struct {
		state             vm.State
		ephemeral, reboot bool
		running           action
		dead              action
	}{
		{state: vm.Created, running: takeDown, dead: keep},
		{state: vm.Starting, running: awaitGuest, dead: takeDown},
		{state: vm.Running, running: adopt, dead: takeDown},
		{state: vm.Paused, running: adopt, dead: takeDown},
		{state: vm.Stopping, running: finishStop, dead: finishStop},
		{state: vm.Stopped, running: takeDown, dead: keep},
		{state: vm.Deleting, running: finishDelete, dead: finishDelete},
		{state: vm.Faulty, running: leaveAlone, dead: leaveAlone},
	}
	for _, tt := range tests {
		for _, running := range []bool{true, false} {
			want := tt.dead
			if running {
				want = tt.running
			}
			f := fact{v: vm.VM{State: tt.state, StateReason: "because"}, running: running}
			got := plan([]fact{f})
			if len(got) != 1 || got[0].do != want {
				t.Errorf("%s, running %t: %s, want %s", tt.state, running, got[0].do, want)
			}
			if got[0].do != keep && got[0].why == "" {
				t.Errorf("%s, running %t: no reason given", tt.state, running)
			}
			f.v.Ephemeral = true
			if got := plan([]fact{f}); got[0].do != finishDelete {
				t.Errorf("ephemeral %s, running %t: %s, want %s", tt.state, running, got[0].do, finishDelete)
			}
		}
	}
}

func TestPlanRemovesWhatIsLeft(t *testing.T) {
	for _, s := range []vm.State{vm.Created, vm.Stopped} {
		if got := plan([]fact{{v: vm.VM{State: s}, left: true}}); got[0].do != takeDown {
			t.Errorf("%s with something left: %s, want %s", s, got[0].do, takeDown)
		}
	}
}

// A daemon of another build leaves alone what it does not know.
func TestPlanLeavesAForeignDriverAlone(t *testing.T) {
	if got := plan([]fact{{v: vm.VM{State: vm.Running, Ephemeral: true}, foreign: true}}); got[0].do != leaveAlone {
		t.Errorf("do %s, want %s", got[0].do, leaveAlone)
	}
}

func TestPlanTellsOfWantOfMemory(t *testing.T) {
	got := plan([]fact{{v: vm.VM{State: vm.Running}, memory: "too much"}})
	if got[0].do != takeDown || got[0].why != "too much" {
		t.Errorf("%s, why = %q", got[0].do, got[0].why)
	}
}

func TestPlanTellsOfAReboot(t *testing.T) {
	got := plan([]fact{{v: vm.VM{State: vm.Running}, reboot: true}})
	if got[0].why != "the host was restarted" {
		t.Errorf("why = %q", got[0].why)
	}
}
