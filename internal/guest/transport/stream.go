package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openUnix connects to the socket of a character device.
func openUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// replyTime bounds the wait for Firecracker's answer. It comes from the guest's
// kernel, and up to Linux 6.6 the refusal of a request that waited for the
// guest to load its vsock driver may get lost: the driver takes requests in
// before it is able to answer (mended in Linux 6.7, "vsock/virtio: initialize
// the_virtio_vsock before using VQs"). Firecracker waits as well, until
// somebody connects again.
const replyTime = 500 * time.Millisecond

// maxReply bounds the line with which Firecracker answers, in bytes; it holds
// a port number.
const maxReply = 32

// errNoReply says that a request to connect was neither granted nor refused.
var errNoReply = fmt.Errorf("no answer within %s", replyTime)

// openHybrid connects to a port in the guest through Firecracker's socket: it
// takes "CONNECT <port>\n" and answers "OK <port>\n", or hangs up if nobody
// listens there yet. If neither comes, it fails after [replyTime].
func openHybrid(ctx context.Context, path string, port uint32) (net.Conn, error) {
	c, err := openUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, replyTime, errNoReply)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	_, err = fmt.Fprintf(c, "CONNECT %d\n", port)
	if err == nil {
		err = readOK(c)
	}
	if !stop() { // the deadline that it set is no news
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to port %d of the guest: %w", port, err), c.Close())
	}
	return c, nil
}

// readOK reads Firecracker's answer byte by byte: what follows it is the
// guest's.
func readOK(c net.Conn) error {
	line := make([]byte, 0, maxReply)
	for {
		var b [1]byte
		if _, err := c.Read(b[:]); err != nil {
			return err
		}
		if b[0] == '\n' {
			break
		}
		if len(line) == maxReply {
			return fmt.Errorf("the VMM answered %q…", line)
		}
		line = append(line, b[0])
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("the VMM answered %q", line)
	}
	return nil
}

// openVsock connects to a port of the guest with this context id.
func openVsock(ctx context.Context, cid, port uint32) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open vsock: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port})
	if err != nil && err != unix.EINPROGRESS {
		return nil, errors.Join(fmt.Errorf("connect to vsock %d:%d: %w", cid, port, err), unix.Close(fd))
	}
	c := &vsockConn{File: os.NewFile(uintptr(fd), "vsock"), addr: vsockAddr{cid, port}}
	if err == unix.EINPROGRESS {
		if err := c.awaitConnect(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("connect to vsock %d:%d: %w", cid, port, err), c.Close())
		}
	}
	return c, nil
}

// vsockConn is a connected vsock socket; the net package knows none.
type vsockConn struct {
	*os.File
	addr vsockAddr
}

// awaitConnect waits until the socket is connected.
func (c *vsockConn) awaitConnect(ctx context.Context) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var result error
	err = raw.Write(func(fd uintptr) bool {
		var done bool
		done, result = connected(int(fd))
		return done
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, result)
}

func connected(fd int) (bool, error) {
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0); err == nil && n == 0 || err == unix.EINTR {
		return false, nil
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = syscall.Errno(errno)
	}
	return true, err
}

func (c *vsockConn) LocalAddr() net.Addr  { return vsockAddr{} }
func (c *vsockConn) RemoteAddr() net.Addr { return c.addr }

type vsockAddr struct{ cid, port uint32 }

func (vsockAddr) Network() string  { return "vsock" }
func (a vsockAddr) String() string { return fmt.Sprintf("%d:%d", a.cid, a.port) }
