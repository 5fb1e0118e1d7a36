package cli

import (
	"io"
	"strings"
	"testing"
)

// Pruning shows what would go and asks; whatever was started meanwhile stays.
func TestPruneAsks(t *testing.T) {
	t.Parallel()
	root := bed(t)
	must(t, program(root, "vm", "create", "--no-start", "web").Run())
	must(t, program(root, "vm", "create", "--no-start", "db").Run())
	must(t, program(root, "vm", "create", "up").Run())
	for answer, wantCode := range map[string]int{"n\r": 0, "\r": 0, "yes please\r": 0, "\x04": 0, "\x03": 130} {
		f, c := onTerminal(t, root, "vm", "prune")
		shown := readUntil(t, f, "Delete 2 machines with their disks? [y/N] ")
		if !strings.Contains(shown, "web") || strings.Contains(shown, "up ") {
			t.Errorf("shown is %q", shown)
		}
		_, err := f.Write([]byte(answer))
		must(t, err)
		rest, _ := io.ReadAll(f) // its error is that the terminal was closed
		if said := strings.Contains(string(rest), "banger: nothing is deleted\r\n"); said == (wantCode != 0) {
			t.Errorf("answer %q: %q", answer, rest)
		}
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != wantCode {
			t.Errorf("answer %q: exit %d, want %d", answer, code, wantCode)
		}
	}
	wantNames(t, root, "web db up")

	f, c := onTerminal(t, root, "vm", "prune")
	readUntil(t, f, "[y/N] ")
	must(t, program(root, "vm", "start", "web").Run())
	_, err := f.Write([]byte("y\r"))
	must(t, err)
	readUntil(t, f, "db deleted\r\nbanger: machine \"web\" is running by now, and stays\r\n")
	must(t, c.Wait())
	wantNames(t, root, "web up")

	must(t, program(root, "vm", "stop", "web").Run())
	f, c = onTerminal(t, root, "vm", "prune")
	readUntil(t, f, "Delete web with its disks? [y/N] ")
	must(t, program(root, "vm", "delete", "web").Run())
	_, err = f.Write([]byte("YES\r"))
	must(t, err)
	must(t, c.Wait())
	wantNames(t, root, "up")
}

func wantNames(t *testing.T, root, want string) {
	t.Helper()
	out, err := program(root, "vm", "list", "--names").Output()
	must(t, err)
	if got := strings.Join(strings.Fields(string(out)), " "); got != want {
		t.Errorf("machines %q, want %q", got, want)
	}
}
