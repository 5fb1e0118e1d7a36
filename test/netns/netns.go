// Package netns makes network namespaces for tests: one in which a daemon
// runs, and one beside it that plays the internet. What tests send stays in
// there.
package netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Addresses of a pair's two ends. The host's only way out is the internet.
const (
	HostAddr     = "198.51.100.2"
	InternetAddr = "198.51.100.1"
	// Outside is an address further off, which the internet has on its
	// loopback interface.
	Outside = "203.0.113.7"
	// Uplink is the host's interface to the internet.
	Uplink = "uplink"
)

// An NS is one namespace.
type NS struct {
	Name string // as ip-netns(8) has it
	fd   int
}

var count atomic.Int32

// New returns two namespaces joined by a veth pair, which are deleted with
// what is in them when the test ends: the host's has a default route to the
// internet's, and knows 169.254.169.254 there, too.
func New(t testing.TB) (host, internet *NS) {
	t.Helper()
	base := fmt.Sprintf("bgrt-%d-%d", os.Getpid(), count.Add(1))
	host, internet = open(t, base+"h"), open(t, base+"i")
	peer := fmt.Sprintf("p%d-%d", os.Getpid(), count.Load())
	host.IP(t, "link", "set", "lo", "up")
	internet.IP(t, "link", "set", "lo", "up")
	host.IP(t, "link", "add", Uplink, "type", "veth", "peer", "name", peer, "netns", internet.Name)
	host.IP(t, "addr", "add", HostAddr+"/24", "dev", Uplink)
	host.IP(t, "link", "set", Uplink, "up")
	internet.IP(t, "addr", "add", InternetAddr+"/24", "dev", peer)
	internet.IP(t, "addr", "add", Outside+"/32", "dev", "lo")
	internet.IP(t, "addr", "add", "169.254.169.254/32", "dev", "lo")
	internet.IP(t, "link", "set", peer, "up")
	host.IP(t, "route", "add", "default", "via", InternetAddr)
	return host, internet
}

func open(t testing.TB, name string) *NS {
	t.Helper()
	run(t, exec.Command("ip", "netns", "add", name))
	t.Cleanup(func() { run(t, exec.Command("ip", "netns", "del", name)) })
	fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &NS{name, fd}
}

// Do calls f on a thread that is in the namespace. Goroutines that f starts are
// not.
func (n *NS) Do(f func() error) error {
	result := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else
		// finds itself in the namespace.
		runtime.LockOSThread()
		err := unix.Setns(n.fd, unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// Start starts a command in the namespace.
func (n *NS) Start(c *exec.Cmd) error {
	// The thread stays until the command is started; where the command dies
	// with its parent thread (Pdeathsig), use Do.
	return n.Do(c.Start)
}

// Run runs a command in the namespace to its end.
func (n *NS) Run(c *exec.Cmd) error {
	if err := n.Start(c); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs a program in the namespace and returns what it printed, on either
// stream. The test fails if the program does.
func (n *NS) Output(t testing.TB, argv ...string) string {
	t.Helper()
	var out strings.Builder
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = &out, &out
	if err := n.Run(c); err != nil {
		t.Fatalf("in %s: %q: %v\n%s", n.Name, argv, err, out.String())
	}
	return out.String()
}

// IP runs ip(8) in the namespace.
func (n *NS) IP(t testing.TB, args ...string) string {
	t.Helper()
	return n.Output(t, append([]string{"ip"}, args...)...)
}

func run(t testing.TB, c *exec.Cmd) {
	t.Helper()
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", c.Args, err, out)
	}
}
