package agent

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of random(4).
const (
	ioctlAddEntropy = 0x40085203 // RNDADDENTROPY, _IOW('R', 3, int[2])
	ioctlReseed     = 0x5207     // RNDRESEEDCRNG, _IO('R', 7)
)

// Seed implements the method of [System].
//
// The agent's own generators need nothing more. What must not be guessed (the
// nonces of greetings, all of SSH) comes from crypto/rand, which asks the kernel
// each time; where that is by way of the vDSO, whose key is in this process's
// memory and was copied with it, the kernel's reseeding makes the key invalid.
//
// Go's runtime, though, has a generator for each thread that was seeded when the
// process started and cannot be seeded again. It is behind math/rand, the hashes
// of maps, the choice of select, names of temporary files and numbers of DNS
// queries: they may be the same in all machines of a template. None of that may
// be a secret here, which is why the agent does not use math/rand (TestNoMathRand).
// Processes that are started from now on, those of users, are seeded anew.
func (guestSystem) Seed(entropy []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("seed the kernel's randomness: %w", err)
	}
	defer f.Close()
	info := poolInfo(entropy)
	if err := ioctl(f, ioctlAddEntropy, unsafe.Pointer(&info[0])); err != nil {
		return fmt.Errorf("add entropy: %w", err)
	}
	// Without it clones go on giving the same bytes until the kernel's next
	// turn, which is minutes away: what was added only waits in a pool.
	if err := ioctl(f, ioctlReseed, nil); err != nil {
		return fmt.Errorf("reseed from the entropy: %w", err)
	}
	return nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// poolInfo is a struct rand_pool_info (linux/random.h): how many bits the bytes
// are worth, how many bytes there are, the bytes. Each is worth all its bits.
func poolInfo(entropy []byte) []byte {
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(entropy)))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(entropy)))
	return append(info, entropy...)
}
