package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"banger/internal/session"
	"banger/internal/vm"
)

// sessionColumns of a session, in the order of scanSession but for the last,
// which is its machine's name.
const sessionColumns = `id, machine, name, command, args, dir, env, user, stdin, tags, required, log_limit_bytes,
	status, guest_pid, exit_code, exit_signal, failed_stage, failed_message, last_error, created_at, started_at, ended_at`

// selectSession is what every query for sessions begins with.
const selectSession = `SELECT ` + sessionColumns + `,
	(SELECT machines.name FROM machines WHERE machines.id = sessions.machine) FROM sessions `

// insertSession records a session; err is [unique] if its id or name is taken.
func insertSession(ctx context.Context, tx tx, n session.Session) error {
	args, err := encodeList(n.Args)
	if err != nil {
		return err
	}
	tags, err := encodeList(n.Tags)
	if err != nil {
		return err
	}
	required, err := encodeList(n.Required)
	if err != nil {
		return err
	}
	env, err := encodeLabels(n.Env)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `
		INSERT INTO sessions (`+sessionColumns+`)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		string(n.ID), string(n.Machine), n.Name, n.Command, args, n.Dir, env, n.User, n.Stdin, tags, required, n.LogLimit,
		string(n.Status), n.GuestPID, n.ExitCode, n.ExitSignal, n.FailedStage, n.FailedMessage, n.LastError,
		n.CreatedAt.UnixNano(), nullTime(n.StartedAt), nullTime(n.EndedAt))
	return err
}

// updateSession records what may change of a session.
func updateSession(ctx context.Context, tx tx, n session.Session) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE sessions
		SET status = ?, guest_pid = ?, exit_code = ?, exit_signal = ?, failed_stage = ?, failed_message = ?,
			last_error = ?, started_at = ?, ended_at = ?
		WHERE id = ?`,
		string(n.Status), n.GuestPID, n.ExitCode, n.ExitSignal, n.FailedStage, n.FailedMessage,
		n.LastError, nullTime(n.StartedAt), nullTime(n.EndedAt), string(n.ID))
	return err
}

func deleteSession(ctx context.Context, tx tx, id session.ID) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE id = ?`, string(id))
	return err
}

// sessionByID returns a session, or sql.ErrNoRows.
func sessionByID(ctx context.Context, tx tx, id session.ID) (session.Session, error) {
	return scanSession(tx.QueryRowContext(ctx, selectSession+`WHERE id = ?`, string(id)).Scan)
}

// sessionBy returns the session of a machine that has a value in a column that
// is unique there, or sql.ErrNoRows.
func sessionBy(ctx context.Context, tx tx, machine vm.ID, column, value string) (session.Session, error) {
	return scanSession(tx.QueryRowContext(ctx, selectSession+`WHERE machine = ? AND `+column+` = ?`, string(machine), value).Scan)
}

// sessionsByPrefix returns the sessions of a machine whose id begins with
// prefix, in the order of their ids.
func sessionsByPrefix(ctx context.Context, tx tx, machine vm.ID, prefix string) ([]session.Session, error) {
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, nil // no beginning of an id
	}
	return querySessions(ctx, tx, selectSession+`WHERE machine = ? AND id GLOB ? || '*' ORDER BY id`, string(machine), prefix)
}

func sessions(ctx context.Context, tx tx, machine vm.ID) ([]session.Session, error) {
	const order = ` ORDER BY created_at, machine, name`
	if machine == "" {
		return querySessions(ctx, tx, selectSession+order)
	}
	return querySessions(ctx, tx, selectSession+`WHERE machine = ?`+order, string(machine))
}

func sessionNames(ctx context.Context, tx tx, machine vm.ID) ([]string, error) {
	return queryNames(ctx, tx, `SELECT name FROM sessions WHERE machine = ? ORDER BY name`, string(machine))
}

func querySessions(ctx context.Context, tx tx, query string, args ...any) ([]session.Session, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []session.Session{}
	for rows.Next() {
		n, err := scanSession(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// scanSession reads one row of selectSession.
func scanSession(scan func(...any) error) (n session.Session, err error) {
	var args, env, tags, required string
	var created int64
	var started, ended sql.NullInt64
	err = scan(&n.ID, &n.Machine, &n.Name, &n.Command, &args, &n.Dir, &env, &n.User, &n.Stdin, &tags, &required, &n.LogLimit,
		&n.Status, &n.GuestPID, &n.ExitCode, &n.ExitSignal, &n.FailedStage, &n.FailedMessage, &n.LastError,
		&created, &started, &ended, &n.VM)
	if err != nil {
		return session.Session{}, err
	}
	n.CreatedAt = time.Unix(0, created).UTC()
	n.StartedAt, n.EndedAt = timeOf(started), timeOf(ended)
	var errs [4]error
	n.Args, errs[0] = decodeList(args)
	n.Tags, errs[1] = decodeList(tags)
	n.Required, errs[2] = decodeList(required)
	n.Env, errs[3] = decodeLabels(env)
	if err := cmp.Or(errs[:]...); err != nil {
		return session.Session{}, fmt.Errorf("lists of session %q: %w", n.Name, err)
	}
	return n, nil
}

// encodeList returns a list as a JSON array.
func encodeList(list []string) (string, error) {
	if len(list) == 0 {
		return "[]", nil
	}
	data, err := json.Marshal(list)
	return string(data), err
}

// decodeList returns nil for an empty list.
func decodeList(s string) (list []string, err error) {
	if s == "[]" {
		return nil, nil
	}
	err = json.Unmarshal([]byte(s), &list)
	return list, err
}
