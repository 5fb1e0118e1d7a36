package vmmproc

import (
	"bytes"
	"io"
	"os"
	"strings"
	"unicode"

	"banger/internal/plainfile"
)

// The logs stand in a directory that belongs to the VMM's user: what is at
// their paths may be anything, put there by a guest that broke out. They are
// opened by [plainfile.Open] alone. Between one opening and the next there may
// be another file: what was checked is used while it is open.

const (
	maxWords   = 2 << 10  // bytes of what a VMM said that an error keeps
	maxConsole = 64 << 10 // bytes of the console that are searched for a panic
)

// OpenedLog is a log, open for this boot's output to be appended.
type OpenedLog struct {
	*os.File
	From int64 // bytes; where this boot's part begins
}

// PrepareLog makes the file at path, if it is not there, gives it to uid, and
// returns it open for appending.
func PrepareLog(path string, uid int) (OpenedLog, error) {
	f, err := plainfile.Open(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return OpenedLog{}, err
	}
	var size int64
	if err = f.Chown(uid, uid); err == nil {
		size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return OpenedLog{}, err
	}
	return OpenedLog{f, size}, nil
}

// ReadTail returns the end of the log at path, at most limit bytes, nothing
// from before from, unless the log was trimmed to below that. A log that cannot
// be read has none.
func ReadTail(path string, from, limit int64) []byte {
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

// LastWords returns what a VMM printed, in one line, printable.
func LastWords(path string, from int64) string {
	return OneLine(string(ReadTail(path, from, maxWords)))
}

// OneLine returns text in one line, printable.
func OneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ';'
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, strings.TrimSpace(text))
}

// Panicked reports whether a kernel's panic is the last thing on the console
// whose log stands at path, nothing from before from: to its VMM, a kernel that
// panics reboots.
func Panicked(path string, from int64) bool { return panicked(ReadTail(path, from, maxConsole)) }

// panicked reports whether there is a line that tells of a panic, and behind it
// only lines of the kernel's, which begin with "[" and a time.
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
