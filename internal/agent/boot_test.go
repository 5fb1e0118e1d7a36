package agent

import (
	"errors"
	"os"
	"strings"
	"testing"

	"banger/internal/guest/wire"
)

func TestInstall(t *testing.T) {
	for _, systemd := range []bool{true, false} {
		tr, root, _ := newTree(t)
		b := identityBundle()
		if err := install(tr, b, systemd); err != nil {
			t.Fatal(err)
		}
		got, err := readBundle(root + runBundle)
		if err != nil || got.Token != b.Token {
			t.Errorf("bundle is %+v (%v)", got, err)
		}
		for name, mode := range map[string]os.FileMode{runDir: os.ModeDir | 0o700, runBundle: 0o600} {
			if fi, err := os.Stat(root + name); err != nil || fi.Mode() != mode {
				t.Errorf("%s: %v (%v), want %v: it holds a secret", name, fi.Mode(), err, mode)
			}
		}
		// Read through the link that makes systemd start it.
		text := content(t, root+unitWanted+"/"+unitName)
		if found := strings.Contains(text, "ExecStart="+runAgent); found != systemd {
			t.Errorf("systemd %v: unit is %q", systemd, text)
		}
		if fi, err := os.Stat(root + runAgent); systemd && (err != nil || fi.Mode() != 0o755 || fi.Size() == 0) {
			t.Errorf("agent: %v (%v)", fi, err)
		}
		if _, err := os.Lstat(root + "/run/systemd"); !systemd && !os.IsNotExist(err) {
			t.Errorf("without systemd /run/systemd is there (%v)", err)
		}
	}
}

func TestReadBundleBounds(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "large", strings.Repeat(" ", wire.MaxBundle+1))
	for _, name := range []string{"large", "none"} {
		if b, err := readBundle(dir + "/" + name); err == nil {
			t.Errorf("%s: read %+v", name, b)
		}
	}
}

func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("load module a: no"), errors.New("find disk b:\tno"))
	if got := oneLine(err); got != "load module a: no; find disk b: no" {
		t.Errorf("oneLine = %q", got)
	}
}

func TestMainUsage(t *testing.T) {
	for _, args := range [][]string{{"banger-agent"}, {"banger-agent", "serve"}, {"banger-agent", "serve", "daemon"}} {
		if got := Main(args); got != 2 {
			t.Errorf("Main(%q) = %d, want 2", args, got)
		}
	}
}
