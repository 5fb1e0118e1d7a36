package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/api"
)

func TestSessionStart(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.want(0, "made-up-0\n", "", "vm", "session", "start", "web", "--", "sleep", "9")
	f.want(0, "agent\n", "", "vm", "session", "start", "web", "--name", "agent", "--stdin", "pipe", "-w", "/srv", "-u", "ann", "-e", "A=b",
		"--tag", "ci", "--tag", "x", "--require", "git", "--log-limit", "1M", "--", "cat", "a b")
	s := f.now("agent")
	got := fmt.Sprint(s.Stdin, s.Cwd, s.User, s.Env["A"], s.Tags, s.RequiredCommands, s.LogLimitBytes, s.Command, s.Args)
	if got != "pipe/srvannb[ci x] [git] 1048576cat[a b]" {
		t.Errorf("started %s", got)
	}
	f.want(0, "shell\n", "", "vm", "session", "start", "web", "--name", "shell", "--stdin", "pty")
	if s := f.now("shell"); s.sizes[0] != "24 80" || s.Command != "/bin/sh" {
		t.Errorf("a shell has %q, runs %s", s.sizes, s.Command)
	}
	f.want(1, "", `banger: cannot start session build in web: check: "nosuch": not found in PATH`+"\nhint: banger vm session show web build\n",
		"vm", "session", "start", "web", "--name", "build", "--require", "nosuch", "--", "true")
	code, out, errs := f.run("", "vm", "session", "start", "--json", "web", "--", "nosuch")
	if code != 1 || !strings.Contains(out, `"status": "failed"`) || !strings.Contains(errs, `"kind": "internal"`) {
		t.Errorf("--json: exit %d, %s, %s", code, out, errs)
	}
	f.want(125, "", `banger: cannot start session x in web: check: "nosuch": not found in PATH`+"\nhint: banger vm session show web x\n",
		"vm", "session", "start", "web", "--name", "x", "--attach", "--", "nosuch")
	f.want(4, "", "banger: cannot start session agent in web: there is a session \"agent\" in \"web\"\n",
		"vm", "session", "start", "web", "--name", "agent", "--", "true")
	f.want(4, "", "banger: cannot start a session in off: vm \"off\" is not running\nhint: banger vm start off\n",
		"vm", "session", "start", "off", "--", "true")
}

func TestSessionListAndShow(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.want(0, "", "banger: no sessions; how to start one: banger vm session start --help\n", "vm", "session", "list")
	for _, args := range []string{"--name a --tag ci -- sh -c x", "--name b --tag ci --tag y -- true", "--name c -- false"} {
		f.want(0, strings.Fields(args)[1]+"\n", "", append([]string{"vm", "session", "start", "web"}, strings.Fields(args)...)...)
	}
	f.end("b", 3)
	f.change(func() { f.sessions[2].signal("KILL") })
	want := "NAME  STATUS   PID  EXIT  AGE  COMMAND\na     running  100        0s   sh -c x\nb     exited        3     0s   true\nc     exited        KILL  0s   false\n"
	now := time.Now()
	var sessions []*api.Session
	for _, name := range []string{"a", "b", "c"} {
		s := f.now(name).Session
		s.CreatedAt = timestamppb.New(now)
		sessions = append(sessions, s)
	}
	if got := sessionTable(sessions, false, now).text(0, "", false); got != want {
		t.Errorf("table:\n%s", got)
	}
	names := func(args ...string) string {
		code, out, errs := f.run("", append([]string{"vm", "session", "list", "--json"}, args...)...)
		var list struct{ Sessions []struct{ Name, VM string } }
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			t.Fatalf("%q: exit %d, %s, %v", args, code, errs, err)
		}
		return fmt.Sprint(list.Sessions)
	}
	for args, want := range map[string]string{
		"":                                "[{a web} {b web} {c web}]",
		"web":                             "[{a web} {b web} {c web}]",
		"off":                             "[]",
		"--tag ci":                        "[{a web} {b web}]",
		"--tag ci --tag y":                "[{b web}]",
		"--status running":                "[{a web}]",
		"--status exited --status failed": "[{b web} {c web}]",
	} {
		if got := names(strings.Fields(args)...); got != want {
			t.Errorf("list %s: %s, want %s", args, got, want)
		}
	}
	if _, out, _ := f.run("", "vm", "session", "list"); !strings.HasPrefix(out, "VM   NAME  STATUS ") {
		t.Errorf("of all machines: %s", out)
	}
	f.want(3, "", "banger: cannot list sessions: no machine \"nosuch\"\n", "vm", "session", "list", "nosuch")
	_, out, _ := f.run("", "vm", "session", "show", "web", "b")
	for _, want := range []string{"status ", "exit code ", "command ", "tags ", "ended "} {
		if !strings.Contains(out, "\n"+want) {
			t.Errorf("show: no %s in\n%s", want, out)
		}
	}
	f.want(3, "", "banger: cannot show session nosuch in web: no session \"nosuch\" in \"web\"\n", "vm", "session", "show", "web", "nosuch")
}

func TestSessionVerbs(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		f.want(0, name+"\n", "", "vm", "session", "start", "web", "--name", name, "--", "sleep", "9")
	}
	f.want(0, "a got USR1\nb got USR1\n", "", "vm", "session", "kill", "--signal", "sigusr1", "web", "a", "b")
	f.want(0, "a got HUP\n", "", "vm", "session", "kill", "-s", "1", "web", "a")
	f.want(0, "a killed\nb killed\n", "", "vm", "session", "kill", "web", "a", "b", "a")
	f.want(3, "c stopped\nd stopped\n", "banger: cannot stop session x in web: no session \"x\" in \"web\"\n", "vm", "session", "stop", "web", "c", "x", "d")
	if got := fmt.Sprint(f.now("a").signals, f.now("b").signals, f.now("c").signals); got != "[USR1 HUP KILL] [USR1 KILL] [TERM]" {
		t.Errorf("signals %s", got)
	}
	f.want(0, "a deleted\nb deleted\nc deleted\n", "", "vm", "session", "delete", "web", "a", "b", "c")
	code, out, _ := f.run("", "vm", "session", "rm", "--json", "web", "d")
	if code != 0 || !strings.Contains(out, `"name": "d"`) {
		t.Errorf("exit %d, %s", code, out)
	}
	f.want(0, "", "banger: no sessions; how to start one: banger vm session start --help\n", "vm", "session", "list", "web")
}

func TestSignalName(t *testing.T) {
	for in, want := range map[string]string{"HUP": "HUP", "sighup": "HUP", "9": "KILL", "term": "TERM", "": "", "SIG": "", "NOPE": "", "0": "", "99": ""} {
		if got, err := signalName(in); got != want || (err == nil) != (want != "") {
			t.Errorf("signalName(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestSessionSend(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	for _, args := range []string{"cat pipe cat", "closed closed sleep", "over pipe true", "full pipe full"} {
		w := strings.Fields(args)
		f.want(0, w[0]+"\n", "", "vm", "session", "start", "web", "--name", w[0], "--stdin", w[1], "--", w[2])
	}
	f.end("over", 0)
	file := filepath.Join(f.root, "file")
	big := strings.Repeat("0123456789abcde\n", 1<<16)
	must(t, os.WriteFile(file, []byte(big), 0o600))
	want := ""
	for _, tt := range []struct{ args, in, got string }{
		{"one line", "", "one line\n"},
		{"-n|bare", "", "bare"},
		{"", "", ""},
		{"-n|", "", ""},
		{"-", "\xff\x00 no newline", "\xff\x00 no newline"},
		{"-", "", ""},
		{"--file|" + file, "", big},
	} {
		args := append([]string{"vm", "session", "send", "web", "cat"}, strings.Split(tt.args, "|")...)
		if code, out, errs := f.run(tt.in, args...); code != 0 || out+errs != "" {
			t.Errorf("%q: exit %d, %q, %q", tt.args, code, out, errs)
		}
		want += tt.got
		if got := f.now("cat").got; string(got) != want {
			t.Errorf("%q: the session has %d bytes, want %d", tt.args, len(got), len(want))
		}
	}
	f.want(0, "{\n  \"bytes_written\": 3,\n  \"timed_out\": false\n}\n", "", "vm", "session", "send", "--json", "web", "cat", "hi")
	f.want(0, "", "", "vm", "session", "send", "--eof", "web", "cat")
	if s := f.now("cat"); s.open || s.Status != "exited" {
		t.Errorf("after --eof: open %t, %s", s.open, s.Status)
	}
	f.want(4, "", "banger: cannot send to session closed in web: session does not have a stdin pipe\n", "vm", "session", "send", "web", "closed", "x")
	f.want(4, "", "banger: cannot send to session over in web: session is not running (status=exited)\n", "vm", "session", "send", "web", "over", "x")
	f.want(4, "", "banger: cannot send to session x in off: vm \"off\" is not running\nhint: banger vm start off\n", "vm", "session", "send", "off", "x", "x")
	f.want(124, "", "banger: cannot send to session full in web: not done within 7s: 1 of 6 bytes were written\n",
		"vm", "session", "send", "--timeout", "7s", "web", "full", "hello")
	f.want(124, "{\n  \"bytes_written\": 1,\n  \"timed_out\": true\n}\n", `{
  "error": {
    "kind": "timeout",
    "message": "cannot send to session full in web: not done within 7s: 1 of 0 bytes were written",
    "hints": []
  }
}
`, "vm", "session", "send", "--json", "--timeout", "7s", "web", "full", "-")
	f.want(2, "", "banger: cannot send to session cat in web: open /no/such: no such file or directory\n", "vm", "session", "send", "--file", "/no/such", "web", "cat")
}

// Input that does not come in time is given up, whatever the other end does.
func TestSessionSendSlow(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.want(0, "cat\n", "", "vm", "session", "start", "web", "--name", "cat", "--stdin", "pipe", "--", "cat")
	r := startProgram(t, f.program("vm", "session", "send", "--timeout", "50ms", "web", "cat", "-"))
	r.wantEnd(124, "", "banger: cannot send to session cat in web: not done within 50ms\n")
}

func TestSessionUsage(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.kill() // nobody is asked
	for args, want := range map[string]string{
		"start":                           `"banger vm session start" takes a machine`,
		"start web":                       `what is to be run stands after "--"`,
		"start web true":                  `"true": what is to be run stands after "--"`,
		"start web --stdin file -- x":     `--stdin "file": there is closed, pipe, pty`,
		"start web --json --attach -- x":  "--attach and --json exclude each other",
		"start web --log-limit 0 -- x":    "log-limit",
		"start web --name= -- x":          "--name is empty",
		"start web --env NO_SUCH -- x":    "--env NO_SUCH: NO_SUCH is not set here",
		"list web db":                     `"banger vm session list" takes one machine, or none for all`,
		"show web":                        `"banger vm session show" takes a machine and a session`,
		"stop web":                        `"banger vm session stop" takes a machine and one session or more`,
		"stop --grace -1s web a":          "--grace -1s: it takes no negative time",
		"kill --signal X web a":           `--signal "X": there is no such signal`,
		"logs web":                        "takes a machine and a session",
		"logs --stream x web a":           `--stream "x": there is stdout, stderr, both`,
		"logs --since then web a":         `--since "then": write a time ago, as in 10m, or one as in 20`,
		"logs --since -1m web a":          `--since "-1m"`,
		"logs --all --tail 1 web a":       "--all and --tail exclude each other",
		"send web":                        "takes a machine and a session",
		"send web a":                      `takes TEXT, "--file FILE", "-" or --eof`,
		"send web a b c":                  "takes one TEXT, and got 2 words\nhint: banger vm session send web a 'b c'\n",
		"send web a b --file x":           "TEXT and --file exclude each other",
		"attach web":                      "takes a machine and a session",
		"attach --take --read-only web a": "--take and --read-only exclude each other",
		"atach":                           "hint: banger vm session attach --help",
	} {
		code, out, errs := f.run("", append([]string{"vm", "session"}, strings.Fields(args)...)...)
		if code != 2 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %q, %q, want 2 and %q", args, code, out, errs, want)
		}
	}
}

func TestSessionCompletion(t *testing.T) {
	t.Parallel()
	f := newFakeSessions(t)
	f.want(0, "web\n", "", "vm", "session", "start", "web", "--name", "web", "--tag", "ci", "--", "true") // as the machine
	f.want(0, "b\n", "", "vm", "session", "start", "web", "--name", "b", "--", "true")
	f.end("b", 0)
	for args, want := range map[string]string{
		"show ":          "off\tstopped\nweb\trunning\n",
		"show web ":      "web\trunning\nb\texited\n",
		"show off ":      "",
		"show web b ":    "",
		"delete web b ":  "web\trunning\n",
		"stop web ":      "web\trunning\n",
		"attach web ":    "web\trunning\n",
		"list --status ": "starting\nrunning\nstopping\nexited\nfailed\n",
		"list --tag ":    "ci\n",
		"logs --stream ": "stdout\nstderr\nboth\n",
		"start --stdin ": "closed\npipe\npty\n",
		"send web web ":  "",
		"kill --signal ": "HUP\nINT\nKILL\nTERM\nUSR1\nUSR2\nSTOP\nCONT\n",
	} {
		_, out, _ := f.run("", append([]string{"__complete", "vm", "session"}, strings.Split(args, " ")...)...)
		if got, _, _ := strings.Cut(out, ":4\n"); got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
}
