package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxQMPLine is the length in bytes of the longest message that is read.
	// What the driver asks for takes a few hundred.
	maxQMPLine = 1 << 20
	// qmpTimeout is how long QEMU may take to answer. It answers between two
	// rounds of its main loop, however busy its guest is.
	qmpTimeout = 10 * time.Second
)

// A qmpClient is one connection to a VMM's QMP socket, in command mode. Its
// methods may be called concurrently.
type qmpClient struct {
	conn  net.Conn
	event func(qmpMessage) // called by the reader, in order; must not block
	done  chan struct{}    // closed when the reader has ended

	wmu sync.Mutex // held for writing a command

	mu      sync.Mutex
	lastID  uint64                      // guarded by mu
	waiting map[uint64]chan<- qmpAnswer // guarded by mu; nil: the reader has ended
	err     error                       // guarded by mu; why the reader ended
}

type qmpAnswer struct {
	data json.RawMessage
	err  error
}

// qmpMessage is any message of QEMU's (docs/interop/qmp-spec).
type qmpMessage struct {
	Greeting *json.RawMessage `json:"QMP"`
	ID       *uint64          `json:"id"`
	Return   json.RawMessage  `json:"return"`
	Error    *qmpError        `json:"error"`
	Event    string           `json:"event"`
	Data     struct {
		Reason string `json:"reason"` // SHUTDOWN
	} `json:"data"`
}

// qmpError is QEMU's refusal of a command.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return fmt.Sprintf("QMP: %q", e.Desc) }

// newQMP takes conn over: it waits for the greeting, enters command mode and
// reads from then on. On an error conn is closed. A VMM that serves another
// client sends no greeting; ctx or 10 s end the wait.
func newQMP(ctx context.Context, conn net.Conn, event func(qmpMessage)) (*qmpClient, error) {
	c := &qmpClient{
		conn: conn, event: event,
		done:    make(chan struct{}),
		waiting: map[uint64]chan<- qmpAnswer{},
	}
	lines := bufio.NewReaderSize(conn, 4096)
	ctx, cancel := context.WithTimeout(ctx, qmpTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	m, err := readQMP(lines)
	if !stop() && err != nil {
		err = context.Cause(ctx)
	}
	if err == nil && m.Greeting == nil {
		err = errors.New("the peer does not speak QMP")
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("wait for the QMP greeting: %w", err)
	}
	go c.read(lines)
	if err := c.call(ctx, "qmp_capabilities", nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// readQMP reads one message, a line.
func readQMP(r *bufio.Reader) (qmpMessage, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxQMPLine {
			return qmpMessage{}, fmt.Errorf("QMP message of over %d bytes", maxQMPLine)
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return qmpMessage{}, err
		}
	}
	return decodeQMP(line)
}

func decodeQMP(line []byte) (qmpMessage, error) {
	var m qmpMessage
	if err := json.Unmarshal(line, &m); err != nil {
		return qmpMessage{}, fmt.Errorf("decode QMP message: %w", err)
	}
	return m, nil
}

// read hands out what comes until the connection ends.
func (c *qmpClient) read(lines *bufio.Reader) {
	defer close(c.done)
	var err error
	for {
		var m qmpMessage
		if m, err = readQMP(lines); err != nil {
			break
		}
		c.dispatch(m)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = errors.New("the connection to the VMM has ended")
	}
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, ch := range c.waiting {
		ch <- qmpAnswer{err: err}
	}
	c.waiting = nil
}

// dispatch hands one message to whoever waits for it. An answer that nobody
// waits for is dropped: its caller gave up.
func (c *qmpClient) dispatch(m qmpMessage) {
	if m.Event != "" {
		c.event(m)
		return
	}
	if m.ID == nil {
		return
	}
	c.mu.Lock()
	ch := c.waiting[*m.ID]
	delete(c.waiting, *m.ID)
	c.mu.Unlock()
	if ch == nil {
		return
	}
	a := qmpAnswer{data: m.Return}
	if m.Error != nil {
		a.err = m.Error
	}
	ch <- a
}

// call runs a command without arguments; see callWith.
func (c *qmpClient) call(ctx context.Context, command string, out any) error {
	return c.callWith(ctx, command, nil, out)
}

// give gives QEMU an open file, which it knows by name then.
func (c *qmpClient) give(ctx context.Context, name string, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, qmpTimeout)
	defer cancel()
	if _, err := c.roundTrip(ctx, "getfd", map[string]string{"fdname": name}, f); err != nil {
		return fmt.Errorf("getfd: %w", err)
	}
	return nil
}

// callWith runs a command and decodes its answer into out, if that is not nil.
// It waits no longer than 10 s. What a command does whose call was given up is
// not known.
func (c *qmpClient) callWith(ctx context.Context, command string, args, out any) error {
	ctx, cancel := context.WithTimeout(ctx, qmpTimeout)
	defer cancel()
	data, err := c.roundTrip(ctx, command, args, nil)
	if err == nil && out != nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

func (c *qmpClient) roundTrip(ctx context.Context, command string, args any, f *os.File) (json.RawMessage, error) {
	ch := make(chan qmpAnswer, 1)
	c.mu.Lock()
	if c.waiting == nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.lastID++
	id := c.lastID
	c.waiting[id] = ch
	c.mu.Unlock()
	if err := c.write(ctx, command, args, id, f); err != nil {
		c.forget(id)
		return nil, err
	}
	select {
	case a := <-ch:
		return a.data, a.err
	case <-ctx.Done():
		c.forget(id)
		return nil, context.Cause(ctx)
	}
}

// write writes a command, and with it f, if that is not nil.
func (c *qmpClient) write(ctx context.Context, command string, args any, id uint64, f *os.File) error {
	msg, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	deadline, _ := ctx.Deadline() // call has set one
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if err := c.send(append(msg, '\n'), f); err != nil {
		c.conn.Close() // a part of a command spoils the next one
		return err
	}
	return nil
}

func (c *qmpClient) send(data []byte, f *os.File) error {
	if f == nil {
		_, err := c.conn.Write(data)
		return err
	}
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return errors.New("a file takes a Unix socket")
	}
	n, _, err := conn.WriteMsgUnix(data, unix.UnixRights(int(f.Fd())), nil)
	if err == nil && n < len(data) {
		_, err = conn.Write(data[n:])
	}
	return err
}

func (c *qmpClient) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// Close ends the connection and waits for the reader to end. It may be called
// twice, but not by event.
func (c *qmpClient) Close() {
	c.conn.Close()
	<-c.done
}
