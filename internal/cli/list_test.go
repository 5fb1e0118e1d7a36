package cli

import (
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
)

// On a terminal a list is coloured and fits; elsewhere it is plain and whole.
func TestListOnTerminal(t *testing.T) {
	t.Parallel()
	root := bed(t)
	long := strings.Repeat("n", 63)
	must(t, program(root, "vm", "create", "--no-start", long).Run())
	must(t, program(root, "vm", "create", "web").Run())
	escape := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for _, tt := range []struct {
		cols  uint16
		env   string
		mark  string
		color bool
	}{
		{40, "A=b", "…", true},
		{80, "LANG=C", "~", true},
		{80, "NO_COLOR=1", "…", false},
		{80, "TERM=dumb", "…", false},
		{200, "A=b", "", true},
	} {
		c := program(root, "ps")
		c.Env = append(c.Env, tt.env)
		f, err := pty.StartWithSize(c, &pty.Winsize{Rows: 24, Cols: tt.cols})
		must(t, err)
		out, _ := io.ReadAll(f) // its error is that the terminal was closed
		must(t, c.Wait())
		f.Close()
		if got := escape.Match(out); got != tt.color {
			t.Errorf("%d columns, %s: colours %t: %q", tt.cols, tt.env, got, out)
		}
		plain := escape.ReplaceAllString(string(out), "")
		for line := range strings.Lines(plain) {
			if n := utf8.RuneCountInString(strings.TrimSpace(line)); n > int(tt.cols) {
				t.Errorf("%d columns of %d: %q", n, tt.cols, line)
			}
		}
		if strings.Contains(plain, long) == (tt.mark != "") || !strings.Contains(plain, "n"+tt.mark+" ") {
			t.Errorf("%d columns, %s: %s", tt.cols, tt.env, plain)
		}
	}
	out, err := program(root, "ps").Output()
	must(t, err)
	if escape.Match(out) || !strings.Contains(string(out), long+"  created") {
		t.Errorf("without a terminal: %q", out)
	}
}
