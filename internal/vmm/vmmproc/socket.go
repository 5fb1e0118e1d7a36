package vmmproc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
)

// dialEvery is how often a VMM that is starting is asked whether it listens
// yet. It takes about 20 ms.
const dialEvery = time.Millisecond

// Dial connects to the Unix socket at path.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// DialUntil dials until somebody listens or ctx ends.
func DialUntil(ctx context.Context, path string) (net.Conn, error) {
	tick := time.NewTicker(dialEvery)
	defer tick.Stop()
	for {
		conn, err := Dial(ctx, path)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// CheckUnused reports a VMM that listens at path, as an error of kind
// [errkind.Conflict]: another one would take its socket from it.
func CheckUnused(ctx context.Context, path string) error {
	conn, err := Dial(ctx, path)
	if err != nil {
		return nil // nobody, which is what is wanted
	}
	conn.Close()
	return errkind.New(errkind.Conflict, "a VMM listens at %s already", path)
}

// Peer returns the process that listens at the other end of a Unix socket. It
// must run as uid: in a directory that is that user's, the socket itself proves
// nothing.
func Peer(conn net.Conn, uid uint32) (pid int, err error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is no Unix socket", conn)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, fmt.Errorf("ask who listens: %w", err)
	}
	if cred.Uid != uid {
		return 0, fmt.Errorf("user %d listens at the VMM's socket, not %d", cred.Uid, uid)
	}
	return int(cred.Pid), nil
}
