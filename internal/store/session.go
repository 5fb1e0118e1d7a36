package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"banger/internal/errkind"
	"banger/internal/session"
	"banger/internal/vm"
)

// CreateSession records a new session and returns the record, with CreatedAt
// and VM filled in. A name that the machine has a session of is
// [errkind.Conflict]; a machine that there is not is [errkind.NotFound].
func (s *Store) CreateSession(ctx context.Context, n session.Session) (session.Session, error) {
	if err := session.CheckName(n.Name); err != nil {
		return session.Session{}, err
	}
	err := s.update(ctx, "CreateSession", func(tx tx) error {
		v, err := machineByID(ctx, tx, n.Machine)
		if err != nil {
			return err
		}
		n.VM, n.CreatedAt = v.Name, tx.now
		err = insertSession(ctx, tx, n)
		if !unique(err) {
			return err
		}
		if _, nameErr := sessionBy(ctx, tx, n.Machine, "name", n.Name); nameErr != nil {
			return errors.Join(err, nameErr)
		}
		return errkind.WithHint(errkind.New(errkind.Conflict, "vm %q has a session %q already", v.Name, n.Name),
			"banger vm session show "+v.Name+" "+n.Name)
	})
	if err != nil {
		return session.Session{}, err
	}
	return n, nil
}

// ResolveSession returns the session of a machine with a name, or else the one
// whose id begins with ref. None is [errkind.NotFound], several are
// [errkind.Usage].
func (s *Store) ResolveSession(ctx context.Context, machine vm.ID, ref string) (n session.Session, err error) {
	err = s.view(ctx, "ResolveSession", func(tx tx) (err error) {
		n, err = sessionBy(ctx, tx, machine, "name", ref)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		found, err := sessionsByPrefix(ctx, tx, machine, ref)
		switch {
		case err != nil:
			return err
		case len(found) == 1:
			n = found[0]
			return nil
		case len(found) > 1:
			return ambiguousSession(ref, found)
		}
		return unknownSession(ctx, tx, machine, ref)
	})
	return n, err
}

// Sessions returns the sessions of a machine, or of all for none, in the order
// of their creation, then of their machines and names.
func (s *Store) Sessions(ctx context.Context, machine vm.ID) (list []session.Session, err error) {
	err = s.view(ctx, "Sessions", func(tx tx) (err error) {
		list, err = sessions(ctx, tx, machine)
		return err
	})
	return list, err
}

// ChangeSessions records what was seen of sessions and returns the records as
// they are then, in the order of the changes, without those that there are not
// any more. What is not legal for a session changes nothing of it.
func (s *Store) ChangeSessions(ctx context.Context, changes []session.Change) (list []session.Session, err error) {
	err = s.update(ctx, "ChangeSessions", func(tx tx) error {
		for _, c := range changes {
			was, err := sessionByID(ctx, tx, c.ID)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			now := was.After(c.Seen, tx.now)
			if now.Standing != was.Standing {
				if err := updateSession(ctx, tx, now); err != nil {
					return err
				}
			}
			list = append(list, now)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// DeleteSession removes a session's record. It succeeds if there is none.
func (s *Store) DeleteSession(ctx context.Context, id session.ID) error {
	return s.update(ctx, "DeleteSession", func(tx tx) error {
		return deleteSession(ctx, tx, id)
	})
}

// ambiguousSession is the error for a prefix that several sessions share.
func ambiguousSession(prefix string, list []session.Session) error {
	return errkind.WithHint(
		errkind.New(errkind.Usage, "%q begins the ids of %d sessions of %q, %s and %s among them", prefix, len(list), list[0].VM, list[0].Name, list[1].Name),
		"banger vm session list "+list[0].VM)
}

// unknownSession is the error for a session that a machine has not, with the
// names that are most like it.
func unknownSession(ctx context.Context, tx tx, machine vm.ID, ref string) error {
	v, err := machineByID(ctx, tx, machine)
	if err != nil {
		return err
	}
	names, err := sessionNames(ctx, tx, machine)
	if err != nil {
		return err
	}
	err = errkind.New(errkind.NotFound, "no session %.70q in %q", ref, v.Name)
	if near := nearest(ref, names); near != "" {
		err = fmt.Errorf("%w; %s", err, near)
	}
	return errkind.WithHint(err, "banger vm session list "+v.Name)
}
