package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// serveVsock serves every connection of the host to a port of AF_VSOCK
// (vsock(7)), until ctx ends. It waits for the device to appear.
func (s *Server) serveVsock(ctx context.Context, port uint32) error {
	l, err := listenVsock(ctx, port)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.SetReadDeadline(time.Unix(1, 0)) })()
	s.o.Log.Info("agent serves", "vsock port", port)
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := acceptVsock(l)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.o.Log.Warn("accept a connection", "err", err)
			if pause(ctx, 100*time.Millisecond) != nil {
				return nil
			}
			continue
		}
		conns.Go(func() {
			if err := s.pump(ctx, c); err != nil && ctx.Err() == nil {
				s.o.Log.Debug("connection ended", "err", err)
			}
		})
	}
}

// listenVsock listens on a port, as soon as there is a device: before, the
// kernel has no transport to listen on.
func listenVsock(ctx context.Context, port uint32) (*os.File, error) {
	for {
		f, err := tryListenVsock(port)
		if err == nil || !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.ENODEV) {
			return f, err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func tryListenVsock(port uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open vsock: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on vsock port %d: %w", port, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

// acceptVsock returns the next connection that the host made: a program in the
// guest may connect too, and is sent away.
func acceptVsock(l *os.File) (*os.File, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var fd int
		var from unix.Sockaddr
		var aerr error
		err := raw.Read(func(lfd uintptr) bool {
			fd, from, aerr = unix.Accept4(int(lfd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return aerr != unix.EAGAIN && aerr != unix.EINTR
		})
		if err = errors.Join(err, aerr); err != nil {
			return nil, err
		}
		if vm, ok := from.(*unix.SockaddrVM); ok && vm.CID == unix.VMADDR_CID_HOST {
			return os.NewFile(uintptr(fd), "vsock connection"), nil
		}
		unix.Close(fd)
	}
}
