package ext4

import "hash/crc32"

// noSum is what a checksum begins with that goes on from no other.
const noSum = 0xffffffff

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc goes on with the checksum sum over b. ext4 keeps a CRC as the register
// stands, not inverted (kernel documentation, filesystems/ext4/checksums.rst).
func crc(sum uint32, b []byte) uint32 {
	return ^crc32.Update(^sum, castagnoli, b)
}
