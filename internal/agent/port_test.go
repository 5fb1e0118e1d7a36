package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// A FIFO tells its reader of writers as a virtio-serial port tells the guest
// of hosts: without one every read gives 0 bytes, and poll knows.
func newFIFO(t *testing.T) (*port, func() *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := os.NewFile(uintptr(fd), path)
	_, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPort(r, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, func() *os.File {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

func TestPortRead(t *testing.T) {
	p, open := newFIFO(t)
	buf := make([]byte, 100)
	read := func(want string) {
		t.Helper()
		n, err := p.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("read %q, %v, want %q", buf[:n], err, want)
		}
	}
	read("") // no host so far
	for range 3 {
		host := open()
		host.WriteString("hello")
		read("hello")
		host.Close()
		read("") // it has gone
	}
	// Gone and back before anyone looked: that is not told.
	host := open()
	host.WriteString("a")
	host.Close()
	again := open()
	again.WriteString("b")
	read("ab")
	again.Close()
	read("")
}

// Without a host, reading does not use the processor, and ends when the port
// is closed.
func TestPortIdle(t *testing.T) {
	p, _ := newFIFO(t)
	buf := make([]byte, 1)
	if n, err := p.Read(buf); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	before := processorTime(t)
	done := make(chan error, 1)
	go func() {
		_, err := p.Read(buf)
		done <- err
	}()
	pause(t.Context(), 300*time.Millisecond)
	if used := processorTime(t) - before; used > 150*time.Millisecond {
		t.Errorf("used %v of processor time", used)
	}
	p.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func processorTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestFindPort(t *testing.T) {
	dev, sys := t.TempDir(), t.TempDir()
	if got := findPort(dev, sys); got != "" {
		t.Errorf("found %q in nothing", got)
	}
	for name, text := range map[string]string{"vport0p1": "org.other\n", "vport2p3": wire.PortName + "\n"} {
		dir := filepath.Join(sys, "class/virtio-ports", name)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "name"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := findPort(dev, sys), filepath.Join(dev, "vport2p3"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	link := filepath.Join(dev, "virtio-ports", wire.PortName)
	if err := errors.Join(os.Mkdir(filepath.Dir(link), 0o755), os.WriteFile(link, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := findPort(dev, sys); got != link {
		t.Errorf("got %q, want %q", got, link)
	}
}

// There is no port here, but Serve ends when it is told to.
func TestServeEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := openPort(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// The pump on a port that knows of hosts: one comes, goes, and its connection
// ends; the next has one of its own.
func TestPumpHosts(t *testing.T) {
	p, open := newFIFO(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.w.Close()
	p.w = w
	s, err := New(ServeOptions{Bundle: wire.Bundle{Token: testToken}, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.pump(ctx, p) }()
	for range 3 {
		host := open()
		nonce := wire.NewNonce()
		host.Write(wire.Greeting(testToken, nonce))
		readUntil(t, r, wire.Greeting(testToken, nonce))
		host.Close()
	}
	host := open()
	defer host.Close()
	nonce := wire.NewNonce()
	host.Write(append(wire.Greeting(testToken, nonce), "this is not HTTP/2 at all, is it?"...))
	// The server gives the connection up, and the host is told.
	readUntil(t, r, wire.Greeting(testToken, nonce))
	readUntil(t, r, wire.Greeting(testToken, wire.EndNonce))
	cancel()
	readUntil(t, r, wire.Greeting(testToken, wire.EndNonce)) // and when the agent ends
	if err := <-done; ignoreClosed(err) != nil {
		t.Errorf("pump: %v", err)
	}
}

func readUntil(t *testing.T, r *os.File, want []byte) {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	var got []byte
	for b := make([]byte, 1); !bytes.HasSuffix(got, want); {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatalf("read %q: %v", got, err)
		}
		got = append(got, b[0])
	}
}
