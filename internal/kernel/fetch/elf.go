package fetch

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"banger/internal/errkind"
)

const (
	elfHeaderSize  = 64
	elfProgramSize = 56
)

// machines are what ELF calls the architectures that we run on.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkELF returns an error if a file of size bytes is no whole kernel for
// this host's processor. It looks at the headers alone.
func checkELF(r io.ReaderAt, size int64) error {
	var h [elfHeaderSize]byte
	if _, err := r.ReadAt(h[:], 0); errors.Is(err, io.EOF) {
		return errors.New("no ELF kernel: too short")
	} else if err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(h[:4]) != elfMagic || h[elf.EI_CLASS] != byte(elf.ELFCLASS64) || h[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return errors.New("no ELF kernel of 64 bits")
	}
	if m := elf.Machine(le.Uint16(h[18:])); m != machines[runtime.GOARCH] {
		return fmt.Errorf("a kernel for %v, not for %s", m, runtime.GOARCH)
	}
	at, entry, n := le.Uint64(h[32:]), le.Uint16(h[54:]), le.Uint16(h[56:])
	if entry != elfProgramSize || n == 0 || at > uint64(size) {
		return errors.New("no ELF kernel: nothing in it to load")
	}
	for i := range int64(n) {
		var p [elfProgramSize]byte
		if _, err := r.ReadAt(p[:], int64(at)+i*elfProgramSize); err != nil {
			return fmt.Errorf("ELF kernel is cut off: %w", err)
		}
		offset, length := le.Uint64(p[8:]), le.Uint64(p[32:])
		if elf.ProgType(le.Uint32(p[:])) == elf.PT_LOAD && (offset > uint64(size) || length > uint64(size)-offset) {
			return fmt.Errorf("ELF kernel is cut off: it has %d bytes and needs %d", size, offset+length)
		}
	}
	return nil
}

// banner is what stands before a kernel's version in it.
const banner = "Linux version "

// maxVersion is how long a version may be: what fits in uname(2).
const maxVersion = 64

// findVersion returns what uname -r will give under the ELF kernel in the file
// at path.
func findVersion(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	v, err := scanVersion(f)
	if err != nil {
		return "", err
	}
	if v == "" {
		return "", errkind.New(errkind.Usage, "the kernel image holds no Linux kernel: there is no %q in it", banner)
	}
	return v, nil
}

func scanVersion(r io.Reader) (string, error) {
	const overlap = len(banner) + maxVersion + 1
	buf := make([]byte, 0, 1<<20)
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for at := 0; ; {
			i := bytes.Index(buf[at:], []byte(banner))
			if i < 0 {
				break
			}
			at += i + len(banner)
			if v := versionAt(buf[at:]); v != "" {
				return v, nil
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		buf = buf[:copy(buf, buf[len(buf)-overlap:])]
	}
}

// versionAt returns the version that b begins with; empty if it does not.
func versionAt(b []byte) string {
	for i, c := range b[:min(len(b), maxVersion+1)] {
		switch {
		case c == ' ' && i > 0:
			return string(b[:i])
		case c >= '0' && c <= '9':
		case i == 0: // a format, such as %s
			return ""
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '.', c == '-', c == '+', c == '_', c == '~':
		default:
			return ""
		}
	}
	return ""
}
