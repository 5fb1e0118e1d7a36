package agent

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger/internal/sshkey"
)

func FuzzSSHRequests(f *testing.F) {
	f.Add("pty-req", ssh.Marshal(ptyRequest{Term: "xterm", Cols: 80, Rows: 24, Modes: "\x00"}))
	f.Add("pty-req", ssh.Marshal(ptyRequest{Term: "=0", Modes: "\x00"})) // found once
	f.Add("env", ssh.Marshal(envRequest{"LC_ALL", "C"}))
	f.Add("exec", ssh.Marshal(execRequest{"true"}))
	f.Add("forward", ssh.Marshal(forwardRequest{"localhost", 1 << 17}))
	f.Fuzz(func(t *testing.T, kind string, payload []byte) {
		if tty, err := parsePTY(payload); err == nil && (len(tty.Term) > maxSSHTerm || strings.ContainsAny(tty.Term, "\x00\n\x1b =/")) {
			t.Errorf("terminal %q", tty.Term)
		}
		if name, value, ok := parseEnv(payload); ok && (name != "LANG" && !strings.HasPrefix(name, "LC_") || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) || len(value) > maxSSHValue) {
			t.Errorf("variable %q = %q", name, value)
		}
		if r, err := parseForward(payload); err == nil && r.Port > 65535 {
			t.Errorf("port %d", r.Port)
		}
		// A session that never begins answers everything, and a command that
		// does not run is not controlled.
		s := &sshSession{sshLogin: &sshLogin{user: user{shell: "/bin/sh"}}, env: map[string]string{}}
		if kind != "shell" && kind != "exec" && kind != "subsystem" {
			s.request(kind, payload)
		}
		if len(s.env) > maxSSHEnv {
			t.Errorf("%d variables", len(s.env))
		}
	})
}

func FuzzSSHAuthorizedKeys(f *testing.F) {
	k, err := sshkey.HostKey("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Public("")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("")
	f.Add("# comment\nssh-ed25519 AAAA\n")
	f.Add(`command="x" `)
	f.Fuzz(func(t *testing.T, text string) {
		// Nothing that does not name the key lets it in, and whatever stands
		// on other lines does not keep it out.
		blob := strings.Fields(k.Public(""))[1]
		ok, err := keyIn(strings.NewReader(text), key)
		if ok && (err != nil || !strings.Contains(text, blob[:40])) {
			t.Errorf("let in by %q", text)
		}
		if len(text) < maxAuthorizedKeys/2 {
			if ok, err := keyIn(strings.NewReader(text+"\n"+k.Public("")+"\n"), key); !ok || err != nil {
				t.Errorf("kept out by %q: %v", text, err)
			}
		}
	})
}
