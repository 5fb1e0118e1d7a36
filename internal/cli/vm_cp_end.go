package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
	"banger/internal/transfer"
)

// maxSkips and keptSkips are how many of what is passed over get a line each,
// and are listed by --json: a guest may name as many as it likes.
const (
	maxSkips  = 20
	keptSkips = 1000
)

// skip tells of something that is passed over. A guest may have named it.
func (c *copying) skip(path, why string) {
	if c.skips++; c.skips <= keptSkips {
		c.skipped = append(c.skipped, skip{line(path), line(why)})
	}
	if c.skips <= maxSkips {
		c.progress.idle()
		c.warn("%s is not copied: %s", line(path), line(why))
	}
}

func (c *copying) tellProgress(path string, done, total int64) {
	c.bytes = done
	c.progress.update("", &api.Progress{Stage: c.stage, Detail: path, Done: done, Total: total})
}

// line makes one line of a text.
func line(s string) string { return cut(strings.ReplaceAll(s, "\n", "\uFFFD"), 4096) }

// lineError is an error whose text is one line: a guest's names may be in it.
type lineError struct{ err error }

func (e *lineError) Error() string { return line(e.err.Error()) }
func (e *lineError) Unwrap() error { return e.err }

// failed gives the error of a copy its kind, its words and what to do.
func (c *copying) failed(err error) error {
	err = c.hints(errkindOf(err))
	err = cannot(c.stage, &lineError{err})
	var sig signaled
	if !errors.As(err, &sig) || c.streams() {
		return err
	}
	// It goes without saying why it ended, but not how it goes on.
	c.tell(err)
	return exitError(codeSignal + int(sig.sig))
}

// errkindOf gives what went wrong here its kind.
func errkindOf(err error) error {
	var pe *fs.PathError
	if errkind.Of(err) != errkind.Internal || !errors.As(err, &pe) {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errkind.Wrap(errkind.NotFound, err)
	case errors.Is(err, transfer.ErrKind), errors.Is(err, transfer.ErrBusy),
		errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENOTEMPTY):
		return errkind.Wrap(errkind.Conflict, err)
	}
	return err
}

func (c *copying) hints(err error) error {
	switch {
	case errors.Is(err, client.ErrInterrupted) && !c.streams():
		return errkind.WithHint(err, "banger vm cp --resume "+quoteAll(c.args))
	case errors.Is(err, client.ErrGuestFull):
		return errkind.WithHint(err, "banger vm exec "+errkind.Quote(c.vm)+" -- df -h")
	case errors.Is(err, syscall.ENOSPC) && c.out:
		return errkind.WithHint(err, "df -h "+errkind.Quote(c.dir()))
	case errkind.Of(err) == errkind.NotFound:
		return errkind.WithHint(err, c.dotted()...)
	}
	return err
}

// dir is the directory here to which is copied.
func (c *copying) dir() string {
	if fi, err := os.Stat(c.target); err == nil && fi.IsDir() {
		return c.target
	}
	return filepath.Dir(c.target)
}

// dotted is the command line that takes what was written as VM:PATH for files
// of that name, if there are such.
func (c *copying) dotted() []string {
	words := make([]string, len(c.args))
	found := false
	for i, arg := range c.args {
		words[i] = arg
		if _, _, remote := cutVM(arg); !remote {
			continue
		}
		if _, err := os.Lstat(arg); err == nil {
			words[i], found = "./"+arg, true
		}
	}
	if !found {
		return nil
	}
	return []string{"banger vm cp " + quoteAll(words)}
}
