package errkind

import (
	"os/exec"
	"testing"
)

func TestQuote(t *testing.T) {
	for s, want := range map[string]string{
		"": "''", "ls": "ls", "a b": "'a b'", "it's": `'it'\''s'`, "$X": "'$X'", "--a=b/c": "--a=b/c", "ü": "'ü'",
		"/srv/b_1.db-wal": "/srv/b_1.db-wal", "127.0.0.1:22,a+b@c%d": "127.0.0.1:22,a+b@c%d",
		"=ls": "'=ls'", "~": "'~'", "*": "'*'", "a\nb": "'a\nb'", "#": "'#'", "a;b": "'a;b'", `\`: `'\'`, "{a,b}": "'{a,b}'",
	} {
		if got := Quote(s); got != want {
			t.Errorf("Quote(%q) = %s, want %s", s, got, want)
		}
		// What a shell makes of it counts.
		out, err := exec.Command("/bin/sh", "-c", `printf '%s|' `+Quote(s)).Output()
		if err != nil || string(out) != s+"|" {
			t.Errorf("a shell takes %s for %q, %v, want the one word %q", Quote(s), out, err, s)
		}
	}
}
