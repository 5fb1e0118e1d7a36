package cli

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"banger/internal/api/client"
)

// tty is the terminal at our end of a command that has one.
type tty struct {
	in   *os.File // whose keys the command gets; nil: our input is none
	size *os.File // whose size counts; nil: there is none
	term string   // $TERM
}

// wantTTY decides whether a command gets a terminal, and returns ours.
func (a *app) wantTTY(yes, no bool) *tty {
	t := &tty{term: a.env.get("TERM")}
	in, isIn := terminal(a.In)
	out, isOut := terminal(a.Out)
	if no || !yes && !(isIn && isOut) {
		return nil
	}
	if isIn {
		t.in, t.size = in, in
	}
	if isOut {
		t.size = out
	}
	return t
}

// request says what terminal the command is to have. Without one of ours it is
// as large as terminals were.
func (t *tty) request() *client.TTY {
	rows, cols := t.dimensions()
	return &client.TTY{Term: t.term, Rows: rows, Cols: cols}
}

func (t *tty) dimensions() (rows, cols int) {
	if t.size != nil {
		if c, r, err := term.GetSize(int(t.size.Fd())); err == nil && c > 0 && r > 0 {
			return r, c
		}
	}
	return 24, 80
}

// attach makes keys go through as they are, and tells cmd of each new size,
// until detach is called. Detach may be called twice.
func (t *tty) attach(cmd resizer) (detach func(), err error) {
	restore, err := t.raw()
	if err != nil {
		return nil, err
	}
	stop := t.tellSize(cmd)
	return sync.OnceFunc(func() { stop(); restore() }), nil
}

// raw makes keys go through as they are, until restore is called.
func (t *tty) raw() (restore func(), err error) {
	if t.in == nil {
		return func() {}, nil
	}
	fd := int(t.in.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return func() { _ = term.Restore(fd, old) }, nil
}

// A resizer is told how large a terminal is.
type resizer interface {
	Resize(rows, cols int) error
}

// tellSize tells cmd of each new size until stop is called, once.
func (t *tty) tellSize(cmd resizer) (stop func()) {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			// At first too: the size may have changed since the request.
			rows, cols := t.dimensions()
			if cmd.Resize(rows, cols) != nil {
				return // the command has ended
			}
			select {
			case <-resized:
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(resized)
		close(done)
	}
}
