package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"banger/internal/errkind"
	"banger/internal/vmm/vmmproc"
)

const (
	maxAnswer = 1 << 20 // bytes of an answer that are read; a configuration takes a few thousand
	maxFault  = 1 << 10 // bytes of a refusal that an error keeps
	maxHeader = 16 << 10

	// answerTimeout is how long Firecracker may take to answer. It answers
	// between two rounds of its main loop, however busy its guest is.
	answerTimeout = 10 * time.Second
	// startTimeout is how long it may take to load a kernel.
	startTimeout = time.Minute
	// snapshotTimeout is how long it may take to write or map a guest's memory.
	snapshotTimeout = 10 * time.Minute
)

// testOnlyScale is what tests make timeouts shorter by.
var testOnlyScale = 1.0

// errNoAnswer says that Firecracker did not answer in time.
var errNoAnswer = errkind.New(errkind.Timeout, "no answer in time")

// errBroken says that the connection ended without an answer.
var errBroken = errors.New("no answer")

// A faultError is Firecracker's refusal of a request.
type faultError struct {
	status int
	said   string // printable; empty if it gave no reason
}

func (e *faultError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("refused with status %d", e.status)
	}
	return e.said
}

// A client calls the API of one Firecracker. Every call is a connection of its
// own, since Firecracker serves few at once, to a process that check accepts. Its
// methods may be called concurrently; what a call did that was given up is not
// known.
type client struct {
	http   *http.Client
	scale  float64 // of all timeouts
	closed context.Context
	close  context.CancelCauseFunc
}

// errClosed says that the client was closed.
var errClosed = errors.New("the connection to the VMM has ended")

// newClient returns a client of the API that is served at the socket.
func newClient(socket string, check func(net.Conn) error) *client {
	c := &client{scale: testOnlyScale}
	c.closed, c.close = context.WithCancelCause(context.Background())
	c.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := vmmproc.Dial(ctx, socket)
				if err != nil {
					return nil, err
				}
				if err := check(conn); err != nil {
					conn.Close()
					return nil, err
				}
				return conn, nil
			},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		},
	}
	return c
}

// Close ends the calls that are under way and refuses others. It may be called
// twice.
func (c *client) Close() { c.close(errClosed) }

func (c *client) describe(ctx context.Context) (i instanceInfo, err error) {
	return i, c.get(ctx, "/", &i)
}

func (c *client) version(ctx context.Context) (string, error) {
	var v firecrackerVersion
	err := c.get(ctx, "/version", &v)
	return v.Version, err
}

func (c *client) config(ctx context.Context) (v vmConfig, err error) {
	return v, c.get(ctx, "/vm/config", &v)
}

func (c *client) machine(ctx context.Context) (m machineConfig, err error) {
	return m, c.get(ctx, "/machine-config", &m)
}

func (c *client) setMachine(ctx context.Context, m machineConfig) error {
	return c.put(ctx, "/machine-config", m)
}

func (c *client) setBootSource(ctx context.Context, b bootSource) error {
	return c.put(ctx, "/boot-source", b)
}

func (c *client) setDrive(ctx context.Context, d drive) error {
	return c.put(ctx, "/drives/"+url.PathEscape(d.ID), d)
}

// changeDrive makes Firecracker open a drive anew, and tell the guest of its size.
func (c *client) changeDrive(ctx context.Context, d driveChange) error {
	return c.call(ctx, request{http.MethodPatch, "/drives/" + url.PathEscape(d.ID), d, answerTimeout}, nil)
}

func (c *client) setNIC(ctx context.Context, n networkInterface) error {
	return c.put(ctx, "/network-interfaces/"+url.PathEscape(n.ID), n)
}

func (c *client) setVsock(ctx context.Context, v vsockDevice) error { return c.put(ctx, "/vsock", v) }

func (c *client) setEntropy(ctx context.Context, e entropyDevice) error {
	return c.put(ctx, "/entropy", e)
}

func (c *client) setMetrics(ctx context.Context, m metricsConfig) error {
	return c.put(ctx, "/metrics", m)
}

func (c *client) setLogger(ctx context.Context, l loggerConfig) error {
	return c.put(ctx, "/logger", l)
}

// start boots the guest. It returns when its processors run.
func (c *client) start(ctx context.Context) error {
	return c.call(ctx, request{http.MethodPut, "/actions", action{actionStart}, startTimeout}, nil)
}

// flushMetrics makes Firecracker write its metrics now.
func (c *client) flushMetrics(ctx context.Context) error {
	return c.put(ctx, "/actions", action{actionFlushMetrics})
}

// pause makes the guest's processors stand, if they do not.
func (c *client) pause(ctx context.Context) error { return c.patchVM(ctx, vmState{"Paused"}) }

// resume makes the guest's processors go on, if they do not.
func (c *client) resume(ctx context.Context) error { return c.patchVM(ctx, vmState{"Resumed"}) }

func (c *client) patchVM(ctx context.Context, s vmState) error {
	return c.call(ctx, request{http.MethodPatch, "/vm", s, answerTimeout}, nil)
}

// createSnapshot writes a paused guest into two files, which are made.
func (c *client) createSnapshot(ctx context.Context, s snapshotCreate) error {
	return c.call(ctx, request{http.MethodPut, "/snapshot/create", s, snapshotTimeout}, nil)
}

// loadSnapshot makes a fresh Firecracker, of which only log and metrics were
// set, run what a snapshot holds.
func (c *client) loadSnapshot(ctx context.Context, s snapshotLoad) error {
	return c.call(ctx, request{http.MethodPut, "/snapshot/load", s, snapshotTimeout}, nil)
}

func (c *client) get(ctx context.Context, path string, out any) error {
	return c.call(ctx, request{http.MethodGet, path, nil, answerTimeout}, out)
}

func (c *client) put(ctx context.Context, path string, body any) error {
	return c.call(ctx, request{http.MethodPut, path, body, answerTimeout}, nil)
}

type request struct {
	method, path string
	body         any // nil: none
	limit        time.Duration
}

// call makes a request and decodes its answer into out, if that is not nil.
func (c *client) call(ctx context.Context, r request, out any) error {
	if err := c.tryCall(ctx, r, out); err != nil {
		return fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	return nil
}

func (c *client) tryCall(ctx context.Context, r request, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(float64(r.limit)*c.scale), errNoAnswer)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(c.closed, func() { end(errClosed) })()
	data, err := c.roundTrip(ctx, r)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil || out == nil:
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}

// roundTrip returns the answer to a request that was granted.
func (c *client) roundTrip(ctx context.Context, r request) ([]byte, error) {
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "http://localhost"+r.path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error // names the request once more
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("an answer of over %d bytes", maxAnswer)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return nil, refusal(resp.StatusCode, data)
	}
	return data, nil
}

// refusal makes an error of Firecracker's.
func refusal(status int, data []byte) error {
	var f fault
	if err := json.Unmarshal(data, &f); err != nil {
		f.Message = "" // the status says enough
	}
	said := vmmproc.OneLine(f.Message)
	if len(said) > maxFault {
		said = said[:maxFault] + "…"
	}
	return &faultError{status, said}
}
