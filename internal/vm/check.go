package vm

import "banger/internal/errkind"

// doing says in words what a machine is when it is in a state, and what can be
// typed then; %s is its name.
var doing = map[State]struct{ is, hint string }{
	Created:  {"was never started", "banger vm start "},
	Starting: {"is starting", "banger vm show "},
	Running:  {"is running", "banger vm show "},
	Paused:   {"is paused", "banger vm show "},
	Stopping: {"is stopping", "banger vm show "},
	Stopped:  {"is stopped", "banger vm start "},
	Deleting: {"is being deleted", "banger vm delete "},
	Faulty:   {"is faulty: taking it down failed", "banger vm stop "},
}

// Check returns nil if the machine may move to a state, else an error of kind
// [errkind.Conflict] that says in words what it is, with what can be typed then.
func (v VM) Check(to State) error {
	if v.State.Check(to) == nil {
		return nil
	}
	d := doing[v.State]
	is := d.is
	up := v.State == Running && to == Starting
	down := v.State == Stopped && to == Stopping
	if up || down || v.State == to {
		is += " already"
	}
	return errkind.WithHint(errkind.New(errkind.Conflict, "machine %q %s", v.Name, is), d.hint+v.Name)
}

// CheckResizable reports why a machine's size cannot be changed now, an error
// of kind [errkind.Conflict]: it is not stopped.
func (v VM) CheckResizable() error {
	if v.State == Stopped || v.State == Created {
		return nil
	}
	err := errkind.New(errkind.Conflict, "machine %q %s: its size is changed while it is stopped", v.Name, doing[v.State].is)
	if v.State.Up() {
		return errkind.WithHint(err, "banger vm stop "+v.Name)
	}
	return errkind.WithHint(err, doing[v.State].hint+v.Name)
}
