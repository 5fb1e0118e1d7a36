package archtest

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The check of imports finds what it is for.
func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name      string
		from, imp string
		generated bool
		want      string // in the one fault there is; none if empty
	}{
		{name: "standard library", from: "internal/vm", imp: "net/http"},
		{name: "standard library, owned", from: "internal/vm", imp: "os/exec", want: "belongs to"},
		{name: "standard library, owner", from: "internal/hostcmd", imp: "os/exec"},
		{name: "standard library, below what is owned", from: "internal/vm", imp: "database/sql/driver"},
		{name: "nobody owns it", from: "internal/vm", imp: "example.com/new/thing", want: "nobody owns"},
		{name: "nobody owns it, not even a command", from: "cmd/banger", imp: "example.com/new", want: "nobody owns"},
		{name: "nobody owns it, generated", from: "internal/api", imp: "example.com/new", generated: true},
		{name: "a longer name is another", from: "internal/cli", imp: "golang.org/x/terminal", want: "nobody owns"},
		{name: "above what is owned", from: "internal/kernel/fetch", imp: "github.com/klauspost/compress", want: "nobody owns"},
		{name: "owner, subpackage", from: "internal/handle", imp: "golang.org/x/sys/unix"},
		{name: "not the owner, subpackage", from: "internal/vm", imp: "golang.org/x/sys/unix", want: "belongs to"},
		{name: "owner by pattern", from: "internal/disk/qcow2", imp: "golang.org/x/sys/unix"},
		{name: "a pattern ends at a slash", from: "internal/disk", imp: "golang.org/x/sys/unix", want: "belongs to"},
		{name: "no rank", from: "internal/nowhere", imp: "fmt", want: "no rank"},
		{name: "upwards", from: "internal/vm", imp: "banger/internal/store", want: "rank"},
		{name: "downwards", from: "internal/store", imp: "banger/internal/vm"},
		{name: "upwards, generated", from: "internal/api", imp: "banger/internal/cli", generated: true, want: "rank"},
	} {
		faults := check(tt.from, tt.imp, tt.generated)
		switch {
		case tt.want == "" && len(faults) > 0:
			t.Errorf("%s: %q, want nothing", tt.name, faults)
		case tt.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], tt.want)):
			t.Errorf("%s: %q, want one with %q", tt.name, faults, tt.want)
		}
	}
}

// The entry with the longest name wins.
func TestCheckLongestWins(t *testing.T) {
	for p, o := range map[string]string{"example.com/a": "internal/vm", "example.com/a/b": "internal/vmm"} {
		owners[p] = []string{o}
		defer delete(owners, p)
	}
	for imp, owner := range map[string]string{
		"example.com/a": "internal/vm", "example.com/a/c": "internal/vm",
		"example.com/a/b": "internal/vmm", "example.com/a/b/c": "internal/vmm",
	} {
		for _, from := range []string{"internal/vm", "internal/vmm"} {
			if faults := check(from, imp, false); (len(faults) == 0) != (from == owner) {
				t.Errorf("%s imports %s: %q", from, imp, faults)
			}
		}
	}
}

// A pattern that is malformed would match nothing, silently.
func TestOwnersAreThere(t *testing.T) {
	for imp, patterns := range owners {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil {
				t.Errorf("%s: %q: %v", imp, p, err)
			}
			if _, ok := rankOf(p); !ok && !strings.Contains(p, "*") {
				t.Errorf("%s belongs to %s, which has no rank", imp, p)
			}
		}
	}
}

// What go.mod requires directly is named in docs/dependencies.md, and what is
// named there is required.
func TestDependenciesAreDocumented(t *testing.T) {
	required := directRequirements(readFile(t, "../../go.mod"))
	named := firstColumn(readFile(t, "../../docs/dependencies.md"))
	if len(required) == 0 || len(named) == 0 {
		t.Fatalf("found %d requirements and %d names", len(required), len(named))
	}
	for _, m := range required {
		if !slices.Contains(named, m) {
			t.Errorf("docs/dependencies.md does not name %s", m)
		}
	}
	for _, m := range named {
		if !slices.Contains(required, m) {
			t.Errorf("docs/dependencies.md names %s, which go.mod does not require directly", m)
		}
	}
}

func TestDirectRequirements(t *testing.T) {
	got := directRequirements("module m\n\ngo 1.26.0\n\nrequire example.com/one v1.0.0\n\nrequire (\n\t// a comment\n\texample.com/two/v2 v2.1.0\n" +
		"\texample.com/three v0.0.1 // indirect\n)\n\nreplace example.com/four => example.com/five v1.0.0\n\nexclude (\n\texample.com/six v1.0.0\n)\n")
	if want := []string{"example.com/one", "example.com/two/v2"}; !slices.Equal(got, want) {
		t.Errorf("directRequirements = %q, want %q", got, want)
	}
}

// directRequirements returns the modules that a go.mod requires and does not
// mark as indirect.
func directRequirements(mod string) (modules []string) {
	block := false
	for line := range strings.Lines(mod) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "//") {
			continue
		}
		single, isSingle := strings.CutPrefix(line, "require ")
		switch {
		case line == "require (":
			block = true
			continue
		case line == ")":
			block = false
		}
		if isSingle {
			line = single
		}
		if fields := strings.Fields(line); (block || isSingle) && len(fields) >= 2 && !strings.HasSuffix(line, "// indirect") {
			modules = append(modules, fields[0])
		}
	}
	return modules
}

// modulePath is the path of a module, which begins with the name of a host.
var modulePath = regexp.MustCompile(`[a-z0-9-]+(\.[a-z0-9-]+)+/[\w./-]+`)

// firstColumn returns the module paths in the first column of a table.
func firstColumn(text string) (modules []string) {
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			modules = append(modules, modulePath.FindAllString(cells[1], -1)...)
		}
	}
	return modules
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
