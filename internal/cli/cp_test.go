package cli

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A copy that is interrupted leaves nothing at its place and says how to go on;
// pasted, that does.
func TestCpInterrupted(t *testing.T) {
	t.Parallel()
	root := bed(t)
	if out, err := program(root, "vm", "create", "web").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data := make([]byte, 64<<20)
	rand.Read(data)
	for name, paths := range map[string][2]string{"push": {"src", "web:dst"}, "pull": {"web:src", "dst"}, "tree": {"tree", "web:dst"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "src"), data, 0o600))
			must(t, os.Mkdir(filepath.Join(dir, "tree"), 0o700))
			must(t, os.Link(filepath.Join(dir, "src"), filepath.Join(dir, "tree/f")))
			for i, p := range paths {
				vm, file, remote := strings.Cut(p, ":")
				if paths[i] = filepath.Join(dir, p); remote {
					paths[i] = vm + ":" + filepath.Join(dir, file)
				}
			}
			hint := interruptCp(t, root, dir, paths)
			c := program(root, strings.Fields(hint)[1:]...)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", hint, err, out)
			}
			dst := filepath.Join(dir, "dst")
			if name == "tree" {
				dst = filepath.Join(dst, "f")
			}
			if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, data) {
				t.Errorf("resumed: %d bytes of %d, %v", len(got), len(data), err)
			}
			if left := unfinished(t, dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// interruptCp interrupts a copy as Ctrl-C does, and returns its hint.
func interruptCp(t *testing.T, root, dir string, paths [2]string) string {
	t.Helper()
	r := start(t, root, "vm", "cp", "-q", paths[0], paths[1])
	waitUntil(t, "some of it is there", func() bool { return sizeOfUnfinished(t, dir) > 1<<20 })
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wantEnd(130, "", "ended by signal interrupt\n")
	if _, err := os.Lstat(filepath.Join(dir, "dst")); err == nil {
		t.Error("it is at its place, and was interrupted")
	}
	_, hint, ok := strings.Cut(r.errs.String(), "\nhint: ")
	if !ok || !strings.HasPrefix(hint, "banger vm cp --resume ") {
		t.Fatalf("no hint: %s", r.errs.String())
	}
	return strings.TrimSpace(hint)
}

func unfinished(t *testing.T, dir string) (found []string) {
	t.Helper()
	for _, pattern := range []string{".banger-*.part", ".banger-*.part/.banger-*.part"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		found = append(found, names...)
	}
	return found
}

// sizeOfUnfinished is the size of the file that is not whole yet.
func sizeOfUnfinished(t *testing.T, dir string) int64 {
	t.Helper()
	for _, name := range unfinished(t, dir) {
		if fi, err := os.Stat(name); err == nil && fi.Mode().IsRegular() {
			return fi.Size()
		}
	}
	return 0
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// A stream that is interrupted leaves nothing, and has no hint: what it was is
// gone.
func TestCpStreamInterrupted(t *testing.T) {
	t.Parallel()
	root, dir := bed(t), t.TempDir()
	if out, err := program(root, "vm", "create", "web").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := start(t, root, "vm", "cp", "-q", "-", "web:"+filepath.Join(dir, "dst"))
	if _, err := r.in.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "some of it is there", func() bool { return sizeOfUnfinished(t, dir) > 0 })
	must(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.wantEnd(130, "", "")
	if r.errs.Len() > 0 {
		t.Errorf("stderr: %s", r.errs.String())
	}
	waitUntil(t, "nothing is left", func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	})
}

// The daemon dies under a copy.
func TestCpDaemonDies(t *testing.T) {
	t.Parallel()
	root, dir := bed(t), t.TempDir()
	if out, err := program(root, "vm", "create", "web").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := start(t, root, "vm", "cp", "-q", "-", "web:"+filepath.Join(dir, "dst"))
	if _, err := r.in.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "some of it is there", func() bool { return sizeOfUnfinished(t, dir) > 0 })
	must(t, killDaemon(root))
	r.wantEnd(1, "", "banger: cannot copy - to web:"+filepath.Join(dir, "dst")+": the daemon went away")
}
