package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
	"banger/internal/version"
)

// Info implements the method of the protocol.
func (s service) Info(context.Context, *connect.Request[wire.InfoRequest]) (*connect.Response[wire.InfoResponse], error) {
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("uname: %w", err))
	}
	up, err := uptime()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&wire.InfoResponse{
		Version:       version.Version,
		Protocol:      wire.Protocol,
		BootId:        strings.TrimSpace(string(bootID)),
		Hostname:      unix.ByteSliceToString(uts.Nodename[:]),
		KernelRelease: unix.ByteSliceToString(uts.Release[:]),
		Role:          s.o.Role,
		UptimeSeconds: up.Seconds(),
	}), nil
}

// uptime is how long ago the kernel was booted.
func uptime() (time.Duration, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return 0, fmt.Errorf("read uptime: %w", err)
	}
	return time.Duration(up.Nano()), nil
}
