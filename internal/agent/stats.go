package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// Stats implements the method of the protocol.
func (s service) Stats(context.Context, *connect.Request[wire.StatsRequest]) (*connect.Response[wire.StatsResponse], error) {
	up, err := uptime()
	resp := &wire.StatsResponse{UptimeSeconds: up.Seconds()}
	var merr, rerr, werr error
	resp.MemoryBytes, resp.MemoryAvailableBytes, merr = memory()
	resp.Root, rerr = usage("/")
	resp.Work, werr = usage("/root")
	if err := errors.Join(err, merr, rerr, werr); err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(resp), nil
}

func memory() (total, available int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	return parseMeminfo(f)
}

// parseMeminfo reads what proc_meminfo(5) describes; its kB are KiB.
func parseMeminfo(r io.Reader) (total, available int64, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		into := map[string]*int64{"MemTotal": &total, "MemAvailable": &available}[name]
		if into == nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read /proc/meminfo: %w", err)
		}
		*into = n << 10
	}
	return total, available, lines.Err()
}

func usage(path string) (*wire.FileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return &wire.FileSystem{SizeBytes: int64(st.Blocks) * st.Bsize, UsedBytes: int64(st.Blocks-st.Bfree) * st.Bsize}, nil
}
