package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// openPort opens the agent's virtio-serial port, waiting until there is one.
func openPort(ctx context.Context) (*os.File, error) {
	events, err := listenUevents()
	if err != nil {
		return nil, err
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		// The socket is open: a port that comes after this look is told of.
		path := findPort("/dev", "/sys")
		if path != "" {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				return f, nil
			}
			if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// Nobody tells when an agent before us lets the port go, or when
		// events were lost: look again now and then.
		events.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if _, err := events.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.ENOBUFS) {
			return nil, fmt.Errorf("read kernel events: %w", err)
		}
	}
}

// findPort returns the device of the agent's port, empty if there is none
// yet. The number in a port's name varies, and udev's link by name may not be
// there.
func findPort(dev, sys string) string {
	link := filepath.Join(dev, "virtio-ports", wire.PortName)
	if _, err := os.Stat(link); err == nil {
		return link
	}
	names, _ := filepath.Glob(filepath.Join(sys, "class/virtio-ports/*/name")) // the pattern is well-formed
	for _, n := range names {
		name, err := os.ReadFile(n)
		if err == nil && strings.TrimSpace(string(name)) == wire.PortName {
			return filepath.Join(dev, filepath.Base(filepath.Dir(n)))
		}
	}
	return ""
}

// listenUevents returns a socket that gets a message for every device that
// comes or goes.
func listenUevents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open kernel events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind kernel events: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}

// A port is a virtio-serial port. Its Read returns 0 and no error once each
// time that the host has gone; the next one waits for data from whichever
// host comes then. One Read at a time; Write and the deadline may be used
// beside it.
type port struct {
	r, w   *os.File // the same, but in tests
	raw    syscall.RawConn
	absent bool // no host; Read has said so
	closed atomic.Bool
}

// settle is how long a port must say that no host is connected until it is
// believed. Data and the news of a host travel by different queues: a greeting
// may be read a moment before the port knows of the host that sent it.
const settle = 50 * time.Millisecond

func newPort(r, w *os.File) (*port, error) {
	raw, err := r.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &port{r: r, w: w, raw: raw}, nil
}

// Read waits in the runtime's poller, not in a loop: without a host the kernel
// answers every read at once with 0, and tells when that changes.
func (p *port) Read(b []byte) (int, error) {
	for {
		n, err := p.wait(b, p.absent)
		if n > 0 || err != nil {
			return n, err
		}
		// Some say 0: is it still so in a moment?
		p.r.SetReadDeadline(time.Now().Add(settle))
		n, err = p.wait(b, true)
		p.r.SetReadDeadline(time.Time{})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if n, err = p.now(b); n > 0 || err != nil && err != unix.EAGAIN {
			return n, err
		}
		if err == nil {
			p.absent = true
			return 0, nil
		}
	}
}

// wait reads once there is something to read. A read of 0 bytes it returns,
// or with over, waits on.
func (p *port) wait(b []byte, over bool) (n int, err error) {
	rerr := p.raw.Read(func(fd uintptr) bool {
		n, err = readFD(fd, b)
		if n > 0 || err == unix.EAGAIN {
			p.absent = false
		}
		return err != unix.EAGAIN && (n > 0 || err != nil || !over)
	})
	if p.closed.Load() {
		return 0, os.ErrClosed // a raw read has another error for it, that nobody can name
	}
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

// now reads what is there, unix.EAGAIN if that is nothing.
func (p *port) now(b []byte) (n int, err error) {
	if cerr := p.raw.Control(func(fd uintptr) { n, err = readFD(fd, b) }); cerr != nil {
		return 0, cerr
	}
	return n, err
}

func readFD(fd uintptr, b []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// tryWrite writes b if that is possible at once: without a host it is not.
func (p *port) tryWrite(b []byte) {
	if raw, err := p.w.SyscallConn(); err == nil {
		raw.Write(func(fd uintptr) bool {
			unix.Write(int(fd), b)
			return true
		})
	}
}

func (p *port) Write(b []byte) (int, error)        { return p.w.Write(b) }
func (p *port) SetWriteDeadline(t time.Time) error { return p.w.SetWriteDeadline(t) }

func (p *port) Close() error {
	p.closed.Store(true)
	err := p.r.Close()
	if p.w != p.r {
		err = errors.Join(err, p.w.Close())
	}
	return err
}
