//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// describeTree prints, for all that is below the working directory, kind and
// mode, target of links, and sums; the same here and in a guest's busybox.
const describeTree = `find . | LC_ALL=C sort | while read -r f; do
	stat -c '%f %Y %n' "$f"; [ ! -h "$f" ] || readlink "$f"; done | grep -v ' \.$' | sed 's/^\(a1ff\) [0-9]*/\1/'
find . -type f -exec sha256sum {} + | LC_ALL=C sort`

// makeTree makes a tree with one of everything that a copy keeps.
func makeTree(t *testing.T, dir string) {
	t.Helper()
	script := `set -e; mkdir -p "$1"; cd "$1"
	mkdir -p sub/deep empty; head -c 3000000 /dev/urandom >sub/deep/big; head -c 100 /dev/urandom >small; : >nothing
	for i in $(seq 300); do echo $i >sub/$i; done
	ln -s sub/deep/big link; ln -s /nowhere dangling; ln -s ../../.. up
	printf x >'a name with spaces'; truncate -s 50M sub/sparse; printf end >>sub/sparse
	chmod 400 small; chmod 4755 nothing; chmod 1777 empty; touch -d '1999-01-02 03:04:05' small sub/deep; chmod 555 sub/deep`
	if out, err := runHere(t, dir, script); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestCpTree(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	dir := t.TempDir()
	makeTree(t, dir+"/tree")
	want, err := runHere(t, dir+"/tree", `cd "$1"; `+describeTree)
	if err != nil {
		t.Fatal(err, want)
	}
	b.must("vm", "cp", dir+"/tree", "web:/srv")
	if got := b.must("vm", "exec", "web", "--", "sh", "-c", "cd /srv; "+describeTree); got != want {
		t.Errorf("in the guest:\n%s\nhere:\n%s", got, want)
	}
	// Sparse it stays.
	b.wants(0, "fine", "", "vm", "exec", "web", "--", "sh", "-c", "[ $(du -k /srv/sub/sparse | cut -f1) -lt 1000 ] && echo fine")
	b.must("vm", "cp", "web:/srv", dir+"/back")
	// A guest gives no such bits to the host.
	want = strings.NewReplacer("89ed ", "81ed ", "43ff ", "41ff ").Replace(want)
	if got, err := runHere(t, dir+"/back", `cd "$1"; `+describeTree); err != nil || got != want {
		t.Errorf("back here, %v:\n%s\nwant:\n%s", err, got, want)
	}
	// Nothing to do, nothing changed.
	b.must("vm", "cp", "--resume", dir+"/tree/.", "web:/srv")
	b.wants(0, "", "", "vm", "cp", "web:/proc/version", dir)
	if v, err := os.ReadFile(dir + "/version"); err != nil || !bytes.HasPrefix(v, []byte("Linux version")) {
		t.Errorf("/proc/version: %q, %v", v, err)
	}
	b.wants(3, "", "read /none: no such file or directory", "vm", "cp", "web:/none", dir)
	b.wants(4, "", "it is neither a file nor a directory", "vm", "cp", "web:/dev/vda", dir)
	release := strings.TrimSpace(b.must("vm", "exec", "web", "--", "uname", "-r"))
	b.wants(1, "", "read-only file system", "vm", "cp", dir+"/version", "web:/lib/modules/"+release)
}

// runHere runs a script with a directory as its argument.
func runHere(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	c := exec.Command("sh", "-c", script, "sh", dir)
	out, err := c.CombinedOutput()
	return string(out), err
}

// bigFile makes a file that takes a while to copy, and returns its sum.
func (b *bed) bigFile(path string) string {
	b.t.Helper()
	data := make([]byte, 64<<20)
	rand.Read(data)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		b.t.Fatal(err)
	}
	out, err := exec.Command("sha256sum", path).Output()
	if err != nil {
		b.t.Fatal(err)
	}
	sum, _, _ := strings.Cut(string(out), " ")
	return sum
}

// A full disk: one line, a way to look, and nothing is left; the guest goes on.
func TestCpFull(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web") // its work disk has 64 MiB
	dir := t.TempDir()
	b.bigFile(dir + "/big")
	if err := os.MkdirAll(dir+"/tree/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(dir+"/big", dir+"/tree/sub/big"); err != nil {
		t.Fatal(err)
	}
	b.must("vm", "exec", "web", "--", "sh", "-c", "echo old >/root/x; head -c 8000000 /dev/urandom >/root/mine; sha256sum /root/mine >/sum")
	for _, src := range []string{dir + "/big", dir + "/tree"} {
		r := b.run("vm", "cp", "-q", src, "web:new")
		msg := string(r.stderr)
		if r.code != 1 || !strings.HasPrefix(msg, "banger: cannot copy "+src+" to web:new: write /root/new") ||
			!strings.Contains(msg, ": no space left on device\nhint: ") || strings.Count(msg, "\n") != 2 {
			t.Errorf("exit %d: %s", r.code, msg)
		}
	}
	b.wants(1, "", "write /root/x: no space left on device", "vm", "cp", dir+"/big", "web:x")
	b.wants(0, "old\n/root/mine: OK\nmine\nx\n", "", "vm", "exec", "web", "--", "sh", "-c", "cat /root/x; sha256sum -c /sum; ls -A /root | grep -v ssh")
	b.must("vm", "exec", "web", "--", "sh", "-c", "df -h") // the hint
	b.must("vm", "cp", dir+"/big", "web:/elsewhere")

	// The same here.
	small := dir + "/small"
	must(t, os.Mkdir(small, 0o755))
	must(t, exec.Command("mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", small).Run())
	t.Cleanup(func() {
		if err := exec.Command("umount", small).Run(); err != nil {
			t.Error(err)
		}
	})
	b.wants(1, "", ": write "+small+"/elsewhere: no space left on device\nhint: df -h "+small+"\n", "vm", "cp", "web:/elsewhere", small)
	if left, err := os.ReadDir(small); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A copy that is cut off, by whatever dies, leaves nothing at its place and is
// gone on with, as its last words say.
func TestCpCutOff(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	sum := b.bigFile(dir + "/big")
	b.must("vm", "create", "web")
	b.must("vm", "cp", dir+"/big", "web:/src")
	const look = "cd %s; if [ -e dst ]; then echo early; fi; du -ck .banger-*.part 2>/dev/null | tail -n1"
	push := cutCopy{src: dir + "/big", dst: "web:/dst", look: func() string {
		return b.must("vm", "exec", "web", "--", "sh", "-c", fmt.Sprintf(look, "/"))
	}}
	pull := cutCopy{src: "web:/src", dst: dir + "/dst", look: func() string {
		out, _ := exec.Command("sh", "-c", fmt.Sprintf(look, dir)).Output()
		return string(out)
	}}
	for _, c := range []struct {
		name string
		code int
		says string
		cut  func(client *os.Process)
	}{
		{"interrupt", 130, "ended by signal interrupt\nhint: ", func(p *os.Process) { must(t, p.Signal(syscall.SIGINT)) }},
		{"client killed", -1, "", func(p *os.Process) { must(t, p.Kill()) }},
		{"daemon killed", 1, "the daemon went away", func(*os.Process) { b.killDaemon() }},
		{"machine killed", 1, "ended while files were copied: ", func(*os.Process) { b.must("vm", "kill", "web") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			push.cutOff(t, b, c.code, c.says, c.cut)
			if c.name == "machine killed" {
				b.must("vm", "start", "web")
			}
			b.must("vm", "cp", "--resume", push.src, push.dst)
			b.wants(0, sum, "", "vm", "exec", "web", "--", "sha256sum", "/dst")
			b.wants(1, "", "", "vm", "exec", "web", "--", "sh", "-c", "rm /dst; ls -A / | grep '[.]part'")
			pull.cutOff(t, b, c.code, c.says, c.cut)
			if c.name == "machine killed" {
				b.must("vm", "start", "web")
			}
			b.must("vm", "cp", "--resume", pull.src, pull.dst)
			if out, err := exec.Command("sha256sum", pull.dst).Output(); err != nil || !strings.HasPrefix(string(out), sum) {
				t.Errorf("here: %s, %v", out, err)
			}
			must(t, os.Remove(pull.dst))
			if parts, _ := filepath.Glob(dir + "/.banger-*"); len(parts) > 0 {
				t.Errorf("left: %v", parts)
			}
		})
	}
}

// cutCopy is a copy that does not come to its end.
type cutCopy struct {
	src, dst string
	look     func() string // "early" if something is at its place; KiB of what is not whole
}

// cutOff begins the copy, cuts it off in the middle, and checks what it says.
func (c cutCopy) cutOff(t *testing.T, b *bed, code int, says string, cut func(*os.Process)) {
	t.Helper()
	cmd := b.cmd("vm", "cp", "-q", c.src, c.dst)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	must(t, cmd.Start())
	b.eventually("some of it is there", time.Minute, func() bool {
		var kib int
		_, err := fmt.Sscan(c.look(), &kib)
		return err == nil && kib > 8<<10
	})
	cut(cmd.Process)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(errs.String(), says) {
		t.Errorf("exit %d, want %d: %s", got, code, errs.String())
	}
	if hint := "hint: " + filepath.Join(binDir, "banger") + " vm cp --resume " + c.src + " " + c.dst + "\n"; says != "" && !strings.Contains(errs.String(), hint) {
		t.Errorf("no %q in %s", hint, errs.String())
	}
}
