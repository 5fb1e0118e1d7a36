//go:build bench

package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/daemon/daemontest"
	"banger/internal/handle"
	"banger/internal/lifecycle"
	"banger/internal/sshkey"
	"banger/internal/store"
	"banger/internal/vm"
)

// machineRows are cold runs beside a bare QEMU, and commands beside the
// agent's own time for them.
func machineRows(t *testing.T) []*row {
	b := newBench(t, small...)
	f := b.newFloor()
	b.banger("vm", "create", "warm")
	bare := &row{name: "bare QEMU, cold, to `true`", once: f.once}
	agent := &row{name: "the agent's time for `true`, by the daemon's log"}
	exec := &row{name: "`vm exec VM -- true`", floor: agent, once: func() time.Duration {
		took := b.time("vm", "exec", "warm", "--", "true")
		agent.took = append(agent.took, b.lastAgentTime())
		return took
	}}
	exec.goal = moreThanFloor(20 * time.Millisecond)
	agent.once = agent.last // measured with exec
	return []*row{
		bare,
		{name: "`vm run -- true`, cold, with a network", floor: bare, goal: atMost(1.3), once: func() time.Duration { return b.time("vm", "run", "--from", "boot", "--", "true") }},
		exec, agent,
		{name: "`version`", once: func() time.Duration { return b.time("version") }},
	}
}

var agentTime = regexp.MustCompile(`msg=exec .*agent=(\S+)`)

// lastAgentTime is how long the agent took for the last command.
func (b *bench) lastAgentTime() time.Duration {
	log, err := os.ReadFile(filepath.Join(b.root, "state", "daemon.log"))
	check(b.t, err)
	found := agentTime.FindAllSubmatch(log, -1)
	if len(found) == 0 {
		b.t.Fatal("the daemon's log tells of no command")
	}
	d, err := time.ParseDuration(string(found[len(found)-1][1]))
	check(b.t, err)
	return d
}

// listRows list a hundred machines.
func listRows(t *testing.T) []*row {
	b := newBench(t, small...)
	for i := range 100 {
		b.banger("vm", "create", "--no-start", fmt.Sprintf("m%d", i))
	}
	return []*row{{name: "`vm list`, 100 machines", goal: within(30 * time.Millisecond), once: func() time.Duration { return b.time("vm", "list") }}}
}

// copyRows carry 256 MiB into a machine and out of it, by cp and by a command's
// streams.
func copyRows(t *testing.T) []*row {
	b := newBench(t, small...)
	b.banger("vm", "create", "--disk-size", "4G", "store")
	dir := t.TempDir()
	data := make([]byte, 256<<20)
	rand.Read(data)
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	check(t, os.WriteFile(src, data, 0o600))
	piped := func(in, out string, args ...string) time.Duration {
		c := b.cmd(args...)
		start := time.Now()
		if in != "" {
			f, err := os.Open(in)
			check(t, err)
			defer f.Close()
			c.Stdin = f
		}
		if out != "" {
			f, err := os.Create(out)
			check(t, err)
			defer f.Close()
			c.Stdout = f
		}
		check(t, b.start(c))
		check(t, c.Wait())
		return time.Since(start)
	}
	in := &row{name: "256 MiB in by `exec -- sh -c 'cat > big'`", once: func() time.Duration {
		return piped(src, "", "vm", "exec", "store", "--", "sh", "-c", "cat > big")
	}}
	out := &row{name: "256 MiB out by `exec -- cat big`", once: func() time.Duration {
		return piped("", dst, "vm", "exec", "store", "--", "cat", "big")
	}}
	return []*row{
		in,
		{name: "256 MiB in by `vm cp`", floor: in, once: func() time.Duration { return b.time("vm", "cp", src, "store:big") }},
		out,
		{name: "256 MiB out by `vm cp`", floor: out, once: func() time.Duration {
			took := b.time("vm", "cp", "store:big", dst)
			got, err := os.ReadFile(dst)
			check(t, err)
			if !bytes.Equal(got, data) {
				t.Error("what came back is not what was sent")
			}
			return took
		}},
	}
}

// lifeRows are whole lives of machines with every mechanism fake and the store
// real.
func lifeRows(t *testing.T) []*row {
	few, many := lifeOf(t, 10), lifeOf(t, 500)
	a := &row{name: "create, start, stop, delete, fakes and the real store, 10 records", goal: within(20 * time.Millisecond), once: few}
	return []*row{a, {name: "the same, 500 records", floor: a, goal: atMost(1.1), once: many}}
}

// lifeOf returns what lives one machine's life beside so many records, as a
// mean of several.
func lifeOf(t *testing.T, records int) func() time.Duration {
	paths, conf, log := daemontest.NewPaths(t), daemontest.Config(), slog.New(slog.DiscardHandler)
	for _, dir := range []string{paths.VMs(), filepath.Dir(paths.KnownHosts()), paths.VMRuns()} {
		check(t, os.MkdirAll(dir, 0o711))
	}
	st, err := store.Open(paths.Database(), store.Options{UIDs: vm.UIDRange{Base: paths.UIDBase(conf), Count: conf.UIDs}})
	check(t, err)
	mech, err := daemontest.NewWorld(t).Mechanisms(paths, conf, log)
	check(t, err)
	m := lifecycle.New(lifecycle.Deps{
		Records: st, Handles: handle.NewCache(func(id vm.ID) string { return paths.VM(string(id)).Handles() }),
		Finder: mech.Finder, Drivers: mech.Drivers, Default: mech.DefaultDriver, Work: mech.Work,
		Network: mech.Network, Limits: mech.Limits, DNS: mech.Names, Images: mech.Images, Kernels: mech.Kernels,
		Boot: mech.Boot, Dialer: mech.Dialer, Host: mech.Host, Paths: paths, Config: conf, Log: log,
		KnownHosts: sshkey.NewKnownHosts(paths.KnownHosts()),
	})
	t.Cleanup(func() { m.Close(); check(t, st.Close()) })
	ctx, nobody := context.Background(), func(string, string, int64, int64) {}
	for range records {
		_, err := m.Create(ctx, lifecycle.Request{}, nobody)
		check(t, err)
	}
	return func() time.Duration {
		const lives = 20
		start := time.Now()
		for range lives {
			v, err := m.Create(ctx, lifecycle.Request{Name: "life"}, nobody)
			check(t, err)
			_, err = m.Start(ctx, v.ID, nobody)
			check(t, err)
			_, err = m.Stop(ctx, v.ID, time.Second)
			check(t, err)
			_, err = m.Delete(ctx, v.ID)
			check(t, err)
		}
		return time.Since(start) / lives
	}
}

// idleDaemon tells what a daemon costs that has ten machines and nothing to do.
func idleDaemon(t *testing.T) {
	b := newBench(t, small...)
	for i := range 10 {
		b.banger("vm", "create", "--memory", "96M", fmt.Sprintf("idle%d", i))
	}
	var st struct{ PID int }
	b.json(&st, "daemon", "status")
	const window = 20 * time.Second
	before := cpuTime(t, st.PID)
	timer := time.NewTimer(window)
	<-timer.C
	used := cpuTime(t, st.PID) - before
	rss := memory(t, st.PID)
	fmt.Printf("\nThe daemon with ten machines that idle: %s of CPU in %s, %d MB resident (%d MB of them its own).\n", used, window, rss.all>>20, rss.own>>20)
	if used > window/100 {
		t.Errorf("the idle daemon used %s of CPU in %s", used, window)
	}
	if rss.all > 60<<20 {
		t.Errorf("the daemon has %d MB resident; the goal is 60", rss.all>>20)
	}
}

// cpuTime is what a process has used (proc_pid_stat(5), fields 14 and 15, in
// hundredths of a second).
func cpuTime(t *testing.T, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		check(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

type resident struct{ all, own int64 }

// memory is what a process has in memory (proc_pid_status(5)).
func memory(t *testing.T, pid int) (r resident) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			r.all = kb << 10
		}
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kb); n == 1 {
			r.own = kb << 10
		}
	}
	return r
}
