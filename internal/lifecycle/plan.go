package lifecycle

import "banger/internal/vm"

// A fact is a record and what was found of it on the host.
type fact struct {
	v       vm.VM
	running bool   // its VMM process was found
	reboot  bool   // its handles are from an earlier boot of the host
	memory  string // how its VMM was killed for want of memory; empty: it was not
	left    bool   // there is something that only a running machine has
	foreign bool   // its driver is not part of this build: nothing can be told
}

// An action is what recovery does with one machine.
type action string

const (
	keep         action = "keep"           // the record tells the truth
	adopt        action = "adopt"          // reconnect and go on
	awaitGuest   action = "await guest"    // its start goes on
	takeDown     action = "take down"      // remove what is left, record stopped
	finishStop   action = "finish stop"    // ask, wait, kill
	finishDelete action = "finish delete"  // also for an ephemeral machine without a call
	leaveAlone   action = "leave as it is" // its owner must say what to do
)

// A move is one action and why.
type move struct {
	fact
	do  action
	why string
}

// plan decides what recovery does. It is pure.
func plan(facts []fact) []move {
	var moves []move
	for _, f := range facts {
		do, why := decide(f)
		moves = append(moves, move{f, do, why})
	}
	return moves
}

func decide(f fact) (action, string) {
	lost := "the VMM was gone when the daemon started"
	switch {
	case f.reboot:
		lost = "the host was restarted"
	case f.memory != "":
		lost = f.memory
	}
	switch {
	case f.foreign:
		return leaveAlone, "driver " + f.v.Spec.Driver + " is not part of this build"
	case f.v.Purpose != vm.ForUser:
		return finishDelete, "what it was for died with the daemon"
	case f.v.Ephemeral:
		return finishDelete, "the call it was leased to died with the daemon"
	case f.v.State.Up() && f.running:
		return adopt, "it runs"
	case f.v.State.Up():
		return takeDown, lost
	case f.v.State == vm.Starting && f.running && warm(f.v):
		return takeDown, "the daemon ended while it was being restored"
	case f.v.State == vm.Starting && f.running:
		return awaitGuest, "the daemon ended while it was being started"
	case f.v.State == vm.Starting:
		return takeDown, "the daemon ended while it was being started"
	case f.v.State == vm.Stopping:
		return finishStop, f.v.StateReason
	case f.v.State == vm.Deleting:
		return finishDelete, "the daemon ended while it was being deleted"
	case f.v.State == vm.Faulty:
		return leaveAlone, f.v.StateReason
	case f.running:
		return takeDown, "a VMM ran that no record called for"
	case f.left:
		return takeDown, "something of it was left on the host"
	}
	return keep, ""
}
