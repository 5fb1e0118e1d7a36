package dmsnap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// target is one line of a device's table.
type target struct {
	start, length int64 // sectors
	kind, params  string
}

// originTable puts zeros behind a base that is smaller than the disk.
func originTable(base uint64, r record) []target {
	data := r.BaseSize / sectorSize
	return []target{
		{0, data, "linear", devNumber(base) + " 0"},
		{data, r.Size/sectorSize - data, "zero", ""},
	}
}

// snapshotTable is the disk itself. Persistent ("P"), and with an overflow told
// as such ("O") instead of spoiling the COW for good: it cannot come about.
func snapshotTable(origin, cow uint64, r record) []target {
	params := fmt.Sprintf("%s %s PO %d", devNumber(origin), devNumber(cow), chunkSectors)
	return []target{{0, r.Size / sectorSize, "snapshot", params}}
}

// snapshotParts returns the devices of a table like snapshotTable's; ok is
// false for every other.
func snapshotParts(table []target, r record) (origin, cow string, ok bool) {
	if len(table) != 1 || table[0].kind != "snapshot" || table[0].start != 0 || table[0].length != r.Size/sectorSize {
		return "", "", false
	}
	f := strings.Fields(table[0].params)
	if len(f) < 4 || f[2] != "PO" || f[3] != strconv.Itoa(chunkSectors) {
		return "", "", false
	}
	return f[0], f[1], true
}

// originBase returns the base below a table like originTable's.
func originBase(table []target, r record) (base string, ok bool) {
	if len(table) != 2 || table[0].kind != "linear" || table[1].kind != "zero" ||
		table[0].start != 0 || table[0].length != r.BaseSize/sectorSize {
		return "", false
	}
	return strings.CutSuffix(table[0].params, " 0")
}

// devNumber writes a device as tables and sysfs do.
func devNumber(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// encodeTable writes a table as linux/dm-ioctl.h has it: for each target a
// struct dm_target_spec and its parameters, which end with a NUL; "next" is
// where the next one begins, counted from this one.
func encodeTable(table []target) []byte {
	var out []byte
	ne := binary.NativeEndian
	for _, t := range table {
		n := (unix.SizeofDmTargetSpec + len(t.params) + 1 + 7) &^ 7
		b := make([]byte, n)
		ne.PutUint64(b[0:], uint64(t.start))
		ne.PutUint64(b[8:], uint64(t.length))
		ne.PutUint32(b[20:], uint32(n))
		copy(b[24:40], t.kind)
		copy(b[unix.SizeofDmTargetSpec:], t.params)
		out = append(out, b...)
	}
	return out
}

// decodeTable reads count targets of a table or status that the kernel gave.
// There "next" is counted from the first one.
func decodeTable(b []byte, count uint32) ([]target, error) {
	var table []target
	ne := binary.NativeEndian
	for at := 0; count > 0; count-- {
		if len(b)-at < unix.SizeofDmTargetSpec {
			return nil, errors.New("the kernel's table is cut short")
		}
		spec, rest := b[at:at+unix.SizeofDmTargetSpec], b[at+unix.SizeofDmTargetSpec:]
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			return nil, errors.New("the kernel's table does not end")
		}
		kind, _, _ := strings.Cut(string(spec[24:40]), "\x00")
		table = append(table, target{
			start: int64(ne.Uint64(spec)), length: int64(ne.Uint64(spec[8:])),
			kind: kind, params: string(rest[:end]),
		})
		next := int64(ne.Uint32(spec[20:]))
		if count > 1 && (next <= int64(at) || next > int64(len(b))) {
			return nil, errors.New("the kernel's table goes round")
		}
		at = int(next)
	}
	return table, nil
}

// parseUsage reads a snapshot's status: "USED/TOTAL METADATA", in sectors,
// metadata counted in USED; or a word that says what is wrong.
func parseUsage(status string) (used, total int64, err error) {
	numbers, _, _ := strings.Cut(status, " ")
	a, b, ok := strings.Cut(numbers, "/")
	if !ok {
		return 0, 0, fmt.Errorf("the snapshot's status is %q", status)
	}
	used, err = parseSectors(a)
	if err == nil {
		total, err = parseSectors(b)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the snapshot's status is %q: %w", status, err)
	}
	return used, total, nil
}

func parseSectors(s string) (size int64, err error) {
	n, err := strconv.ParseUint(s, 10, 54) // in bytes it is an int64
	return int64(n) * sectorSize, err
}
