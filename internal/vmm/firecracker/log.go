package firecracker

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/plainfile"
	"banger/internal/vmm/vmmproc"
)

const (
	maxLog  = 1 << 20 // bytes of the VMM's log that are kept at least half of
	logTail = 4 << 10 // bytes of it that are searched for how the VMM ended
)

// lineRE is a line of Firecracker's log: time, [id:thread:LEVEL], message.
var lineRE = regexp.MustCompile(`^\S+ \[[^\]]*:([A-Z]+)\] (.*)$`)

// lastWords returns what a VMM said was wrong, in one line, printable: the
// warnings and errors at the end of its log. If there is none it is what stands
// there that is no line of the log, the VMM's error output.
func lastWords(path string) string {
	var bad, other []string
	for line := range strings.Lines(string(vmmproc.ReadTail(path, 0, logTail))) {
		line = strings.Trim(line, "\x00\r\n ")
		switch m := lineRE.FindStringSubmatch(line); {
		case m == nil && line != "":
			other = append(other, line)
		case m != nil && (m[1] == "WARN" || m[1] == "ERROR"):
			bad = append(bad, m[2])
		}
	}
	if len(bad) == 0 {
		bad = other
	}
	said := vmmproc.OneLine(strings.Join(bad, "\n"))
	return said[max(0, len(said)-maxFault):]
}

// endedWell reports whether the last thing in a VMM's log is that it ended
// because its guest did. The log is that of one boot.
func endedWell(path string) bool {
	return bytes.Contains(vmmproc.ReadTail(path, 0, logTail), []byte("Firecracker exiting successfully"))
}

// trimLog frees the room that the first part of a log takes which has grown
// too long. One that cannot be opened is left alone.
func trimLog(path string) {
	f, err := plainfile.Open(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil && st.Blocks*512 > maxLog {
		_ = free(f, 0, st.Size-maxLog/2) // it is tried again soon
	}
}

// free gives back the room that a part of f takes; it reads as zeros from then
// on. Who writes to f goes on where it was.
func free(f *os.File, from, to int64) error {
	if to <= from {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a file system without holes keeps it all
	}
	return err
}
