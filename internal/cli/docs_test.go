package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banger/internal/config"
	"banger/test/docs"
)

var update = flag.Bool("update", false, "write docs/commands.md anew")

// Every example of the pages does what the page shows; those that need a real
// machine are run by test/e2e.
func TestDocs(t *testing.T) {
	t.Parallel()
	pages, err := docs.Pages("../..")
	must(t, err)
	for _, p := range pages {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			root := bed(t)
			home := filepath.Join(root, "home")
			must(t, os.Mkdir(home, 0o755))
			p.Pretend().Run(t, home, func(ctx context.Context, script string) *exec.Cmd {
				c := exec.CommandContext(ctx, "sh", "-c", script)
				c.Env = append(environ(root), "HOME="+home, "FAKE_IMAGE="+config.Default().Image)
				return c
			})
		})
	}
}

// commands returns a tree of commands as one call has it.
func commands() *cobra.Command { return (&app{}).rootCommand() }

// eachCommand calls f with every command that help shows.
func eachCommand(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			eachCommand(sub, f)
		}
	}
}

const commandsHead = `# Commands

What ` + "`--help`" + ` says of each; the flags that all of them have stand with the first.

<!-- Written by "go test ./internal/cli -run TestCommandsPage -update". -->
`

// The page of commands is what help says.
func TestCommandsPage(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(commandsHead)
	eachCommand(commands(), func(c *cobra.Command) {
		var help bytes.Buffer
		c.SetOut(&help)
		must(t, c.Help())
		text, _, _ := strings.Cut(help.String(), "\nEverywhere:\n")
		fmt.Fprintf(&b, "\n## %s\n\n```help\n%s\n```\n", c.CommandPath(), strings.TrimSpace(text))
	})
	const page = "../../docs/commands.md"
	if *update {
		must(t, os.WriteFile(page, b.Bytes(), 0o644))
	}
	got, err := os.ReadFile(page)
	must(t, err)
	if !bytes.Equal(got, b.Bytes()) {
		t.Error("docs/commands.md is not what help says; go test ./internal/cli -run TestCommandsPage -update")
	}
}

// Every command says what it is for, gives an example, and has its word in the
// help of the one above.
func TestHelpIsWhole(t *testing.T) {
	eachCommand(commands(), func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 60 {
			t.Errorf("%s: its summary is %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
				t.Errorf("%s: a line of %d columns: %s", c.CommandPath(), n, line)
			}
		}
	})
}

// Examples in help, and commands that pages name in passing, are such as
// banger takes.
func TestCommandsInPassing(t *testing.T) {
	eachCommand(commands(), func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			for _, words := range calls(line) {
				if err := takes(words); err != nil {
					t.Errorf("%s: example %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
				}
			}
		}
	})
	pages, err := filepath.Glob("../../docs/*.md")
	must(t, err)
	inline := regexp.MustCompile("`(banger [^`]*)`")
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		must(t, err)
		for _, m := range inline.FindAllStringSubmatch(string(text), -1) {
			for _, words := range calls(m[1]) {
				if _, _, err := find(words); err != nil {
					t.Errorf("%s: `%s`: %v", page, m[1], err)
				}
			}
		}
	}
}

// calls returns the words behind each "banger " of a shell's line, as far as
// they are its own.
func calls(line string) [][]string {
	var found [][]string
	for _, part := range strings.Split(line, "banger ")[1:] {
		part, _, _ = strings.Cut(part, "|")
		part, _, _ = strings.Cut(part, " > ")
		part, _, _ = strings.Cut(part, ")")
		part, _, _ = strings.Cut(part, "#")
		part = strings.ReplaceAll(part, "$(", "name")
		found = append(found, strings.Fields(part))
	}
	return found
}

// find returns the command that words name, and what follows its name.
func find(words []string) (*cobra.Command, []string, error) {
	c, rest, err := commands().Find(words)
	if err == nil && c.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		err = fmt.Errorf("%s has no command %q", c.CommandPath(), rest[0])
	}
	return c, rest, err
}

// takes returns what banger would say of its command line.
func takes(words []string) error {
	c, rest, err := find(words)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	return c.ValidateArgs(c.Flags().Args())
}

func TestCalls(t *testing.T) {
	for line, want := range map[string]string{
		"banger vm list":                            "[[vm list]]",
		"echo hi | banger vm run -- x":              "[[vm run -- x]]",
		"banger vm stop $(banger ps --names) # all": "[[vm stop name] [ps --names]]",
		"tar -c .": "[]",
	} {
		if got := fmt.Sprint(calls(line)); got != want {
			t.Errorf("calls(%q) = %s, want %s", line, got, want)
		}
	}
	for _, line := range []string{"vm lst", "vm list --nosuch", "vm stop", "nosuch"} {
		if takes(strings.Fields(line)) == nil {
			t.Errorf("banger takes %q", line)
		}
	}
}

// The index names every page, and links lead somewhere.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	must(t, err)
	index, err := os.ReadFile("../../docs/README.md")
	must(t, err)
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range append(pages, "../../README.md", "../../HACKING.md", "../../ARCHITECTURE.md") {
		name := filepath.Base(page)
		if strings.Contains(page, "/docs/") && name != "README.md" && !bytes.Contains(index, []byte("("+name+")")) {
			t.Errorf("docs/README.md does not name %s", name)
		}
		text, err := os.ReadFile(page)
		must(t, err)
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// The configuration that docs/daemon.md shows is the default one, whole.
func TestConfigurationPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/daemon.md")
	must(t, err)
	_, shown, _ := strings.Cut(string(text), "```toml\n")
	shown, _, _ = strings.Cut(shown, "```")
	file := filepath.Join(t.TempDir(), "config.toml")
	must(t, os.WriteFile(file, []byte(shown), 0o600))
	got, err := config.Load(file)
	must(t, err)
	if got != config.Default() {
		t.Errorf("shown is %+v, the defaults are %+v", got, config.Default())
	}
	var keys []string
	for line := range strings.Lines(shown) {
		key, _, _ := strings.Cut(line, " = ")
		keys = append(keys, key)
	}
	fields := reflect.TypeFor[config.Config]()
	for i := range fields.NumField() {
		if key := fields.Field(i).Tag.Get("toml"); !slices.Contains(keys, key) {
			t.Errorf("docs/daemon.md does not show %s", key)
		}
	}
}
