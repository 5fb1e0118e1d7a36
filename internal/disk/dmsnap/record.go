package dmsnap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"banger/internal/disk"
)

// record is what a COW was made over: root.cow.json, and a copy in the COW
// itself, which is read when that is a template's. Without it nobody could tell
// whether a COW and a base belong together, and over the wrong base it is
// garbage that looks like a file system.
type record struct {
	Version  int    `json:"version"`
	ID       string `json:"id"`        // of the machine
	Base     string `json:"base"`      // path of the image
	BaseSize int64  `json:"base_size"` // bytes
	BaseID   string `json:"base_id"`   // empty: not known
	Size     int64  `json:"size"`      // of the disk, in bytes
	Chunk    int    `json:"chunk"`     // sectors
}

const recordVersion = 1

// newRecord returns that of a layer which is made over a base of baseSize
// bytes.
func newRecord(l disk.Layer, baseSize int64) (record, error) {
	size := max(l.SizeBytes, baseSize)
	if size > maxSize || size%sectorSize != 0 {
		return record{}, fmt.Errorf("size %d is no whole number of sectors, or too large", size)
	}
	return record{
		Version: recordVersion, ID: l.ID, Base: l.Base, BaseSize: baseSize, BaseID: l.BaseID,
		Size: size, Chunk: chunkSectors,
	}, nil
}

func (r record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("internal error: " + err.Error()) // strings and numbers
	}
	return append(b, '\n')
}

// decodeRecord reads a record and checks what it says of sizes.
func decodeRecord(b []byte) (r record, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("it cannot be read: %w", err)
	}
	switch {
	case r.Version != recordVersion:
		return record{}, fmt.Errorf("it has version %d", r.Version)
	case r.Chunk != chunkSectors:
		return record{}, fmt.Errorf("it tells chunks of %d sectors, not of %d", r.Chunk, chunkSectors)
	case r.BaseSize <= 0 || r.BaseSize%sectorSize != 0 || r.Size < r.BaseSize || r.Size > maxSize || r.Size%sectorSize != 0:
		return record{}, fmt.Errorf("it tells a disk of %d bytes over an image of %d", r.Size, r.BaseSize)
	}
	return r, nil
}

// check reports a layer that is not the one that the record tells of, or whose
// base, of baseSize bytes now, is not. The size that l asks for is not looked
// at: a layer keeps the one that it was made with.
func (r record) check(l disk.Layer, baseSize int64) error {
	if r.ID != l.ID {
		return fmt.Errorf("it is that of machine %q", r.ID)
	}
	return r.checkBase(l, baseSize)
}

// checkBase reports a layer whose base, of baseSize bytes now, is not the
// one that the record tells of.
func (r record) checkBase(l disk.Layer, baseSize int64) error {
	known := r.BaseID != "" && l.BaseID != ""
	switch {
	case known && r.BaseID != l.BaseID:
		return fmt.Errorf("it was made over %s with content %q, and that is now %q", r.Base, r.BaseID, l.BaseID)
	case !known && r.Base != l.Base:
		return fmt.Errorf("it was made over %q, not over %q", r.Base, l.Base)
	case r.BaseSize != baseSize:
		return fmt.Errorf("it was made over %s of %d bytes, and that has %d now", r.Base, r.BaseSize, baseSize)
	}
	return nil
}

// errLost says that a layer was never made, or is not there any more.
var errLost = errors.New("the disk is not there")
