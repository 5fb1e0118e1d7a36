package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"banger/internal/errkind"
	"banger/internal/vm"
)

// Resolve returns the machine with a name, or else the one whose id is ref or
// begins with it. None is [errkind.NotFound], several are [errkind.Usage].
func (s *Store) Resolve(ctx context.Context, ref string) (v vm.VM, err error) {
	err = s.view(ctx, "Resolve", func(tx tx) (err error) {
		v, err = machineBy(ctx, tx, "name", ref)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		found, err := machinesByPrefix(ctx, tx, ref)
		switch {
		case err != nil:
			return err
		case len(found) == 1:
			v = found[0]
			return nil
		case len(found) > 1:
			return ambiguous(ref, found)
		}
		names, err := machineNames(ctx, tx)
		if err != nil {
			return err
		}
		return unknown(ref, names)
	})
	return v, err
}

// HasName reports whether a machine has this name.
func (s *Store) HasName(ctx context.Context, name string) (has bool, err error) {
	err = s.view(ctx, "HasName", func(tx tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM machines WHERE name = ?)`, name).Scan(&has)
	})
	return has, err
}

// ambiguous is the error for a prefix that several machines share.
func ambiguous(prefix string, vs []vm.VM) error {
	var list []string
	for _, v := range vs[:min(len(vs), 5)] {
		list = append(list, fmt.Sprintf("%s (%s)", v.Name, v.ID))
	}
	if len(vs) > len(list) {
		list = append(list, fmt.Sprintf("and %d more", len(vs)-len(list)))
	}
	return errkind.WithHint(
		errkind.New(errkind.Usage, "%q begins the ids of %d machines: %s", prefix, len(vs), strings.Join(list, ", ")),
		"banger vm show "+vs[0].Name)
}

// unknown is the error for a machine that there is not, with the names that
// are most like it.
func unknown(ref string, names []string) error {
	err := errkind.New(errkind.NotFound, "no machine %.70q", ref)
	if near := nearest(ref, names); near != "" {
		err = fmt.Errorf("%w; %s", err, near)
	}
	return errkind.WithHint(err, "banger vm list --all")
}

// nearest tells of the names that are most like ref; "" if there is none.
func nearest(ref string, names []string) string {
	if len(ref) > vm.MaxName || len(names) == 0 {
		return ""
	}
	return "there is " + strings.Join(errkind.Nearest(ref, names), ", ")
}
