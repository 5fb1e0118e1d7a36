package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"banger/internal/api/client"
	"banger/internal/atomicfile"
	"banger/internal/errkind"
	"banger/internal/trace"
)

// A tracing is what --trace asks for; nil: nothing. Its methods are called one
// at a time.
type tracing struct {
	app  *app
	path string
	perm fs.FileMode
	rec  *trace.Recorder

	whole, end func() // end all of it, and the stage that goes on
	silent     bool   // the command runs and has written nothing yet
}

// traceTo begins to record what goes to a file. One that cannot be written is
// [errkind.Usage].
func (a *app) traceTo(file string) (*tracing, error) {
	switch file {
	case "":
		return nil, usage("--trace is empty")
	case "-":
		return nil, usage("--trace -: a trace takes a file; standard output is the command's")
	}
	began := processBegan()
	path, perm, err := placeOf(file)
	if err != nil {
		return nil, usage("--trace %s: %w", errkind.Quote(file), err)
	}
	t := &tracing{app: a, path: path, perm: perm, rec: trace.New()}
	t.whole = t.rec.BeginAt(began, trace.Banger, "vm run")
	t.end = t.rec.BeginAt(began, trace.Banger, "load banger")
	return t, nil
}

// processBegan is when this process began, nearly. The kernel tells that to
// 10 ms, but so far we have only been loaded: how long that took is the time
// that we had a processor for.
func processBegan() time.Time {
	now := time.Now()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return now
	}
	return now.Add(-time.Duration(u.Utime.Nano() + u.Stime.Nano()))
}

// placeOf returns where a trace is written, and with which permissions, after
// it has tried that. What is there already is written anew if it is a file; a
// device must stay one.
func placeOf(file string) (path string, perm fs.FileMode, err error) {
	path = file
	if _, err := os.Lstat(path); err == nil {
		// A link stays one.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return "", 0, cause(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			return "", 0, cause(err)
		}
		if !fi.Mode().IsRegular() {
			return "", 0, errors.New("it is there, and no file")
		}
		perm = fi.Mode().Perm()
	}
	fresh, err := tryToMake(path)
	if perm == 0 {
		perm = fresh
	}
	return path, perm, err
}

// tryToMake makes a file beside path and removes it, and returns the
// permissions that the umask gave it.
func tryToMake(path string) (fs.FileMode, error) {
	beside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+strconv.Itoa(os.Getpid())+".tmp")
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, cause(err)
	}
	fi, err := f.Stat()
	if err := errors.Join(err, f.Close(), os.Remove(beside)); err != nil {
		return 0, cause(err)
	}
	return fi.Mode().Perm(), nil
}

// cause is what went wrong, without the path of a file that nobody has named.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// with returns a context in which is recorded.
func (t *tracing) with(ctx context.Context) context.Context {
	if t == nil {
		return ctx
	}
	return trace.With(ctx, t.rec)
}

// stage begins a stage of ours, which ends the one before.
func (t *tracing) stage(name string) {
	if t == nil {
		return
	}
	t.end()
	t.end = t.rec.Begin(trace.Banger, name)
}

// event begins the stage to which an event leads.
func (t *tracing) event(e client.Event) {
	switch {
	case t == nil:
	case e.VM != nil:
		t.stage("wait for the command")
	case e.Started:
		t.silent = true
		t.stage("wait for the first byte")
	case t.silent && (e.Stdout != nil || e.Stderr != nil):
		t.silent = false
		t.stage("wait for the exit")
	case e.Exit != nil:
		t.stage("wait for the end of the call")
	}
}

// write ends the trace and writes it. What the command's code says stands even
// if that fails.
func (t *tracing) write() {
	if t == nil {
		return
	}
	t.end()
	t.whole()
	doc, err := t.rec.Encode("banger vm run")
	if err == nil {
		err = atomicfile.Replace(t.path, doc, t.perm)
	}
	if err != nil {
		t.app.warn("cannot write the trace: %v", err)
	}
}
