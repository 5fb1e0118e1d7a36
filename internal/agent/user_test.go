package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/guest/wire"
)

func accounts(t testing.TB, passwd, group string) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLookUpUser(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	root := accounts(t,
		"root:x:0:0:root:/root:/bin/bash\n# comment\nbroken\nbad:x:-1:0::/:\nbad2:x:4294967296:0::/:\n"+long+":x:7:7::/:\n"+
			"ann:x:1000:1001:Ann:/home/ann:/bin/zsh\n1000:x:2000:2000:a number for a name:/home/n:\nrel:x:3:3::home:sh\n:x:5:5::/:\nlast:x:9:9::/l:/bin/l",
		"ann:x:1001:\nsudo:x:27:bob,ann\n"+long+"\ndocker:x:999:ann\nbad:x:x:ann\nother:x:5:annabel\nsame:x:1001:ann\n")
	tests := []struct {
		name string
		want user
	}{
		{"", user{"root", 0, 0, []uint32{0}, "/root", "/bin/bash"}},
		{"ann", user{"ann", 1000, 1001, []uint32{27, 999, 1001}, "/home/ann", "/bin/zsh"}},
		{"1000", user{"1000", 2000, 2000, []uint32{2000}, "/home/n", "/bin/sh"}}, // names first, as chown(1)
		{"2000", user{"1000", 2000, 2000, []uint32{2000}, "/home/n", "/bin/sh"}},
		{"rel", user{"rel", 3, 3, []uint32{3}, "/", "/bin/sh"}},
		{"last", user{"last", 9, 9, []uint32{9}, "/l", "/bin/l"}},
		{"4321", user{"4321", 4321, 4321, []uint32{4321}, "/", "/bin/sh"}},
	}
	for _, tt := range tests {
		got, err := lookUpUser(root, tt.name)
		if err != nil {
			t.Errorf("%q: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(user{})); d != "" {
			t.Errorf("%q (-want +got):\n%s", tt.name, d)
		}
	}
	for _, name := range []string{"nobody-here", "bad", "-1", "4294967295", "4294967296", "ann:", "a\nb"} {
		if u, err := lookUpUser(root, name); err == nil {
			t.Errorf("%q: got %+v", name, u)
		}
	}
}

// An image may have no accounts, or something else in their place.
func TestLookUpUserWithout(t *testing.T) {
	empty := t.TempDir()
	if u, err := lookUpUser(empty, ""); err != nil || u.home != "/root" || u.shell != "/bin/sh" || u.uid != 0 {
		t.Errorf("got %+v, %v", u, err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc/passwd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := lookUpUser(dir, ""); err == nil {
		t.Error("a directory was read as accounts")
	}
}

func TestExecUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("changing users needs root")
	}
	root := accounts(t, "ann:x:12345:12346::/nowhere:/bin/zsh\n", "sudo:x:27:ann\n")
	a := dialAgent(t, ServeOptions{Root: root, Bundle: wire.Bundle{Env: []string{"LANG=C.UTF-8", "USER=wrong", "broken"}}})
	start := &wire.ExecStart{
		Argv: []string{"sh", "-c", "id -u; id -g; id -G; pwd; echo $HOME $USER $LOGNAME $SHELL $LANG $PATH $TERM"},
		User: "ann",
	}
	r := startRun(t, testContext(t), a, start)
	x := r.end(t)
	want := "12345\n12346\n12346 27\n/\n/nowhere ann ann /bin/zsh C.UTF-8 " + userPath + "\n"
	if got := string(r.stdout); got != want || x.GetCode() != 0 {
		t.Errorf("got %q, want %q (exit %v)", got, want, x)
	}
	start.Argv, start.Tty = []string{"sh", "-c", "stat -c %u $(tty); echo $TERM"}, &wire.Terminal{}
	r = startRun(t, testContext(t), a, start)
	if r.end(t); string(r.stdout) != "12345\r\nxterm\r\n" {
		t.Errorf("terminal's owner: got %q", r.stdout)
	}
}

// Account files are the guest's: any bytes give a user or an error.
func FuzzLookUpUser(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"), []byte("root:x:0:root\n"), "root")
	f.Add([]byte("a:b:c:d:e:f:g\n:::::::::\n"), []byte("x:x:9999999999:a\n"), "0")
	f.Add(bytes.Repeat([]byte("x"), 70_000), []byte{}, "4294967294")
	f.Fuzz(func(t *testing.T, passwd, group []byte, name string) {
		u, err := lookUpUser(accounts(t, string(passwd), string(group)), name)
		if err != nil {
			return
		}
		if !filepath.IsAbs(u.home) || !filepath.IsAbs(u.shell) || len(u.groups) == 0 || len(u.groups) > maxGroups {
			t.Errorf("got %s", fmt.Sprintf("%+v", u))
		}
	})
}
