package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"banger/internal/errkind"
	"banger/internal/vm"
)

// columns of a machine, in the order of scanMachine.
const columns = `id, name, image, image_id, kernel, driver, vcpus, memory_bytes, disk_bytes, labels,
	network, ephemeral, state, state_reason, last_error, guest_ip, uid, vsock_cid, token, created_at, started_at, held, purpose, template, machine_id, auto_pause`

// insertMachine records a machine; err is [unique] if something of it is
// taken.
func insertMachine(ctx context.Context, tx tx, v vm.VM) error {
	labels, err := encodeLabels(v.Spec.Labels)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `
		INSERT INTO machines (`+columns+`)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		string(v.ID), v.Name, v.Spec.Image, v.Spec.ImageID, v.Spec.Kernel, v.Spec.Driver,
		v.Spec.VCPUs, v.Spec.MemoryBytes, v.Spec.DiskBytes, labels,
		v.Spec.Network, v.Ephemeral, string(v.State), v.StateReason, v.LastError, v.GuestIP,
		int64(v.UID), int64(v.VsockCID), v.Token, v.CreatedAt.UnixNano(), nullTime(v.StartedAt), v.Held,
		string(v.Purpose), v.Template, v.MachineID, int64(v.Spec.AutoPause))
	return err
}

// updateMachine records what may change of a machine.
func updateMachine(ctx context.Context, tx tx, v vm.VM) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE machines
		SET state = ?, state_reason = ?, last_error = ?, image_id = ?, started_at = ?,
			vcpus = ?, memory_bytes = ?, disk_bytes = ?, held = ?, template = ?, auto_pause = ?
		WHERE id = ?`,
		string(v.State), v.StateReason, v.LastError, v.Spec.ImageID, nullTime(v.StartedAt),
		v.Spec.VCPUs, v.Spec.MemoryBytes, v.Spec.DiskBytes, v.Held, v.Template, int64(v.Spec.AutoPause), string(v.ID))
	return err
}

// claimMachine records that a machine of the pool is a user's; err is [unique] if
// its name is taken.
func claimMachine(ctx context.Context, tx tx, v vm.VM) error {
	labels, err := encodeLabels(v.Spec.Labels)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `
		UPDATE machines
		SET name = ?, labels = ?, ephemeral = ?, purpose = ?, state = ?, state_reason = '', held = 0,
			created_at = ?, started_at = ?, auto_pause = ?
		WHERE id = ?`,
		v.Name, labels, v.Ephemeral, string(v.Purpose), string(v.State), v.CreatedAt.UnixNano(), nullTime(v.StartedAt),
		int64(v.Spec.AutoPause), string(v.ID))
	return err
}

func deleteMachine(ctx context.Context, tx tx, id vm.ID) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM machines WHERE id = ?`, string(id))
	return err
}

func machineByID(ctx context.Context, tx tx, id vm.ID) (vm.VM, error) {
	v, err := machineBy(ctx, tx, "id", string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return v, errkind.WithHint(errkind.New(errkind.NotFound, "no machine with id %.70q", id), "banger vm list --all")
	}
	return v, err
}

// machineBy returns the machine that has a value in a unique column, or
// sql.ErrNoRows.
func machineBy(ctx context.Context, tx tx, column, value string) (vm.VM, error) {
	return scanMachine(tx.QueryRowContext(ctx, `SELECT `+columns+` FROM machines WHERE `+column+` = ?`, value).Scan)
}

// machinesByPrefix returns the machines whose id begins with prefix, which is
// not empty, in the order of their ids.
func machinesByPrefix(ctx context.Context, tx tx, prefix string) ([]vm.VM, error) {
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, nil // no beginning of an id
	}
	return queryMachines(ctx, tx, `SELECT `+columns+` FROM machines WHERE id GLOB ? || '*' ORDER BY id`, prefix)
}

func machines(ctx context.Context, tx tx) ([]vm.VM, error) {
	return queryMachines(ctx, tx, `SELECT `+columns+` FROM machines ORDER BY created_at, name`)
}

func machineNames(ctx context.Context, tx tx) ([]string, error) {
	return queryNames(ctx, tx, `SELECT name FROM machines ORDER BY name`)
}

// queryNames returns the one column of a query.
func queryNames(ctx context.Context, tx tx, query string, args ...any) (names []string, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// freeUID returns a user id of a range that no machine has.
func freeUID(ctx context.Context, tx tx, r vm.UIDRange) (uint32, error) {
	uid, err := freeNumber(ctx, tx, "uid", int64(r.Base), int64(r.Count))
	if errors.Is(err, sql.ErrNoRows) {
		err = errkind.WithHint(
			errkind.New(errkind.Host, "each of the %d user ids from %d on is a machine's: delete one, or set uid_count in config.toml higher", r.Count, r.Base),
			"banger vm list --all")
	}
	return uid, err
}

// freeCID returns a vsock address that no machine has, from the numbers that
// are user ids too: addresses are the host's, and so two daemons' do not meet.
// Where a user id is free, so is an address.
func freeCID(ctx context.Context, tx tx, r vm.UIDRange) (uint32, error) {
	return freeNumber(ctx, tx, "vsock_cid", int64(r.Base), int64(r.Count))
}

// freeNumber returns one of count numbers from first on that no machine has in
// a column: the one after the highest, or where that is the last, the lowest.
// sql.ErrNoRows: there is none.
func freeNumber(ctx context.Context, tx tx, column string, first, count int64) (n uint32, err error) {
	err = tx.QueryRowContext(ctx, fmt.Sprintf(`
		SELECT ifnull((SELECT %[1]s + 1 FROM machines WHERE %[1]s >= ?1 AND %[1]s < ?2 ORDER BY %[1]s DESC LIMIT 1), ?1) AS n
		WHERE n < ?2`, column), first, first+count).Scan(&n)
	if !errors.Is(err, sql.ErrNoRows) {
		return n, err
	}
	err = tx.QueryRowContext(ctx, fmt.Sprintf(`
		SELECT n FROM (SELECT ?1 AS n UNION ALL SELECT %[1]s + 1 FROM machines WHERE %[1]s >= ?1)
		WHERE n < ?2 AND n NOT IN (SELECT %[1]s FROM machines) ORDER BY n LIMIT 1`, column), first, first+count).Scan(&n)
	return n, err
}

func queryMachines(ctx context.Context, tx tx, query string, args ...any) ([]vm.VM, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	vs := []vm.VM{}
	for rows.Next() {
		v, err := scanMachine(rows.Scan)
		if err != nil {
			return nil, err
		}
		vs = append(vs, v)
	}
	return vs, rows.Err()
}

// scanMachine reads one row of columns.
func scanMachine(scan func(...any) error) (v vm.VM, err error) {
	var labels string
	var created int64
	var started sql.NullInt64
	err = scan(&v.ID, &v.Name, &v.Spec.Image, &v.Spec.ImageID, &v.Spec.Kernel, &v.Spec.Driver,
		&v.Spec.VCPUs, &v.Spec.MemoryBytes, &v.Spec.DiskBytes, &labels,
		&v.Spec.Network, &v.Ephemeral, &v.State, &v.StateReason, &v.LastError, &v.GuestIP,
		&v.UID, &v.VsockCID, &v.Token, &created, &started, &v.Held, &v.Purpose, &v.Template, &v.MachineID, &v.Spec.AutoPause)
	if err != nil {
		return vm.VM{}, err
	}
	v.CreatedAt, v.StartedAt = time.Unix(0, created).UTC(), timeOf(started)
	if v.Spec.Labels, err = decodeLabels(labels); err != nil {
		return vm.VM{}, fmt.Errorf("labels of machine %q: %w", v.Name, err)
	}
	return v, nil
}

// encodeLabels returns labels as a JSON object.
func encodeLabels(m map[string]string) (string, error) {
	if len(m) == 0 {
		return "{}", nil
	}
	data, err := json.Marshal(m)
	return string(data), err
}

// decodeLabels returns nil for no labels.
func decodeLabels(s string) (m map[string]string, err error) {
	if s == "{}" {
		return nil, nil
	}
	err = json.Unmarshal([]byte(s), &m)
	return m, err
}

// nullTime is NULL for the zero time.
func nullTime(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixNano(), Valid: !t.IsZero()}
}

// timeOf is the zero time for NULL.
func timeOf(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.Unix(0, n.Int64).UTC()
}
