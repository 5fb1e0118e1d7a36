package firecracker

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"

	"banger/internal/plainfile"
	"banger/internal/vmm"
)

// Firecracker appends a line of JSON to its metrics once a minute, when it is
// asked to and when it ends, in which most figures are what was counted since
// the line before. So the sum over all lines is what has passed. Lines that were
// summed up are given back to the file system, and what they came to stands
// where the first ones were:
//
//	{"until":N,"read":…}\n  a hole up to N  {…}\n{…}\n
//
// The file is the VMM's user's: what stands in it may be anything.

const (
	maxMetricsLine = 256 << 10 // bytes; a line of a machine with all its devices takes 30,000
	maxMetricsRead = 16 << 20  // bytes that are read at once; the rest is for the next time
	// sumEvery is how long what was not summed up may be, in bytes. It is more
	// than a sum takes.
	sumEvery = 64 << 10
)

// A sum is what the lines of a metrics file came to, up to an offset.
type sum struct {
	Until   int64 `json:"until"` // bytes; the offset
	Read    int64 `json:"read"`
	Written int64 `json:"written"`
}

// readTraffic returns what has passed through a machine's disks, by the metrics
// at path, and keeps the file small. Calls for one file must not overlap.
func readTraffic(path string) (vmm.DiskTraffic, error) {
	f, err := plainfile.Open(path, os.O_RDWR, 0)
	if err != nil {
		return vmm.DiskTraffic{}, err
	}
	defer f.Close()
	begin, err := readSum(f)
	if err != nil {
		return vmm.DiskTraffic{}, err
	}
	end, err := begin.add(f)
	if err == nil && end.Until-begin.Until > sumEvery {
		err = writeSum(f, end)
	}
	return vmm.DiskTraffic{Read: end.Read, Written: end.Written}, err
}

// readSum returns the sum at the beginning of f, the zero value if there is none
// that makes sense.
func readSum(f *os.File) (sum, error) {
	fi, err := f.Stat()
	if err != nil {
		return sum{}, err
	}
	line, err := bufio.NewReader(io.NewSectionReader(f, 0, sumEvery)).ReadBytes('\n')
	if err != nil {
		return sum{}, ignoreEnd(err)
	}
	var s sum
	if json.Unmarshal(line, &s) != nil || s.Until <= 0 || s.Until > fi.Size() || s.Read < 0 || s.Written < 0 {
		return sum{}, nil
	}
	return s, nil
}

// writeSum puts s in the place of what it sums up.
func writeSum(f *os.File, s sum) error {
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err := f.WriteAt(line, 0); err != nil {
		return err
	}
	return free(f, int64(len(line)), s.Until)
}

// add returns s and the complete lines of f that it does not hold yet. What is
// no line of metrics is passed over.
func (s sum) add(f *os.File) (sum, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(f, s.Until, maxMetricsRead), maxMetricsLine)
	whole := true // no part of this line was dropped
	for {
		part, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.Until += int64(len(part))
			whole = false
			continue
		}
		if err != nil {
			return s, ignoreEnd(err) // the rest is no complete line yet
		}
		s.Until += int64(len(part))
		if whole {
			s.count(part)
		}
		whole = true
	}
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// count adds one line of metrics.
func (s *sum) count(line []byte) {
	var m struct {
		Block struct { // of all drives
			Read    int64 `json:"read_bytes"`
			Written int64 `json:"write_bytes"`
		} `json:"block"`
	}
	if json.Unmarshal(line, &m) == nil && m.Block.Read >= 0 && m.Block.Written >= 0 {
		s.Read = max(s.Read, s.Read+m.Block.Read) // it never overflows
		s.Written = max(s.Written, s.Written+m.Block.Written)
	}
}
