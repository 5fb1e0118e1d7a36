package client

import (
	"context"
	"errors"
	"io/fs"
	"os/user"
	"time"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/errkind"
)

// startLimit is how long a daemon may take to open its socket. Recovery keeps
// it closed for ten seconds at most; the rest is a host that is busy.
const startLimit = 90 * time.Second

// Options is where a daemon is, or is to be.
type Options struct {
	Paths config.Paths
	// Bangerd is the daemon's program; empty: beside the running one, else
	// in PATH.
	Bangerd string
	// Env is what a daemon that is started gets beside PATH and HOME, each
	// NAME=VALUE.
	Env []string
	// Root says that the caller has root's rights, which starting takes.
	Root bool
	// Systemd runs a daemon that is started outside of the caller's unit, so
	// that it does not end with it. Set it where systemd is PID 1.
	Systemd bool
}

// errNone says that no daemon answers at the socket.
var errNone = errors.New("no daemon answers")

// IsNone reports whether an error of [Client.Ping] says that no daemon runs,
// and not that it cannot be reached.
func IsNone(err error) bool { return errors.Is(err, errNone) }

// Ping returns nil if the daemon answers, for which one that is sound looks at
// nothing and waits for nobody. Without one [IsNone] holds of the error:
// neither a socket file that a daemon left behind is one, nor a daemon that is
// on its way out. One that may not be used is an error of kind [errkind.Host].
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.Daemon.Status(ctx, connect.NewRequest(&api.StatusRequest{Brief: true}))
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(err, fs.ErrPermission):
		return errkind.WithHint(errkind.New(errkind.Host, "you may not use %s", c.socket), joinHints()...)
	case errors.Is(err, api.ErrLost):
		return errkind.Wrap(errkind.NotFound, errNone)
	}
	return err
}

// probe is Ping of the daemon of these places.
func probe(ctx context.Context, p config.Paths) error {
	c := New(p.Socket())
	defer c.Close()
	return c.Ping(ctx)
}

// joinHints gives a user the right to use the daemon: by the group where there
// is one, which holds for logins from then on.
func joinHints() []string {
	u, err := user.Current()
	if err != nil {
		return []string{"sudo banger vm list"}
	}
	if _, err := user.LookupGroup("banger"); err == nil {
		return []string{"sudo usermod -aG banger " + u.Username + " && newgrp banger"}
	}
	return []string{"sudo banger daemon stop && sudo banger daemon start"}
}

// Ensure returns when a daemon takes connections, and starts one where none
// does, which takes root. It may be called by several processes at once: one
// daemon is started. Why a daemon did not start is the error, with the
// daemon's own words and hints.
func Ensure(ctx context.Context, o Options) error {
	err := probe(ctx, o.Paths)
	if !errors.Is(err, errNone) {
		return err
	}
	if !o.Root {
		return errkind.WithHint(errkind.New(errkind.Host, "no daemon runs, and starting one takes root"), "sudo banger daemon start")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit,
		errkind.WithHint(errkind.New(errkind.Timeout, "the daemon did not open its socket within %s", startLimit), "tail "+o.Paths.DaemonLog()))
	defer cancel()
	s := starter{Options: o}
	return s.run(ctx)
}

// Stop ends the daemon and returns when its process is gone. Machines go on.
// Without a daemon, [IsNone] holds of the error.
func Stop(ctx context.Context, p config.Paths) error {
	c := New(p.Socket())
	defer c.Close()
	if err := c.Ping(ctx); err != nil {
		return err
	}
	st, err := c.Daemon.Status(ctx, connect.NewRequest(&api.StatusRequest{Brief: true}))
	if err != nil {
		return err
	}
	gone, err := watchProcess(ctx, int(st.Msg.Pid))
	if err != nil {
		return err
	}
	if _, err := c.Daemon.Shutdown(ctx, connect.NewRequest(&api.ShutdownRequest{})); err != nil && !errors.Is(err, api.ErrLost) {
		return err
	}
	c.Close() // the daemon waits a moment for connections to end
	<-gone
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
