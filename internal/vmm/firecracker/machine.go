package firecracker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// keepEvery is how often a machine's files are kept small. Firecracker writes
// its metrics once a minute, some kilobytes at a time.
const keepEvery = time.Minute

// machine is the connection to one Firecracker.
type machine struct {
	spec        vmm.Spec
	pid         int
	api         *client
	watch       *vmmproc.Watch
	consoleFrom int64 // where this boot's part of the console log begins; 0 if not known

	changed chan struct{} // holds a value when we made the guest stand or go on
	done    chan struct{} // closed when everything of the machine's has ended

	files sync.Mutex // held for changing log and metrics

	mu   sync.Mutex
	exit vmm.Exit // guarded by mu; settled before done is closed
}

// newMachine watches the process pid, which serves the machine's API. This
// boot's part of the console log begins at console, in bytes.
func newMachine(pid int, s vmm.Spec, console int64) (*machine, error) {
	w, err := vmmproc.NewWatch(pid)
	if err != nil {
		return nil, err
	}
	m := &machine{
		spec: s, pid: pid, watch: w, consoleFrom: console,
		api:     newClient(s.APISock, samePeer(pid, s.UID)),
		changed: make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		m.keepSmall()
	}()
	go func() {
		defer close(m.done)
		ended := m.watch.Wait()
		m.watch.Close()
		m.api.Close()
		<-kept
		if ended {
			m.settle()
		}
	}()
	return m, nil
}

// keepSmall bounds the machine's files until the connection ends.
func (m *machine) keepSmall() {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.files.Lock()
			trimLog(m.spec.VMMLog)
			if m.spec.Metrics != "" {
				// An error is told to who asks for the figures.
				_, _ = readTraffic(m.spec.Metrics)
			}
			m.files.Unlock()
		case <-m.api.closed.Done():
			return
		}
	}
}

// settle tells why the process went.
func (m *machine) settle() {
	exit := vmm.ExitUnknown
	if endedWell(m.spec.VMMLog) {
		exit = vmm.ExitEnded
		if vmmproc.Panicked(m.spec.ConsoleLog, m.consoleFrom) {
			exit = vmm.ExitPanic
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.exit = exit
}

func (m *machine) PID() int { return m.pid }

func (m *machine) Agent() vmm.Endpoint {
	return vmm.Endpoint{Kind: vmm.VsockUnix, Path: m.spec.AgentSock, Port: vmm.AgentPort}
}

func (m *machine) Status(ctx context.Context) (vmm.Status, error) {
	info, err := m.api.describe(ctx)
	if err != nil {
		return "", fmt.Errorf("ask Firecracker for the machine's status: %w", err)
	}
	switch info.State {
	case stateRunning:
		return vmm.Running, nil
	case statePaused:
		return vmm.Paused, nil
	}
	return vmm.Ended, nil // it never started
}

func (m *machine) Pause(ctx context.Context) error {
	if err := m.api.pause(ctx); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	m.tellChanged()
	return nil
}

func (m *machine) Resume(ctx context.Context) error {
	if err := m.api.resume(ctx); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	m.tellChanged()
	return nil
}

// tellChanged says that the guest may have come to stand or gone on. Firecracker
// itself tells nothing, and stops a guest only when it is asked.
func (m *machine) tellChanged() {
	select {
	case m.changed <- struct{}{}:
	default: // known already
	}
}

// DiskTraffic makes Firecracker write what it has counted, and sums it up.
func (m *machine) DiskTraffic(ctx context.Context) (vmm.DiskTraffic, error) {
	if m.spec.Metrics == "" {
		return vmm.DiskTraffic{}, errors.New("the machine was launched without metrics")
	}
	if err := m.api.flushMetrics(ctx); err != nil {
		return vmm.DiskTraffic{}, fmt.Errorf("ask Firecracker for its metrics: %w", err)
	}
	m.files.Lock()
	defer m.files.Unlock()
	t, err := readTraffic(m.spec.Metrics)
	if err != nil {
		return vmm.DiskTraffic{}, fmt.Errorf("read Firecracker's metrics: %w", err)
	}
	return t, nil
}

func (m *machine) Changed() <-chan struct{} { return m.changed }

func (m *machine) Done() <-chan struct{} { return m.done }

func (m *machine) Exit() vmm.Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

// Close returns when everything of the connection has ended.
func (m *machine) Close() error {
	m.watch.Close()
	<-m.done
	return nil
}
