package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"banger/internal/errkind"
	"banger/internal/network"
	"banger/internal/vm"
)

// idTries is how many random ids are tried for one machine. With a thousand
// machines a clash happens once in four million times.
const idTries = 8

// Create records a new machine and returns the record, with ID (a new one if
// v's is not valid or taken), UID and VsockCID (free ones of the range of user ids),
// GuestIP (if v with a network has none: from the subnet, which must be set),
// State (created, if v has none) and CreatedAt filled in. A name that is taken
// is [errkind.Conflict]; a range of user ids or a subnet that is used up is
// [errkind.Host].
func (s *Store) Create(ctx context.Context, v vm.VM) (vm.VM, error) {
	if err := vm.CheckName(v.Name); err != nil {
		return vm.VM{}, err
	}
	if v.State == "" {
		v.State = vm.Created
	}
	err := s.update(ctx, "Create", func(tx tx) (err error) {
		if v.UID, err = freeUID(ctx, tx, s.opts.UIDs); err != nil {
			return err
		}
		if v.VsockCID, err = freeCID(ctx, tx, s.opts.UIDs); err != nil {
			return err
		}
		if v.GuestIP == "" && v.Spec.Network == network.NAT {
			if v.GuestIP, err = freeAddress(ctx, tx); err != nil {
				return err
			}
		}
		v.CreatedAt = tx.now
		v, err = insertUnderFreeID(ctx, tx, v)
		return err
	})
	if err != nil {
		return vm.VM{}, err
	}
	return v, nil
}

// insertUnderFreeID records v under an id that is free and a name that must
// be, and returns the record.
func insertUnderFreeID(ctx context.Context, tx tx, v vm.VM) (vm.VM, error) {
	for range idTries {
		if !v.ID.Valid() {
			v.ID = vm.NewID()
		}
		err := insertMachine(ctx, tx, v)
		if err == nil {
			return machineByID(ctx, tx, v.ID)
		}
		if !unique(err) {
			return v, err
		}
		_, nameErr := machineBy(ctx, tx, "name", v.Name)
		switch {
		case nameErr == nil:
			return v, taken(v.Name)
		case !errors.Is(nameErr, sql.ErrNoRows):
			return v, nameErr
		}
		v.ID = ""
	}
	return v, fmt.Errorf("create machine %q: %d random ids are all taken", v.Name, idTries)
}

// Get returns a machine's record, or an error of kind [errkind.NotFound].
func (s *Store) Get(ctx context.Context, id vm.ID) (v vm.VM, err error) {
	err = s.view(ctx, "Get", func(tx tx) (err error) {
		v, err = machineByID(ctx, tx, id)
		return err
	})
	return v, err
}

// List returns every machine, in the order of their creation, then of their
// names.
func (s *Store) List(ctx context.Context) (vs []vm.VM, err error) {
	err = s.view(ctx, "List", func(tx tx) (err error) {
		vs, err = machines(ctx, tx)
		return err
	})
	return vs, err
}

// Change records one step in a machine's life and returns the record as it is
// then. A step that is not legal is [errkind.Conflict], and nothing is recorded,
// unless c says what was found.
func (s *Store) Change(ctx context.Context, id vm.ID, c vm.Change) (v vm.VM, err error) {
	err = s.update(ctx, "Change", func(tx tx) (err error) {
		if v, err = machineByID(ctx, tx, id); err != nil {
			return err
		}
		if err := v.Check(c.To); err != nil && !c.Found {
			return err
		}
		v.State, v.StateReason, v.Held = c.To, c.Reason, c.Held
		if c.LastError != nil {
			v.LastError = *c.LastError
		}
		if c.Started {
			v.StartedAt = tx.now
		}
		if c.ImageID != "" {
			v.Spec.ImageID = c.ImageID
		}
		if c.Cold {
			v.Template = ""
		}
		return updateMachine(ctx, tx, v)
	})
	if err != nil {
		return vm.VM{}, err
	}
	return v, nil
}

// Claim records that a machine that waited in the pool is a user's, who has just
// made and started it, and returns the record as it is then. One that does not
// wait there, paused, is [errkind.Conflict], and so is a name that is taken.
func (s *Store) Claim(ctx context.Context, id vm.ID, c vm.Claim) (v vm.VM, err error) {
	if err := vm.CheckName(c.Name); err != nil {
		return vm.VM{}, err
	}
	err = s.update(ctx, "Claim", func(tx tx) (err error) {
		if v, err = machineByID(ctx, tx, id); err != nil {
			return err
		}
		if v.Purpose != vm.ForPool || !v.Held {
			return errkind.WithHint(errkind.New(errkind.Conflict, "machine %q does not wait in the pool", v.Name), "banger vm list --all")
		}
		v.Name, v.Spec.Labels, v.Ephemeral, v.Spec.AutoPause = c.Name, c.Labels, c.Ephemeral, c.AutoPause
		v.Purpose, v.State, v.StateReason, v.Held = vm.ForUser, vm.Running, "", false
		v.CreatedAt, v.StartedAt = tx.now, tx.now
		if err = claimMachine(ctx, tx, v); unique(err) {
			return taken(c.Name)
		}
		if err != nil {
			return err
		}
		v, err = machineByID(ctx, tx, id)
		return err
	})
	if err != nil {
		return vm.VM{}, err
	}
	return v, nil
}

// taken is the error of a name that another machine has.
func taken(name string) error {
	return errkind.WithHint(errkind.New(errkind.Conflict, "machine %q exists already", name), "banger vm show "+name)
}

// Resize records another size of a machine, of which zero leaves a part as it
// is, and returns the record as it is then. A machine that is not stopped is
// [errkind.Conflict].
func (s *Store) Resize(ctx context.Context, id vm.ID, n vm.Size) (v vm.VM, err error) {
	err = s.update(ctx, "Resize", func(tx tx) (err error) {
		if v, err = machineByID(ctx, tx, id); err != nil {
			return err
		}
		if err := v.CheckResizable(); err != nil {
			return err
		}
		v.Spec = v.Spec.Resized(n)
		return updateMachine(ctx, tx, v)
	})
	if err != nil {
		return vm.VM{}, err
	}
	return v, nil
}

// SetAutoPause records how long nobody has to use a machine for it to be
// paused (0: it never is by itself), and returns the record as it is then.
func (s *Store) SetAutoPause(ctx context.Context, id vm.ID, d time.Duration) (v vm.VM, err error) {
	err = s.update(ctx, "SetAutoPause", func(tx tx) (err error) {
		if v, err = machineByID(ctx, tx, id); err != nil {
			return err
		}
		v.Spec.AutoPause = d
		return updateMachine(ctx, tx, v)
	})
	if err != nil {
		return vm.VM{}, err
	}
	return v, nil
}

// Delete removes a machine's record. It succeeds if there is none.
func (s *Store) Delete(ctx context.Context, id vm.ID) error {
	return s.update(ctx, "Delete", func(tx tx) error {
		return deleteMachine(ctx, tx, id)
	})
}
