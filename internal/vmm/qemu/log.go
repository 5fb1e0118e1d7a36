package qemu

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"banger/internal/plainfile"
	"banger/internal/vmm"
)

// The logs stand in a directory that belongs to the VMM's user: what is at
// their paths may be anything, put there by a guest that broke out. They are
// opened by [plainfile.Open] alone. Between one opening and the next there may
// be another file: what was checked is used while it is open.

const (
	maxWords   = 2 << 10  // bytes of what a VMM said that an error keeps
	maxConsole = 64 << 10 // bytes of the console that are searched for a panic
)

// openedLog is a log, open for this boot's output to be appended.
type openedLog struct {
	*os.File
	from int64 // bytes; where this boot's part begins
}

// prepareLogs makes the console's log and the VMM's for one boot. The
// console's, of which this boot's part begins at consoleFrom, is opened by
// QEMU itself, as the machine's user. That of the VMM is of the caller's user
// and stays open, for QEMU to be given; the caller closes it.
func prepareLogs(s vmm.Spec) (consoleFrom int64, words openedLog, err error) {
	console, err := prepareLog(s.ConsoleLog, int(s.UID))
	if err != nil {
		return 0, openedLog{}, fmt.Errorf("console log: %w", err)
	}
	console.Close()
	words, err = prepareLog(s.VMMLog, os.Geteuid())
	if err != nil {
		return 0, openedLog{}, fmt.Errorf("VMM log: %w", err)
	}
	return console.from, words, nil
}

// prepareLog makes the file at path, if it is not there, gives it to uid, and
// returns it open for appending.
func prepareLog(path string, uid int) (openedLog, error) {
	f, err := plainfile.Open(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return openedLog{}, err
	}
	var size int64
	if err = f.Chown(uid, uid); err == nil {
		size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return openedLog{}, err
	}
	return openedLog{f, size}, nil
}

// readTail returns the end of the log at path, at most limit bytes, nothing
// from before from, unless the log was trimmed to below that. A log that cannot
// be read has none.
func readTail(path string, from, limit int64) []byte {
	f, err := plainfile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	if end < from {
		from = 0
	}
	from = max(from, end-limit)
	data, err := io.ReadAll(io.NewSectionReader(f, from, end-from))
	if err != nil {
		return nil
	}
	return data
}

// lastWords returns what a VMM printed, in one line, printable.
func lastWords(path string, from int64) string {
	text := strings.TrimSpace(string(readTail(path, from, maxWords)))
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ';'
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, text)
}

// panicked reports whether a kernel's panic is the last thing on a console:
// a line that tells of it, and behind it only lines of the kernel's, which
// begin with "[" and a time. QEMU itself sees a reboot.
func panicked(console []byte) bool {
	at := bytes.LastIndex(console, []byte("Kernel panic - not syncing"))
	if at < 0 {
		return false
	}
	_, rest, _ := bytes.Cut(console[at:], []byte("\n"))
	for line := range bytes.Lines(rest) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '[' {
			return false
		}
	}
	return true
}
