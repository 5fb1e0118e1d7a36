package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// The logs stand in a directory that belongs to the VMM's user: what is at
// their paths may be anything, put there by a guest that broke out. They are
// opened without following a link, and must be regular files with one name.

const (
	maxWords   = 2 << 10  // bytes of what a VMM said that an error keeps
	maxConsole = 64 << 10 // bytes of the console that are searched for a panic
)

// prepareLog makes the file at path, if it is not there, and gives it to uid.
// It returns its size in bytes.
func prepareLog(path string, uid int) (int64, error) {
	f, err := openLog(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := f.Chown(uid, uid); err != nil {
		return 0, err
	}
	return f.Seek(0, io.SeekEnd)
}

func openLog(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1) {
		err = errors.New("no regular file, or one with several names")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// readTail returns the end of the log at path, at most limit bytes, nothing
// from before from, unless the log was trimmed to below that. A log that cannot
// be read has none.
func readTail(path string, from, limit int64) []byte {
	f, err := openLog(path, os.O_RDONLY)
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
