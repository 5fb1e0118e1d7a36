package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	// quietFor is how long nothing may have happened until a guest is quiet:
	// longer than udev keeps idle workers (3 s), whose ends are work as well.
	quietFor = 3500 * time.Millisecond
	// quietWait is how long to wait for that at most: some guest is never quiet.
	quietWait = 15 * time.Second
	quietPoll = 250 * time.Millisecond
	// quietShare is which part of that time the processors may have worked:
	// one in so many.
	quietShare = 8
)

// Quiet implements the method of [System].
func (guestSystem) Quiet(ctx context.Context) error {
	if !systemdRuns() {
		return nil // nothing was started that might have more to do
	}
	return awaitQuiet(ctx, procWork, pause)
}

// A workTime is how long processors have worked, and been there, in ticks.
type workTime struct{ busy, all uint64 }

// awaitQuiet waits until little has been worked for quietFor, or quietWait has
// passed.
func awaitQuiet(ctx context.Context, read func() (workTime, error), pause func(context.Context, time.Duration) error) error {
	last, err := read()
	if err != nil {
		return err
	}
	quiet := time.Duration(0)
	for waited := time.Duration(0); quiet < quietFor && waited < quietWait; waited += quietPoll {
		if err := pause(ctx, quietPoll); err != nil {
			return fmt.Errorf("wait until the guest is quiet: %w", err)
		}
		now, err := read()
		if err != nil {
			return err
		}
		if quiet += quietPoll; (now.busy-last.busy)*quietShare > now.all-last.all {
			quiet = 0
		}
		last = now
	}
	return nil
}

// procWork reads /proc/stat; see proc_stat(5).
func procWork() (workTime, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return workTime{}, err
	}
	return parseWork(data)
}

func parseWork(stat []byte) (w workTime, err error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 6 || string(fields[0]) != "cpu" {
		return w, errors.New("/proc/stat does not begin with all processors")
	}
	// user, nice, system, idle, waiting for disks, …; what a guest's guests
	// take is in the first, and no other comes after the eighth.
	for i, f := range fields[1:min(len(fields), 9)] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return w, fmt.Errorf("/proc/stat: %w", err)
		}
		w.all += n
		if i != 3 && i != 4 {
			w.busy += n
		}
	}
	return w, nil
}
