package session

import (
	"time"

	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// machineStopped is why sessions fail that their machine ended under.
const machineStopped = "machine stopped"

// unknownToGuest is why a session fails that has gone from its guest.
const unknownToGuest = "the guest knows nothing of it"

// open are the ids of the sessions in a list that have not ended.
func open(list []Session) []ID {
	var ids []ID
	for _, s := range list {
		if !s.Status.Final() {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// planTold is what is news of sessions once their guest was asked for them. Of
// those that are being started right now it may not know yet.
func planTold(ids []ID, says []*wire.SessionStatus, beingStarted map[ID]bool) []Change {
	known := make(map[string]*wire.SessionStatus, len(says))
	for _, st := range says {
		known[st.GetId()] = st
	}
	var changes []Change
	for _, id := range ids {
		st := known[string(id)]
		switch {
		case st.GetState() == string(Starting): // it will say more
		case st != nil:
			changes = append(changes, Change{id, told(st)})
		case !beingStarted[id]:
			changes = append(changes, Change{id, failed(StageRun, unknownToGuest)})
		}
	}
	return changes
}

// planNoted is the news that sessions could not be looked at, and why.
func planNoted(ids []ID, why string) []Change {
	var changes []Change
	for _, id := range ids {
		changes = append(changes, Change{id, Seen{LastError: why}})
	}
	return changes
}

// ended is what is seen of a session whose machine is stopped: what its status
// file says (nil: there is none), if it had ended by then.
func ended(st *wire.SessionStatus) Seen {
	if st != nil {
		if n := told(st); n.Status.Final() {
			return n
		}
	}
	return failed(StageRun, machineStopped)
}

// news drops the changes that change nothing.
func news(list []Session, changes []Change, now time.Time) []Change {
	was := make(map[ID]Session, len(list))
	for _, s := range list {
		was[s.ID] = s
	}
	var left []Change
	for _, c := range changes {
		if s, ok := was[c.ID]; ok && s.After(c.Seen, now).Standing != s.Standing {
			left = append(left, c)
		}
	}
	return left
}

// settled reports whether a machine in this state has nothing that runs, and
// will not by itself: what its sessions came to is on its work disk.
func settled(s vm.State) bool { return s == vm.Stopped || s == vm.Created }
