package cli

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// startSession starts a session.
func startSession(f *fakeSessions, name, stdin, command string) {
	f.t.Helper()
	f.want(0, name+"\n", "", "vm", "session", "start", "web", "--name", name, "--stdin", stdin, "--", command)
}

func TestSessionAttachPipe(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	startSession(f, "a", "pipe", "x")
	s := f.session("a")
	f.write("a", "stdout", "before\n")
	r := startProgram(t, f.program("vm", "session", "attach", "web", "a"))
	r.wantLine("before")
	fmt.Fprint(r.in, "input\x1c\n") // a byte like others
	f.wait("input", func() bool { return string(s.got) == "input\x1c\n" })
	f.write("a", "stderr", "on stderr\n")
	f.write("a", "stdout", "on stdout\n")
	r.wantLine("on stdout")
	must(t, r.in.Close())
	f.wait("the end of input", func() bool { return !s.open })
	f.end("a", 7)
	r.wantEnd(7, "", "on stderr\n")
	if r.errs.String() != "on stderr\n" {
		t.Errorf("stderr: %s", r.errs.String())
	}
	// The end of a session whose input has none is that of its command.
	if code, out, errs := f.run("one\ntwo", "vm", "session", "start", "web", "--stdin", "pipe", "--attach", "--", "cat"); code != 0 || out != "one\ntwo" || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	// One that has ended tells how, too.
	code, out, _ := f.run("", "vm", "session", "attach", "--tail", "1", "web", "a")
	if code != 7 || out != "on stdout\n" {
		t.Errorf("exit %d, %q", code, out)
	}
	f.want(4+121, "", "banger: cannot attach to session a in off: vm \"off\" is not running\nhint: banger vm start off\n", "vm", "session", "attach", "off", "a")
	f.want(125, "", "banger: cannot attach to session b in web: no session \"b\" in \"web\"\n", "vm", "session", "attach", "web", "b")
}

// A machine that stops ends its sessions, and says so.
func TestSessionAttachFailed(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	startSession(f, "a", "closed", "x")
	f.write("a", "stdout", "up\n")
	r := startProgram(t, f.program("vm", "session", "attach", "web", "a"))
	r.wantLine("up")
	f.change(func() {
		s := f.sessions[0]
		s.Status, s.FailedStage, s.FailedMessage = "failed", "run", "machine stopped"
	})
	r.wantEnd(125, "", "banger: cannot stay attached to session a in web: the session failed: run: machine stopped\n")
}

func TestSessionAttachSignals(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	const detached = "banger: detached; banger vm session attach web a\n"
	startSession(f, "a", "pipe", "deaf")
	s := f.session("a")
	f.write("a", "stdout", "up\n")
	attach := func(args ...string) *running {
		f.wait("the one before has left", func() bool { return s.attached == "" })
		r := startProgram(t, f.program(append([]string{"vm", "session", "attach", "web", "a"}, args...)...))
		r.wantLine("up")
		return r
	}
	// Ctrl-C is the command's; twice it leaves.
	r := attach()
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	f.wait("INT", func() bool { return slices.Equal(s.signals, []string{"INT"}) })
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wantEnd(0, "", detached)
	// So does Ctrl-\, and what was typed before arrives.
	r = attach()
	fmt.Fprint(r.in, "last words")
	f.wait("input", func() bool { return len(s.got) > 0 })
	must(t, r.cmd.Process.Signal(syscall.SIGQUIT))
	r.wantEnd(0, "", detached)
	// Looking on only, Ctrl-C is ours, and input nobody's.
	r = attach("--read-only")
	fmt.Fprint(r.in, "nothing")
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wantEnd(0, "", detached)
	// However we end, the session goes on.
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		r = attach()
		must(t, r.cmd.Process.Signal(sig))
		r.wantEnd(128+int(sig), "", "")
	}
	r = attach()
	must(t, r.cmd.Process.Kill())
	_ = r.cmd.Wait()
	now := f.now("a")
	if got := fmt.Sprintf("%q %q %t %s", now.signals, now.got, now.open, now.Status); got != `["INT"] "last words" true running` {
		t.Errorf("the session has %s", got)
	}
	r = attach("--timeout", "1s", "--take")
	r.wantEnd(124, "", "not done within 1s\n")
}

func TestSessionAttachTaken(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	startSession(f, "a", "pipe", "x")
	f.write("a", "stdout", "up\n")
	first := startProgram(t, f.program("vm", "session", "attach", "web", "a"))
	first.wantLine("up")
	who := f.now("a").attached
	if !strings.Contains(who, "@") || !strings.HasSuffix(who, fmt.Sprintf(" pid %d", first.cmd.Process.Pid)) {
		t.Errorf("attached is %q", who)
	}
	f.want(125, "", "banger: cannot attach to session a in web: "+who+" is attached already\n", "vm", "session", "attach", "web", "a")
	third := startProgram(t, f.program("vm", "session", "attach", "--read-only", "web", "a"))
	third.wantLine("up")
	second := startProgram(t, f.program("vm", "session", "attach", "--take", "web", "a"))
	second.wantLine("up")
	first.wantEnd(125, "", fmt.Sprintf(" pid %d has taken it over\nhint: banger vm session attach --take web a\n", second.cmd.Process.Pid))
	f.end("a", 0)
	second.wantEnd(0, "", "")
	third.wantEnd(0, "", "")
}

// A session's terminal is ours while we are attached.
func TestSessionAttachTerminal(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	startSession(f, "a", "pty", "x")
	s := f.session("a")
	f.write("a", "stdout", "prompt$ ")
	for keys, want := range map[string]string{"ls\r\x03\x1cx": "ls\r\x03", "up\x1b[A\x1b[92;5u": "up\x1b[A"} {
		f.change(func() { s.got = nil })
		tty, c := programOnTerminal(t, f.program("vm", "session", "attach", "web", "a"))
		before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		must(t, err)
		readUntil(t, tty, "prompt$ ")
		f.wait("our size", func() bool { return s.sizes[len(s.sizes)-1] == "30 100" })
		must(t, pty.Setsize(tty, &pty.Winsize{Rows: 40, Cols: 120}))
		f.wait("the new size", func() bool { return s.sizes[len(s.sizes)-1] == "40 120" })
		raw, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		must(t, err)
		if raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
			t.Error("the terminal is not raw while we are attached")
		}
		_, err = tty.Write([]byte(keys))
		must(t, err)
		readUntil(t, tty, "banger: detached; banger vm session attach web a\r\n")
		must(t, c.Wait())
		if got := f.now("a").got; string(got) != want {
			t.Errorf("keys %q: the session has %q, want %q", keys, got, want)
		}
		after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		must(t, err)
		if *before != *after {
			t.Errorf("the terminal was left as %+v, was %+v", after, before)
		}
	}
	tty, c := programOnTerminal(t, f.program("vm", "session", "attach", "--read-only", "web", "a"))
	readUntil(t, tty, "prompt$ ")
	_, err := tty.Write([]byte("x\x03"))
	must(t, err)
	readUntil(t, tty, "banger: detached; ")
	must(t, c.Wait())
}

// Where a session has no terminal ours stays as it is: Ctrl-D ends the input,
// Ctrl-\ detaches.
func TestSessionAttachLines(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	startSession(f, "a", "pipe", "x")
	s := f.session("a")
	f.write("a", "stdout", "up\n")
	tty, c := programOnTerminal(t, f.program("vm", "session", "attach", "web", "a"))
	readUntil(t, tty, "up\r\n")
	_, err := tty.Write([]byte("line\r\x04"))
	must(t, err)
	f.wait("line and end", func() bool { return string(s.got) == "line\n" && !s.open })
	_, err = tty.Write([]byte{0x1c})
	must(t, err)
	readUntil(t, tty, "banger: detached; ")
	must(t, c.Wait())
}

// Attaching goes on over the ends of daemons: no output is missing or comes
// twice, and what is typed meanwhile arrives.
func TestSessionAttachAgain(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	startSession(f, "a", "pipe", "x")
	s := f.session("a")
	f.write("a", "stdout", "0\n")
	r := startProgram(t, f.program("vm", "session", "attach", "web", "a"))
	r.wantLine("0")
	want := ""
	for i := 1; i <= 3; i++ {
		f.wait("attached", func() bool { return s.attached != "" && f.calls >= i })
		f.kill()
		f.wait("parted", func() bool { return s.attached == "" })
		f.write("a", "stderr", fmt.Sprintf("e%d\n", i))
		f.write("a", "stdout", fmt.Sprintf("%d\n", i))
		f.serve()
		f.wait("attached again", func() bool { return s.attached != "" })
		fmt.Fprintf(r.in, "in %d\n", i)
		want += fmt.Sprintf("in %d\n", i)
		f.wait("input", func() bool { return string(s.got) == want })
		r.wantLine(fmt.Sprint(i))
	}
	f.kill()
	f.wait("parted", func() bool { return s.attached == "" })
	fmt.Fprint(r.in, "held\n")
	f.end("a", 9)
	f.serve()
	r.wantEnd(9, "", "")
	said := r.errs.String()
	for _, part := range []string{"e1\n", "e2\n", "e3\n", "banger: the daemon went away ("} {
		if !strings.Contains(said, part) || part[0] == 'e' && strings.Count(said, part) != 1 {
			t.Errorf("stderr: no %q, or twice: %s", part, said)
		}
	}
}

// While there is no daemon one can leave, too.
func TestSessionAttachLeaveAlone(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	startSession(f, "a", "pty", "x")
	f.write("a", "stdout", "prompt$ ")
	tty, c := programOnTerminal(t, f.program("vm", "session", "attach", "web", "a"))
	readUntil(t, tty, "prompt$ ")
	f.kill()
	readUntil(t, tty, "; connecting again\r\n")
	_, err := tty.Write([]byte("lost\x1c"))
	must(t, err)
	readUntil(t, tty, "banger: detached; banger vm session attach web a\r\n")
	must(t, c.Wait())
}
