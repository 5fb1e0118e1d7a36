package ext4

import (
	"crypto/sha256"
	"encoding/hex"
)

// UUID makes a UUID of a hash (RFC 9562, version 8), for a file system that is
// to be the same whenever what it is made of is.
func UUID(sum [sha256.Size]byte) string {
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	h := hex.EncodeToString(u)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
