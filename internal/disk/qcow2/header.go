package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What Create writes, in clusters of 64 KiB:
//
//	0      header, with the format and name of the base
//	1      refcount table, one entry
//	2      refcount block: this and every other cluster here is used once
//	3 …    L1 table, empty: everything is read from the base
//
// It is the layout of qemu-img, described in QEMU's docs/interop/qcow2.txt.
// All numbers are big-endian.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits

	magic        = 0x514649fb // "QFI" and 0xfb
	version      = 3
	headerLength = 104
	baseFormat   = 0xe2792aca // header extension that names the base's format

	refTableAt = 1 * clusterSize
	refBlockAt = 2 * clusterSize
	l1At       = 3 * clusterSize

	// l1Covers is how many bytes of the guest's disk one L1 entry stands for:
	// an L2 table of one cluster, 8 bytes for each cluster.
	l1Covers = clusterSize / 8 * clusterSize

	// maxBase is the length of the longest name of a base that the format
	// allows.
	maxBase = 1023
	// maxSize is the largest disk, in bytes: far beyond every host, and its
	// L1 table within what the one refcount block counts.
	maxSize = 64 << 40
)

// header is what is read of an overlay's first cluster.
type header struct {
	size int64  // of the disk, in bytes
	base string // path of what is below
	over bool   // that is an overlay itself, not a raw image
}

// encode returns the file's first clusters, as far as they are not zero, and
// how long the file is. The rest is a hole.
func (h header) encode() (blocks map[int64][]byte, length int64, err error) {
	if len(h.base) == 0 || len(h.base) > maxBase {
		return nil, 0, fmt.Errorf("path of the base takes %d bytes: the format takes 1 to %d", len(h.base), maxBase)
	}
	if h.size <= 0 || h.size > maxSize || h.size%512 != 0 {
		return nil, 0, fmt.Errorf("size %d is no whole number of sectors, or too large", h.size)
	}
	l1Entries := (h.size + l1Covers - 1) / l1Covers
	clusters := l1At/clusterSize + (l1Entries*8+clusterSize-1)/clusterSize

	refTable := binary.BigEndian.AppendUint64(nil, refBlockAt)
	var refBlock []byte
	for range clusters {
		refBlock = binary.BigEndian.AppendUint16(refBlock, 1)
	}
	blocks = map[int64][]byte{
		0:          h.firstCluster(uint32(l1Entries)),
		refTableAt: refTable,
		refBlockAt: refBlock,
	}
	return blocks, clusters * clusterSize, nil
}

func (h header) firstCluster(l1Entries uint32) []byte {
	format := "raw\x00\x00\x00\x00\x00"
	formatLength := len("raw")
	if h.over {
		format, formatLength = "qcow2\x00\x00\x00", len("qcow2")
	}
	be := binary.BigEndian
	// Header, extension (type, length, data padded to 8), end of extensions.
	nameAt := uint64(headerLength + 8 + 8 + 8)
	var b []byte
	b = be.AppendUint32(b, magic)
	b = be.AppendUint32(b, version)
	b = be.AppendUint64(b, nameAt)
	b = be.AppendUint32(b, uint32(len(h.base)))
	b = be.AppendUint32(b, clusterBits)
	b = be.AppendUint64(b, uint64(h.size))
	b = be.AppendUint32(b, 0) // not encrypted
	b = be.AppendUint32(b, l1Entries)
	b = be.AppendUint64(b, l1At)
	b = be.AppendUint64(b, refTableAt)
	b = be.AppendUint32(b, 1) // clusters of the refcount table
	b = be.AppendUint32(b, 0) // no snapshots
	b = be.AppendUint64(b, 0) // and no table of them
	b = be.AppendUint64(b, 0) // incompatible features
	b = be.AppendUint64(b, 0) // compatible features
	b = be.AppendUint64(b, 0) // autoclear features
	b = be.AppendUint32(b, 4) // refcounts of 1<<4 bits
	b = be.AppendUint32(b, headerLength)
	b = be.AppendUint32(b, baseFormat)
	b = be.AppendUint32(b, uint32(formatLength))
	b = append(b, format...)
	b = be.AppendUint64(b, 0)
	return append(b, h.base...)
}

// decode reads the beginning of an overlay. The VMM has written to the file:
// nothing in it is trusted.
func decode(b []byte) (header, error) {
	be := binary.BigEndian
	if len(b) < headerLength || be.Uint32(b) != magic {
		return header{}, errors.New("it is no qcow2 file")
	}
	if v := be.Uint32(b[4:]); v != version {
		return header{}, fmt.Errorf("qcow2 version %d", v)
	}
	at, n := be.Uint64(b[8:]), uint64(be.Uint32(b[16:]))
	if n == 0 || n > maxBase || at > uint64(len(b)) || n > uint64(len(b))-at {
		return header{}, errors.New("its header names no base")
	}
	size := be.Uint64(b[24:])
	if size == 0 || size > maxSize || size%512 != 0 {
		return header{}, fmt.Errorf("its header tells a size of %d bytes", size)
	}
	if bits := be.Uint32(b[20:]); bits != clusterBits {
		return header{}, fmt.Errorf("its header tells clusters of 1<<%d bytes", bits)
	}
	return header{size: int64(size), base: string(b[at : at+n])}, nil
}
