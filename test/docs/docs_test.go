package docs

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	page := strings.ReplaceAll(`# Title
´´´console
$ banger vm create web
web
$ banger vm exec web \
>
> -- true
´´´
Text.
´´´sh debian
# a comment
banger vm list   # another

banger vm stop \
  web
´´´
´´´toml
memory = "1G"
´´´
´´´console real
$ true
´´´
`, "´", "`")
	got, err := parse("p.md", page)
	if err != nil {
		t.Fatal(err)
	}
	want := Page{Name: "p.md", Examples: []Example{
		{Line: 3, Command: "banger vm create web", Want: []string{"web"}},
		{Line: 5, Command: "banger vm exec web \\\n\n-- true"},
		{Line: 12, Command: "banger vm list   # another", Real: true, Debian: true},
		{Line: 14, Command: "banger vm stop \\\n  web", Real: true, Debian: true},
		{Line: 21, Command: "true", Real: true},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !got.Real() || !got.Debian() || got.Pretend().Real() || len(got.Pretend().Examples) != 2 {
		t.Errorf("real %t, debian %t, %d examples that are not", got.Real(), got.Debian(), len(got.Pretend().Examples))
	}
}

// An example that no test would run is no way to get one past the tests.
func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"```\nbanger vm list\n```", "```bash\n$ ls\n```", "```sh maybe\nls\n```", "```console\nls\n```", "```sh\nls\n"} {
		if p, err := parse("p.md", text); err == nil {
			t.Errorf("%q is taken: %+v", text, p)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		want, got string
		ok        bool
	}{
		{"web", "web", true},
		{"web", "webs", false},
		{"NAME STATE", "NAME      STATE  ", true},
		{"web … ago", "web running 3s ago", true},
		{"web … ago", "web running 3s", false},
		{"web … tiny … ", "web  tiny", true},
		{"a…b…c", "a1b2c", true},
		{"a…b…c", "a1c", false},
		{"…", "", true},
		{"a\n…\nb", "a\nx\ny\nb", true},
		{"a\n…\nb", "a\nx\nb\ny", false},
		{"web", "banger: boot web\nweb", true},
		{"web", "banger: cannot boot web\nweb", false},
		{"web", "web\nmore", false},
		{"web\nmore", "web", false},
		{"banger: boot", "banger: boot", true},
	}
	for _, tt := range tests {
		if got := match(split(tt.want), split(tt.got)); got != tt.ok {
			t.Errorf("shown %q, printed %q: %t, want %t", tt.want, tt.got, got, tt.ok)
		}
	}
}

func TestRunExample(t *testing.T) {
	tests := []struct {
		command, want string
		ok            bool
	}{
		{"echo a; echo b >&2", "a\nb", true},
		{"echo a", "b", false},
		{"echo a", "", true},
		{"exit 3", "", false},
		{"echo banger: cannot do it >&2; exit 3", "banger: cannot do it", true},
		{"echo banger: warning: done >&2; exit 3", "banger: warning: done", false},
		{"echo a; sleep 1000", "a\n^C", true},
		{"echo b", "a\n^C", false},
		{"pwd", "/", true},
	}
	for _, tt := range tests {
		e := Example{Command: tt.command, Want: split(tt.want)}
		c := exec.CommandContext(context.Background(), "sh", "-c", tt.command)
		c.Dir = "/"
		if err := e.run(c); (err == nil) != tt.ok {
			t.Errorf("%q, shown %q: %v", tt.command, tt.want, err)
		}
	}
}
