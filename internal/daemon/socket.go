package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// listen opens the daemon's socket for o and root alone. What an earlier
// daemon left is removed: the lock says that it is gone.
func listen(path string, o owner) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Made under a name nobody connects to, so that a client finds it ready,
	// with its owner and mode, or not at all.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Lchown(tmp, o.uid, o.gid), os.Chmod(tmp, 0o660))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, err
	}
	return &checkedListener{l, o}, nil
}

// checkedListener takes only connections of root, the owner, and the owner's
// group. The socket's mode says the same; this holds where a mode was changed
// or a socket's descriptor handed on.
type checkedListener struct {
	*net.UnixListener
	owner owner
}

func (l *checkedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if cred, err := peer(c); err == nil && l.owner.allows(cred) {
			return c, nil
		}
		c.Close()
	}
}

func (o owner) allows(c *unix.Ucred) bool {
	if c.Uid == 0 || int(c.Uid) == o.uid || int(c.Gid) == o.gid {
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(c.Uid)))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, strconv.Itoa(o.gid))
}

// peer returns who is at the other end (unix(7), SO_PEERCRED).
func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, cerr); err != nil {
		return nil, fmt.Errorf("credentials of the peer: %w", err)
	}
	return cred, nil
}

// lookupGroup returns a group's id.
func lookupGroup(name string) (int, bool) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(g.Gid)
	return gid, err == nil
}
