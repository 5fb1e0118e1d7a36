package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"banger/internal/errkind"
	"banger/internal/plainfile"
	"banger/internal/vm"
)

// The console's log belongs to the VMM's unprivileged user, as does the
// directory it is in: what stands at its path may be anything. It is opened by
// [plainfile.Open] alone, which takes no link, no FIFO, and no file that has
// another name as well. What a guest wrote to it is bytes; an error message
// shows them without control characters.

// openConsole opens a console's log for reading and writing.
func openConsole(path string) (*os.File, error) {
	return plainfile.Open(path, os.O_RDWR, 0)
}

// trimConsole drops the first part of a console's log that has grown over
// limit, in bytes. The VMM appends, so what it writes next comes behind what
// was kept; what it writes in the very moment of trimming may be lost.
func trimConsole(path string, limit int64) error {
	f, err := openConsole(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() <= limit {
		return err
	}
	kept := make([]byte, limit/2)
	n, err := f.ReadAt(kept, fi.Size()-int64(len(kept)))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	kept = kept[:n]
	if i := bytes.IndexByte(kept, '\n'); i >= 0 {
		kept = kept[i+1:]
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	// Not by WriteAt(0): what the VMM has appended since stays behind it.
	a, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = a.Write(kept)
	return err
}

// consoleSize is how much a console's log holds, in bytes.
func (m *Manager) consoleSize(v vm.VM) int64 {
	f, err := openConsole(m.paths(v).ConsoleLog())
	if err != nil {
		return 0 // there is none yet
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0
	}
	return fi.Size()
}

// consoleTail returns the last n lines of a machine's console from an offset
// on, printable.
func (m *Manager) consoleTail(v vm.VM, from int64, n int) string {
	f, err := openConsole(m.paths(v).ConsoleLog())
	if err != nil {
		return ""
	}
	defer f.Close()
	off, err := tailOffset(f, n)
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, max(off, from), 1<<20), 16<<10))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, string(text)))
}

// tailOffset returns where the last n lines of a file begin, looking back no
// further than 1 MiB.
func tailOffset(f *os.File, n int) (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	start := max(0, fi.Size()-1<<20)
	buf := make([]byte, fi.Size()-start)
	got, err := f.ReadAt(buf, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	buf = buf[:got]
	at := len(bytes.TrimRight(buf, "\n"))
	for range n {
		if at = bytes.LastIndexByte(buf[:at], '\n'); at < 0 {
			return start, nil
		}
	}
	return start + int64(at) + 1, nil
}

// followEvery is how often a log that is followed is looked at.
const followEvery = 100 * time.Millisecond

// Logs writes the machine's console log to w: its last tail lines (0 or less:
// all that is kept), and with follow what comes after, until ctx ends or the
// machine is deleted.
func (m *Manager) Logs(ctx context.Context, v vm.VM, tail int, follow bool, w io.Writer) error {
	path := m.paths(v).ConsoleLog()
	var off int64
	if f, err := openConsole(path); err == nil {
		if tail > 0 {
			off, err = tailOffset(f, tail)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		var err error
		if off, err = copyFrom(w, path, off); err != nil {
			return err
		}
		if !follow {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch _, err := m.d.Records.Get(ctx, v.ID); {
		case errkind.Of(err) == errkind.NotFound:
			return nil // deleted
		case err != nil:
			return err
		}
	}
}

// copyFrom writes what stands in the file at path from off on, and returns
// where it ended. A file that is not there yet is empty; one that was trimmed
// is read from its start.
func copyFrom(w io.Writer, path string, off int64) (int64, error) {
	f, err := openConsole(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return off, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return off, err
	}
	if fi.Size() < off {
		off = 0
	}
	// No further than the end as it is now: a guest that floods its console
	// must not keep a reader busy for ever.
	n, err := io.Copy(w, io.NewSectionReader(f, off, fi.Size()-off))
	return off + n, err
}
