package qemu

import (
	"context"
	"fmt"
	"net"
	"sync"

	"banger/internal/vmm"
	"banger/internal/vmm/vmmproc"
)

// machine is the connection to one QEMU.
type machine struct {
	spec        vmm.Spec
	pid         int
	qmp         *qmpClient
	cid         uint32 // of the guest on the host's vsock; 0: it has a serial port instead
	consoleFrom int64  // where this boot's part of the console log begins; 0 if not known

	changed chan struct{} // holds a value when QEMU said that the guest stands or goes on
	done    chan struct{} // closed when everything of the machine's has ended

	mu       sync.Mutex
	shutdown string   // guarded by mu; QEMU's reason for ending
	exit     vmm.Exit // guarded by mu; settled before done is closed
}

// newMachine takes conn over. On an error it is closed. This boot's part of the
// console log begins at console, in bytes.
func newMachine(ctx context.Context, conn net.Conn, s vmm.Spec, console int64) (*machine, error) {
	pid, err := vmmproc.Peer(conn, s.UID)
	if err != nil {
		conn.Close()
		return nil, err
	}
	m := &machine{spec: s, pid: pid, consoleFrom: console}
	if err := m.open(ctx, conn); err != nil {
		return nil, err
	}
	return m, nil
}

// open begins to talk QMP over conn. On an error conn is closed.
func (m *machine) open(ctx context.Context, conn net.Conn) (err error) {
	m.changed, m.done = make(chan struct{}, 1), make(chan struct{})
	if m.qmp, err = newQMP(ctx, conn, m.event); err != nil {
		return err
	}
	// Asked, not remembered: another release of ours may have launched it.
	if m.cid, err = m.qmp.askCID(ctx); err != nil {
		m.qmp.Close()
		return err
	}
	go func() {
		defer close(m.done)
		<-m.qmp.done
		m.settle()
	}()
	return nil
}

// event takes an event of QEMU's; the reader calls it.
func (m *machine) event(e qmpMessage) {
	switch e.Event {
	case "SHUTDOWN":
		m.mu.Lock()
		m.shutdown = e.Data.Reason
		m.mu.Unlock()
	case "STOP", "RESUME": // also because the disk is full
		select {
		case m.changed <- struct{}{}:
		default: // known already
		}
	}
}

func (m *machine) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.exit = exitOf(m.shutdown)
	if m.exit == vmm.ExitReboot && vmmproc.Panicked(m.spec.ConsoleLog, m.consoleFrom) {
		m.exit = vmm.ExitPanic
	}
}

// exitOf translates QEMU's ShutdownCause (qapi/run-state.json).
func exitOf(reason string) vmm.Exit {
	switch reason {
	case "guest-shutdown":
		return vmm.ExitPowerOff
	case "guest-reset":
		return vmm.ExitReboot
	case "guest-panic":
		return vmm.ExitPanic
	case "host-signal", "host-qmp-quit", "host-qmp-system-reset", "host-ui":
		return vmm.ExitHost
	}
	return vmm.ExitUnknown
}

func (m *machine) PID() int { return m.pid }

func (m *machine) Agent() vmm.Endpoint {
	if m.cid != 0 {
		return vmm.Endpoint{Kind: vmm.Vsock, CID: m.cid, Port: vmm.AgentPort}
	}
	return vmm.Endpoint{Kind: vmm.Serial, Path: m.spec.AgentSock}
}

func (m *machine) Status(ctx context.Context) (vmm.Status, error) {
	var r struct {
		Status string `json:"status"`
	}
	if err := m.qmp.call(ctx, "query-status", &r); err != nil {
		return "", fmt.Errorf("ask QEMU for the machine's status: %w", err)
	}
	return statusOf(r.Status), nil
}

// statusOf translates QEMU's RunState (qapi/run-state.json).
func statusOf(s string) vmm.Status {
	switch s {
	case "running":
		return vmm.Running
	case "io-error":
		return vmm.IOError
	case "shutdown", "guest-panicked", "internal-error":
		return vmm.Ended
	}
	return vmm.Paused // by a command, or on the way to another state
}

func (m *machine) Pause(ctx context.Context) error {
	if err := m.qmp.call(ctx, "stop", nil); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	return nil
}

func (m *machine) Resume(ctx context.Context) error {
	if err := m.qmp.call(ctx, "cont", nil); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	return nil
}

func (m *machine) DiskTraffic(ctx context.Context) (t vmm.DiskTraffic, err error) {
	var disks []struct {
		Stats struct {
			Read    int64 `json:"rd_bytes"`
			Written int64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := m.qmp.call(ctx, "query-blockstats", &disks); err != nil {
		return t, fmt.Errorf("ask QEMU for the disks' traffic: %w", err)
	}
	for _, d := range disks {
		t.Read += d.Stats.Read
		t.Written += d.Stats.Written
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
	m.qmp.Close()
	<-m.done
	return nil
}
