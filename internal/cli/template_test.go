package cli

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/config"
	"banger/internal/template"
	"banger/internal/template/templatefs"
)

// mkTemplateCmd is "mktemplate NAME IMAGE": it adds a tiny template to the
// daemon's library. $NAME is the beginning of its id that is shown, $NAME_ID
// all of it, $NAME_DIR where it is.
func mkTemplateCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mktemplate NAME IMAGE")
	}
	t, err := mkTemplate(ts.Getenv("BANGER_ROOT"), args[1])
	ts.Check(err)
	ts.Setenv(args[0], shortID(t.ID))
	ts.Setenv(args[0]+"_ID", t.ID)
	ts.Setenv(args[0]+"_DIR", t.Dir)
}

func mkTemplate(root, image string) (template.Template, error) {
	ctx := context.Background()
	paths, err := config.NewPaths(root)
	if err != nil {
		return template.Template{}, err
	}
	l, err := templatefs.Open(paths.Templates())
	if err != nil {
		return template.Template{}, err
	}
	s, err := l.Stage(ctx, template.Key{
		Image: image, ImageID: "a0", Kernel: "fake", KernelID: "6.1.0-fake", Agent: "a9e47", Driver: "fake", VMM: "fake 1.0",
		CPU: "a processor\nwith flags", VCPUs: 2, MemoryBytes: 512 << 20, RootBytes: 16 << 30, WorkBytes: 8 << 30, Network: image != "lonely",
	})
	if err != nil {
		return template.Template{}, err
	}
	defer s.Discard()
	for _, name := range []string{template.RAMName, template.StateName, template.RootName, template.WorkName} {
		text := strings.Repeat(name+" of "+image, 1000)
		if err := os.WriteFile(filepath.Join(s.Dir(), name), []byte(text), 0o600); err != nil {
			return template.Template{}, err
		}
	}
	return s.Publish(ctx, template.Template{Token: strings.Repeat("5ec4e7", 6)[:32], BootID: "6f1d1a1e-9f0b-4e6c-8d51-0a2b3c4d5e6f"})
}

// standsOnCmd is "standson MACHINE ID": it makes a machine's record say that its
// root disk stands on a template.
func standsOnCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: standson MACHINE ID")
	}
	ts.Check(standOn(ts.Getenv("BANGER_ROOT"), args[0], args[1]))
}

func standOn(root, machine, id string) error {
	paths, err := config.NewPaths(root)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", paths.Database()+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer db.Close()
	res, err := db.Exec(`UPDATE machines SET template = ? WHERE name = ?`, id, machine)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, errors.New("there is no machine "+machine))
	}
	return nil
}

// Pruning templates shows what would go and asks; what is used meanwhile stays,
// and so does what was not shown.
func TestTemplatePruneAsks(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "vm", "create", "--no-start", "web").Run())
	one, err := mkTemplate(root, "one")
	must(t, err)
	two, err := mkTemplate(root, "two")
	must(t, err)
	prune := func(answer, shown string) string {
		t.Helper()
		f, c := onTerminal(t, root, "template", "prune", "--unused", "0s")
		if got := readUntil(t, f, "? [y/N] "); !strings.Contains(got, "Delete 2 templates of ") || !strings.Contains(got, shown) {
			t.Errorf("shown is %q, want %q in it", got, shown)
		}
		if answer == "meanwhile" {
			must(t, standOn(root, "web", two.ID))
			_, err := mkTemplate(root, "three")
			must(t, err)
			answer = "y\r"
		}
		_, err := f.Write([]byte(answer))
		must(t, err)
		rest, _ := io.ReadAll(f) // its error is that the terminal was closed
		must(t, c.Wait())
		return string(rest)
	}
	if got := prune("n\r", shortID(one.ID)); !strings.Contains(got, "nothing is deleted") {
		t.Errorf("after no: %q", got)
	}
	got := prune("meanwhile", shortID(two.ID))
	if !strings.Contains(got, shortID(one.ID)+" deleted\r\n") || strings.Contains(got, shortID(two.ID)) || !strings.Contains(got, " freed\r\n") {
		t.Errorf("after yes: %q", got)
	}
	out, err := program(root, "template", "list").Output()
	must(t, err)
	if !strings.Contains(string(out), "two") || !strings.Contains(string(out), "three") || strings.Contains(string(out), "one") {
		t.Errorf("left are\n%s", out)
	}
}
