package fetch

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"banger/internal/errkind"
)

const testVersion = "6.1.0-9-test"

// newELF makes a small kernel: a header, one segment, a version.
func newELF() []byte {
	b := make([]byte, 300_000)
	le := binary.LittleEndian
	copy(b, elfMagic)
	b[elf.EI_CLASS], b[elf.EI_DATA], b[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	le.PutUint64(b[32:], elfHeaderSize)
	le.PutUint16(b[54:], elfProgramSize)
	le.PutUint16(b[56:], 1)
	p := b[elfHeaderSize:]
	le.PutUint32(p, uint32(elf.PT_LOAD))
	le.PutUint64(p[8:], 4096)
	le.PutUint64(p[32:], uint64(len(b)-4096))
	copy(b[5000:], "%s version %s (%s)\x00"+banner+"%s\x00"+banner+testVersion+" (someone) #1 SMP")
	// Something like code, for the filter: calls of one place from many.
	for i := 8192; i+5 < len(b); i += 23 {
		b[i] = 0xe8
		le.PutUint32(b[i+1:], uint32(200_000-(i+5)))
	}
	return b
}

// newBzImage packs a kernel as the kernel's build does.
func newBzImage(payload []byte) []byte {
	const sects, at = 3, 64
	b := make([]byte, (sects+1)*sector+at)
	le := binary.LittleEndian
	b[offSetupSects] = sects
	copy(b[offHdrS:], "HdrS")
	le.PutUint16(b[offProtocol:], 0x20f)
	le.PutUint32(b[offPayload:], at)
	le.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	return append(append(b, payload...), "what follows"...)
}

func withSize(packed []byte, size int) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(size))
}

func packLZ4(t testing.TB, data []byte) []byte {
	t.Helper()
	out := []byte(lz4Magic)
	for len(data) > 0 {
		block := data[:min(len(data), lz4Block)]
		data = data[len(block):]
		dst := make([]byte, lz4.CompressBlockBound(len(block)))
		n, err := lz4.CompressBlock(block, dst, nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(binary.LittleEndian.AppendUint32(out, uint32(n)), dst[:n]...)
	}
	return out
}

type writeCloser interface {
	Write([]byte) (int, error)
	Close() error
}

func pack(t testing.TB, data []byte, open func(*bytes.Buffer) (writeCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packGzip(t testing.TB, data []byte) []byte {
	return pack(t, data, func(b *bytes.Buffer) (writeCloser, error) { return gzip.NewWriter(b), nil })
}

func packZstd(t testing.TB, data []byte) []byte {
	return pack(t, data, func(b *bytes.Buffer) (writeCloser, error) { return zstd.NewWriter(b) })
}

func packXZ(t testing.TB, data []byte) []byte {
	return pack(t, data, func(b *bytes.Buffer) (writeCloser, error) { return xz.NewWriter(b) })
}

func TestUnpackKernel(t *testing.T) {
	kernel := newELF()
	large := append(bytes.Clone(kernel), make([]byte, 2*lz4Block)...) // three blocks
	for _, tt := range []struct {
		name  string
		image []byte
		want  []byte
	}{
		{"ELF", kernel, kernel},
		{"LZ4", newBzImage(withSize(packLZ4(t, kernel), len(kernel))), kernel},
		{"LZ4, large", newBzImage(withSize(packLZ4(t, large), len(large))), large},
		{"zstd", newBzImage(withSize(packZstd(t, kernel), len(kernel))), kernel},
		{"gzip", newBzImage(packGzip(t, kernel)), kernel},
		{"xz", newBzImage(withSize(packXZ(t, kernel), len(kernel))), kernel},
	} {
		var out bytes.Buffer
		if err := unpackKernel(&out, bytes.NewReader(tt.image), int64(len(tt.image))); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if !bytes.Equal(out.Bytes(), tt.want) {
			t.Errorf("%s: another kernel came out", tt.name)
		}
		// Cut off anywhere, it is an error and no panic.
		for _, n := range []int{0, 1, 3, headerSize - 1, len(tt.image) / 2, len(tt.image) - 100} {
			if tt.name == "ELF" {
				continue // is looked at as ELF
			}
			err := unpackKernel(&bytes.Buffer{}, bytes.NewReader(tt.image[:n]), int64(n))
			if errkind.Of(err) != errkind.Usage {
				t.Errorf("%s cut off at %d: %v", tt.name, n, err)
			}
		}
	}
}

// testdata/x86.xz is newELF packed by "xz --check=crc32 --x86 --lzma2=dict=32MiB",
// as the kernel's build does: the library that packs in the other tests does
// not know the filter.
func TestUnpackFiltered(t *testing.T) {
	packed, err := os.ReadFile("testdata/x86.xz")
	if err != nil {
		t.Fatal(err)
	}
	kernel := newELF()
	image := newBzImage(withSize(packed, len(kernel)))
	var out bytes.Buffer
	if err := unpackKernel(&out, bytes.NewReader(image), int64(len(image))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), kernel) {
		t.Error("another kernel came out")
	}
}

func TestUnpackRefuses(t *testing.T) {
	kernel := newELF()
	for _, tt := range []struct {
		name  string
		image []byte
	}{
		{"larger than it says", newBzImage(withSize(packLZ4(t, kernel), len(kernel)-1))},
		{"smaller than it says", newBzImage(withSize(packZstd(t, kernel), len(kernel)+1))},
		{"absurd size", newBzImage(withSize(packXZ(t, kernel), maxKernel+1))},
		{"unknown compression", newBzImage(withSize([]byte("BZh91AY&SY12345"), 10))},
		{"garbage", bytes.Repeat([]byte("garbage"), 1000)},
	} {
		if err := unpackKernel(&bytes.Buffer{}, bytes.NewReader(tt.image), int64(len(tt.image))); errkind.Of(err) != errkind.Usage {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	old := newBzImage(packGzip(t, kernel))
	binary.LittleEndian.PutUint16(old[offProtocol:], 0x207)
	if err := unpackKernel(&bytes.Buffer{}, bytes.NewReader(old), int64(len(old))); errkind.Of(err) != errkind.Usage {
		t.Errorf("old protocol: %v", err)
	}
}

func TestCheckELF(t *testing.T) {
	kernel := newELF()
	if err := checkELF(bytes.NewReader(kernel), int64(len(kernel))); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 10, 63, 64, 100, 5000, len(kernel) - 1} {
		if err := checkELF(bytes.NewReader(kernel[:n]), int64(n)); err == nil {
			t.Errorf("cut off at %d: no error", n)
		}
	}
	for at, name := range map[int]string{0: "magic", 4: "class", 18: "machine", 54: "entry size"} {
		b := bytes.Clone(kernel)
		b[at] ^= 0x55
		if err := checkELF(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestScanVersion(t *testing.T) {
	pad := strings.Repeat("x", 1<<20-len(banner)-3) // over the edge of a buffer
	for text, want := range map[string]string{
		"":                                     "",
		banner:                                 "",
		banner + "%s (":                        "",
		banner + "6.1.0 (x":                    "6.1.0",
		pad + banner + testVersion + " ":       testVersion,
		banner + "../../etc ":                  "",
		banner + "6.1/x ":                      "",
		banner + strings.Repeat("6", 65) + " ": "",
		banner + banner + "6.2 ":               "6.2",
	} {
		if got, err := scanVersion(strings.NewReader(text)); got != want || err != nil {
			t.Errorf("version of %.40q = %q, %v, want %q", text, got, err, want)
		}
	}
}

func FuzzUnpackKernel(f *testing.F) {
	kernel := newELF()[:6000]
	f.Add(kernel)
	f.Add(newBzImage(withSize(packLZ4(f, kernel), len(kernel))))
	f.Add(newBzImage(withSize(packZstd(f, kernel), len(kernel))))
	f.Add(newBzImage(withSize(packXZ(f, kernel), len(kernel))))
	f.Add(newBzImage(packGzip(f, kernel)))
	if packed, err := os.ReadFile("testdata/x86.xz"); err == nil {
		f.Add(newBzImage(withSize(packed, 300_000)))
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		var out bytes.Buffer
		const limit = 1 << 20
		err := unpackKernel(&limitWriter{w: &out, left: limit}, bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		_ = checkELF(bytes.NewReader(out.Bytes()), int64(out.Len()))
		if _, err := scanVersion(&out); err != nil {
			t.Error(err)
		}
	})
}

func TestLimitWriter(t *testing.T) {
	var b bytes.Buffer
	w := &limitWriter{w: &b, left: 3}
	if _, err := w.Write([]byte("ab")); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("cd")); !errors.Is(err, errTooLarge) || b.String() != "ab" {
		t.Errorf("beyond the limit: %v, %q", err, b.String())
	}
}
