package doctor

import (
	"context"
	"fmt"
	"strings"

	"banger/internal/api/client"
	"banger/internal/config"
	"banger/internal/dns"
	"banger/internal/errkind"
)

func (e *examination) service(ctx context.Context) {
	err := e.Ping(ctx)
	pid, held := e.LockHolder()
	slow := client.IsNone(err) || errkind.Of(err) == errkind.Timeout
	switch {
	case err == nil:
		if e.status, err = e.Status(ctx); err != nil {
			e.warn("daemon", []string{daemonLog(e.Paths)}, "it answers, but does not tell its status: %v", err)
			e.warn("dns", nil, "not looked at: the daemon does not tell where it answers names")
			return
		}
		e.versions()
	case slow && held:
		// The lock goes with its process: it is never stale.
		e.fail("daemon", []string{daemonLog(e.Paths), fmt.Sprintf("kill -9 %d", pid)},
			"process %d has %s and does not answer; if it does not come up soon, kill it: machines go on", pid, e.Paths.State)
	case !client.IsNone(err):
		e.failed("daemon", err, daemonLog(e.Paths))
	case !e.Host.Root:
		e.fail("daemon", []string{"banger daemon start"}, "none runs, and starting one takes root")
	default:
		e.ok("daemon", "none runs; the first command starts one")
	}
	e.names()
}

// versions compares the daemon that runs, the one that is installed, and the
// banger that asks.
func (e *examination) versions() {
	running := e.status.Version
	switch {
	case running != e.Version:
		e.warn("daemon", []string{"banger daemon stop && banger daemon start"},
			"process %d is version %s, and %s is installed; machines go on when it is restarted", e.status.Pid, running, e.Version)
	case e.Client != "" && e.Client != e.Version:
		e.warn("daemon", nil, "bangerd is version %s, and banger %s: install both from the same release", e.Version, e.Client)
	default:
		e.ok("daemon", "process %d answers, version %s", e.status.Pid, running)
	}
}

func daemonLog(p config.Paths) string { return "tail -n 20 " + errkind.Quote(p.DaemonLog()) }

// names looks at the ports where names of machines are answered.
func (e *examination) names() {
	who := "ss -lntup sport = :"
	switch own := e.status.GetDnsAddr(); {
	case own != "" && !strings.HasSuffix(own, fmt.Sprintf(":%d", dns.DefaultPort)):
		hint := who + fmt.Sprint(dns.DefaultPort)
		if !e.Host.NamePort.Taken {
			hint = "banger daemon stop && banger daemon start"
		}
		e.warn("dns", []string{hint}, "names are answered on %s: port %d was taken when the daemon started", own, dns.DefaultPort)
	case own == "" && e.status != nil:
		e.warn("dns", []string{daemonLog(e.Paths)}, "the daemon answers no names; its log says why")
	case own != "":
		e.ok("dns", "names are answered on %s", own)
	case e.Host.GuestPort.foreign():
		e.warn("dns", []string{who + "53"}, "port 53 is taken on all addresses%s: guests will not find each other by name", e.Host.GuestPort)
	case e.Host.NamePort.foreign():
		e.warn("dns", []string{who + fmt.Sprint(dns.DefaultPort)}, "127.0.0.1:%d is taken%s: the daemon takes the next free port", dns.DefaultPort, e.Host.NamePort)
	case e.Host.NamePort.Taken:
		e.ok("dns", "another banger daemon has 127.0.0.1:%d; this one takes the next free port", dns.DefaultPort)
	default:
		e.ok("dns", "127.0.0.1:%d is free", dns.DefaultPort)
	}
}

// foreign reports whether somebody else than a banger daemon has a port.
func (h Holder) foreign() bool { return h.Taken && h.Name != "bangerd" }

// String tells who it is, if that is known: " by dnsmasq (process 7)".
func (h Holder) String() string {
	if h.PID == 0 {
		return ""
	}
	return fmt.Sprintf(" by %s (process %d)", h.Name, h.PID)
}
