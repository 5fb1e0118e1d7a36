//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"
)

// sessionRows are sessions beside plain commands.
func sessionRows(t *testing.T) []*row {
	b := newBench(t, small...)
	b.banger("vm", "create", "warm")
	b.banger("vm", "session", "start", "--name", "cat", "--stdin", "pipe", "warm", "--", "cat")
	lines := b.follow("warm", "cat")
	exec := &row{name: "`vm exec VM -- true`, beside sessions", once: func() time.Duration { return b.time("vm", "exec", "warm", "--", "true") }}
	start := &row{name: "`vm session start VM -- true`", floor: exec, goal: atMost(1.5), once: func() time.Duration { return b.time("vm", "session", "start", "warm", "--", "true") }}
	seen := &row{name: "from the start of a `send` to the line at a follower"}
	sent := &row{name: "`vm session send`, to the byte in the command's input", floor: exec, goal: moreThanFloor(5 * time.Millisecond)}
	n := 0
	sent.once = func() time.Duration {
		n++
		line := fmt.Sprint("line ", n)
		began := time.Now()
		took := b.time("vm", "session", "send", "warm", "cat", line)
		if got := <-lines; got != line {
			t.Fatalf("the follower saw %q, not %q", got, line)
		}
		seen.took = append(seen.took, time.Since(began))
		return took
	}
	seen.floor, seen.goal = sent, moreThanFloor(50*time.Millisecond)
	seen.once = func() time.Duration { return seen.last() }
	return []*row{exec, start, sent, seen}
}

// last takes back what was measured along with another row.
func (r *row) last() time.Duration {
	took := r.took[len(r.took)-1]
	r.took = r.took[:len(r.took)-1]
	return took
}

// moreThanFloor is a goal: the median is no more than that above the floor's.
func moreThanFloor(d time.Duration) func(*row) string {
	return func(r *row) string {
		if more := r.at(0.5) - r.floor.at(0.5); more > d {
			return fmt.Sprintf("%s more than its floor; the goal is %s", more, d)
		}
		return ""
	}
}

// follow gives the lines that a session writes, as they come.
func (b *bench) follow(vm, session string) <-chan string {
	c := b.cmd("vm", "session", "logs", "--follow", vm, session)
	out, err := c.StdoutPipe()
	check(b.t, err)
	check(b.t, b.start(c))
	b.t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	lines := make(chan string, 1)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

const outputBytes = 100 << 20

// outputRows carry 100 MiB out, by a session's log and by a plain command.
func outputRows(t *testing.T) []*row {
	b := newBench(t, small...)
	b.banger("vm", "create", "--disk-size", "1G", "warm")
	size := fmt.Sprint(outputBytes)
	plain := &row{name: "100 MiB out of `vm exec`", once: func() time.Duration { return b.timeOutput("vm", "exec", "warm", "--", "head", "-c", size, "/dev/zero") }}
	n := 0
	session := &row{name: "100 MiB out of a session that is followed", floor: plain, goal: atMost(2), once: func() time.Duration {
		n++
		name := fmt.Sprint("zero", n)
		began := time.Now()
		b.banger("vm", "session", "start", "--name", name, "--log-limit", "256M", "warm", "--", "head", "-c", size, "/dev/zero")
		b.timeOutput("vm", "session", "logs", "--follow", "--all", "warm", name)
		took := time.Since(began)
		b.banger("vm", "session", "delete", "warm", name)
		return took
	}}
	return []*row{plain, session}
}

// timeOutput runs a command whose output is outputBytes.
func (b *bench) timeOutput(args ...string) time.Duration {
	b.t.Helper()
	c := b.cmd(args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	check(b.t, err)
	began := time.Now()
	check(b.t, b.start(c))
	n, err := io.Copy(io.Discard, out)
	check(b.t, err)
	if err := c.Wait(); err != nil || n != outputBytes {
		b.t.Fatalf("banger %q: %v, %d bytes\n%s", args, err, n, errs.Bytes())
	}
	return time.Since(began)
}

// manySessions tells what a daemon costs that has 200 sessions in a machine.
func manySessions(t *testing.T) {
	b := newBench(t, small...)
	b.banger("vm", "create", "--memory", "1G", "many")
	const count = 200
	for i := range count {
		b.banger("vm", "session", "start", "--name", fmt.Sprint("s", i), "--stdin", "pipe", "many", "--", "cat")
	}
	followers := make([]<-chan string, count)
	for i := range followers {
		followers[i] = b.follow("many", fmt.Sprint("s", i))
	}
	for i, lines := range followers {
		b.banger("vm", "session", "send", "many", fmt.Sprint("s", i), "here")
		<-lines
	}
	var st struct{ PID int }
	b.json(&st, "daemon", "status")
	rss := memory(t, st.PID)
	free := b.banger("vm", "exec", "many", "--", "sh", "-c", "free -m | sed -n 2p")
	list := b.time("vm", "session", "list", "many")
	fmt.Printf("\nThe daemon with 200 sessions in a machine, each followed: %d MB resident (%d MB of them its own); `vm session list` takes %s. In the guest of 1 GiB, `free -m`: %s\n",
		rss.all>>20, rss.own>>20, list, bytes.TrimSpace(free))
	if rss.all > 100<<20 {
		t.Errorf("the daemon has %d MB resident; the goal is 100", rss.all>>20)
	}
}
