package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"banger/internal/errkind"
)

var testBlock = sshBlock{
	tag: "0a1b2c", undo: "banger ssh-config --uninstall",
	options: []sshOption{{"User", "root"}, {"ProxyCommand", "banger ssh-proxy '%h'"}},
}

func TestBlock(t *testing.T) {
	const want = `# banger 0a1b2c begin: "banger ssh-config --uninstall" removes these lines, and the file, and its directory
Host *.vm
    User root
    ProxyCommand banger ssh-proxy '%h'
Match all
# banger 0a1b2c end
Host mine
`
	got, err := testBlock.install([]byte("Host mine\n"), made{true, true})
	if d := cmp.Diff(want, string(got)); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	_, m, found, err := testBlock.uninstall(got)
	if !found || err != nil || m != (made{true, true}) {
		t.Errorf("made %+v, found %v, %v", m, found, err)
	}
}

// lines that a user's file may have; some are no friends of ours.
var someLines = []string{
	"", "Host *", "  User me", "Host *.vm\r", "# banger 0a1b2c", "#banger 0a1b2c end", "# banger ffffff begin: x", "# banger ffffff end", "# banger 0a1b2c end of the world", "\tMatch all", "\xff\x00",
}

// Whatever stands in the file stands there again afterwards, and what was
// written around the block meanwhile as well.
func TestBlockComesAndGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) []byte {
			s := strings.Join(rapid.SliceOfN(rapid.SampledFrom(someLines), 0, 6).Draw(t, name), "\n")
			return []byte(s + rapid.SampledFrom([]string{"", "\n", "\r\n", "\n\n"}).Draw(t, name+" end"))
		}
		x := text("text")
		m := made{file: rapid.Bool().Draw(t, "file")}
		m.dir = m.file && rapid.Bool().Draw(t, "dir")
		in, err := testBlock.install(x, m)
		if err != nil {
			t.Fatalf("install into %q: %v", x, err)
		}
		again, err := testBlock.install(in, made{})
		if err != nil || !bytes.Equal(again, in) {
			t.Fatalf("installed twice: %q, %v, want %q", again, err, in)
		}
		other := testBlock
		other.tag = "123456"
		both, err := other.install(in, made{})
		if err != nil {
			t.Fatal(err)
		}
		if out, _, _, err := other.uninstall(both); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("another's came and went: %q, %v, want %q", out, err, in)
		}
		above := text("above")
		if len(above) > 0 && above[len(above)-1] != '\n' {
			above = append(above, '\n')
		}
		edited := slices.Concat(above, in, text("below"))
		want := slices.Concat(above, x, edited[len(above)+len(in):])
		out, gone, found, err := testBlock.uninstall(edited)
		if err != nil || !found || gone != m || !bytes.Equal(out, want) {
			t.Fatalf("uninstall = %q, %+v, %v, %v, want %q", out, gone, found, err, want)
		}
	})
}

func TestBlockDamaged(t *testing.T) {
	b, e := testBlock.begin()+"x\n", testBlock.end()+"\n"
	for text, want := range map[string]string{
		"a\n" + b + "User root\n": "line 2 begins a block of banger's that does not end",
		"a\n\n" + e:               "line 3 ends a block of banger's that does not begin",
		e + b:                     "line 1 ends a block of banger's that does not begin",
		b + b + e:                 "line 2 begins banger's block, and so does line 1",
		b + e + e:                 "line 3 ends a block of banger's that does not begin",
		b + e + b + e:             "line 3 begins banger's block, and so does line 1",
	} {
		if _, err := testBlock.install([]byte(text), made{}); errkind.Of(err) != errkind.Conflict || err.Error() != want {
			t.Errorf("install into %q: %v, want %s", text, err, want)
		}
		if _, _, _, err := testBlock.uninstall([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("uninstall from %q: %v, want %s", text, err, want)
		}
	}
}

func FuzzBlock(f *testing.F) {
	for _, l := range someLines {
		f.Add(l)
	}
	f.Add(testBlock.begin() + "x\n" + testBlock.end())
	f.Fuzz(func(t *testing.T, text string) {
		in, err := testBlock.install([]byte(text), made{})
		if err != nil {
			return
		}
		rest, _, _, err := testBlock.uninstall([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if out, _, found, err := testBlock.uninstall(in); err != nil || !found || !bytes.Equal(out, rest) {
			t.Errorf("%q came back as %q, %v", text, out, err)
		}
	})
}

// sshApp returns a banger of the instance at root, in a home.
func sshApp(root, home string) (*app, *bytes.Buffer) {
	var out bytes.Buffer
	return &app{
		Stdio: Stdio{In: strings.NewReader(""), Out: &out, Err: &out}, rootDir: root,
		env: Env{Name: "/bin/sh", Vars: []string{"HOME=" + home}},
	}, &out
}

// What OpenSSH makes of the block: machines are reached as they should be,
// whatever the root is called, and other hosts are what they were.
func TestOpenSSHReadsBlock(t *testing.T) {
	resolve := func(path, host string) string {
		out, err := exec.Command("ssh", "-G", "-F", path, host).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh -G %s: %v\n%s", host, err, out)
		}
		return string(out)
	}
	const mine = "Port 2222\nUser me\nHost special\n  Port 77\nHost *\n  ServerAliveInterval 5\n"
	for _, root := range []string{"", "/srv/b", "/srv/it's 100%h a=b #1"} {
		home := t.TempDir()
		path := filepath.Join(home, ".ssh/config")
		must(t, os.Mkdir(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(mine), 0o600))
		before := resolve(path, "special") + resolve(path, "example.com")
		a, _ := sshApp(root, home)
		must(t, a.installSSH())
		if d := cmp.Diff(before, resolve(path, "special")+resolve(path, "example.com")); d != "" {
			t.Errorf("%s: other hosts have changed: %s", root, d)
		}
		// Some of them are shown before the tokens are replaced, some after.
		got := strings.ReplaceAll(resolve(path, "web.vm"), "%%", "%")
		state := root + "/state"
		if root == "" {
			state = "/var/lib/banger"
		}
		for _, want := range []string{
			"user root\n", "port 2222\n", "identitiesonly yes\n", "stricthostkeychecking true\n", "serveraliveinterval 5\n",
			"identityfile " + state + "/ssh/id_ed25519\n", "userknownhostsfile " + state + "/ssh/known_hosts\n", "globalknownhostsfile /dev/null\n",
			" ssh-proxy '%h'\n",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", root, want, got)
			}
		}
	}
	for _, root := range []string{"/a\"b", "/a\\b", "/a\nb", "/${HOME}"} {
		a, _ := sshApp(root, t.TempDir())
		if err := a.installSSH(); errkind.Of(err) != errkind.Usage {
			t.Errorf("%q: %v", root, err)
		}
	}
}

// Installing and uninstalling leaves no trace where there was nothing, and the
// same file where there was one, with its mode and owner.
func TestSSHFile(t *testing.T) {
	const uid = 54321
	if os.Geteuid() != 0 {
		t.Fatal("giving files away needs root")
	}
	for name, prepare := range map[string]func(home string) (path string, err error){
		"nothing":   func(home string) (string, error) { return home + "/.ssh/config", nil },
		"directory": func(home string) (string, error) { return home + "/.ssh/config", os.Mkdir(home+"/.ssh", 0o750) },
		"file": func(home string) (string, error) {
			p := home + "/.ssh/config"
			return p, errors.Join(os.Mkdir(home+"/.ssh", 0o700), os.WriteFile(p, []byte("Host x"), 0o644), os.Chown(p, uid, 7))
		},
		"empty file": func(home string) (string, error) {
			p := home + "/.ssh/config"
			return p, errors.Join(os.Mkdir(home+"/.ssh", 0o700), os.WriteFile(p, nil, 0o640), os.Chown(p, uid, 7))
		},
		"link": func(home string) (string, error) {
			p := home + "/dots"
			return p, errors.Join(os.Mkdir(home+"/.ssh", 0o700), os.WriteFile(p, []byte("Host x\n"), 0o600), os.Chown(p, uid, 7), os.Symlink("../dots", home+"/.ssh/config"))
		},
	} {
		home := t.TempDir()
		must(t, os.Chown(home, uid, uid))
		path, err := prepare(home)
		must(t, err)
		before := inventory(t, home)
		a, out := sshApp("/srv/b", home)
		must(t, a.installSSH())
		if got := out.String(); got != "installed in "+path+"\n" {
			t.Errorf("%s: said %q", name, got)
		}
		installed := inventory(t, home)
		if !strings.Contains(installed["config of "+path], "Host *.vm") {
			t.Errorf("%s: not installed: %v", name, installed)
		}
		if st := must1(os.Stat(path))(t).Sys().(*syscall.Stat_t); st.Uid != uid {
			t.Errorf("%s: the file is %d's", name, st.Uid)
		}
		out.Reset()
		must(t, a.installSSH())
		if d := cmp.Diff(installed, inventory(t, home)); d != "" || out.String() != "installed already in "+path+"\n" {
			t.Errorf("%s: installed twice: %q %s", name, out, d)
		}
		must(t, a.uninstallSSH())
		if d := cmp.Diff(before, inventory(t, home)); d != "" {
			t.Errorf("%s: uninstalling left %s", name, d)
		}
		out.Reset()
		must(t, a.uninstallSSH())
		if got := out.String(); got != "not installed in "+path+"\n" {
			t.Errorf("%s: said %q", name, got)
		}
	}
}

func must1[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T { t.Helper(); must(t, err); return v }
}

// inventory tells everything about the files under a home.
func inventory(t *testing.T, home string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	must(t, filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == home {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		found[path] = fmt.Sprint(fi.Mode(), st.Uid, st.Gid)
		if fi.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			found["config of "+path] = string(text)
			return err
		}
		return nil
	}))
	return found
}

// What the user has added stays, and so does what it stands in.
func TestSSHFileKeepsAdditions(t *testing.T) {
	home := t.TempDir()
	path := home + "/.ssh/config"
	a, _ := sshApp("/srv/b", home)
	must(t, a.installSSH())
	text := must1(os.ReadFile(path))(t)
	must(t, os.WriteFile(path, append(text, "Host y\n"...), 0o600))
	must(t, os.WriteFile(home+"/.ssh/known_hosts", nil, 0o600))
	must(t, a.uninstallSSH())
	if got := must1(os.ReadFile(path))(t); string(got) != "Host y\n" {
		t.Errorf("left %q", got)
	}
	must(t, os.Remove(path))
	must(t, os.Remove(home+"/.ssh/known_hosts"))
	must(t, os.Remove(home+"/.ssh"))
	must(t, a.installSSH())
	must(t, os.WriteFile(home+"/.ssh/known_hosts", nil, 0o600))
	must(t, a.uninstallSSH())
	if got := inventory(t, home); len(got) != 3 { // the directory, the file and its content
		t.Errorf("left %v", got)
	}
}

func TestSSHFileRefuses(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"a dangling link": func(path string) error { return os.Symlink("nowhere", path) },
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a huge file": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, maxSSHConfig+1))
		},
		"a damaged block": func(path string) error {
			return os.WriteFile(path, []byte("# banger "+tagOf(t, "/srv/b")+" end\n"), 0o600)
		},
	} {
		home := t.TempDir()
		must(t, os.Mkdir(home+"/.ssh", 0o700))
		must(t, prepare(home+"/.ssh/config"))
		before := must1(os.Lstat(home + "/.ssh/config"))(t)
		a, _ := sshApp("/srv/b", home)
		for _, do := range []func() error{a.installSSH, a.uninstallSSH} {
			if err := do(); err == nil || !strings.Contains(err.Error(), home) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := must1(os.Lstat(home + "/.ssh/config"))(t); after.Mode() != before.Mode() || after.Size() != before.Size() {
			t.Errorf("%s was changed", name)
		}
	}
	a, _ := sshApp("/srv/b", "")
	if err := a.installSSH(); errkind.Of(err) != errkind.Usage {
		t.Errorf("without HOME: %v", err)
	}
}

func tagOf(t *testing.T, root string) string {
	t.Helper()
	a, _ := sshApp(root, "/")
	return must1(a.paths())(t).Tag
}
