package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/errkind"
)

func TestLoad(t *testing.T) {
	tests := []struct {
		text, want string // want: part of the error, or empty
	}{
		{"", ""},
		{"memory = \"2G\"\nstop_grace = \"3s\"", ""},
		{"\nmemroy = \"2G\"", `:2: unknown key "memroy"; the nearest known one is "memory"`},
		{"vcpus = 1\n# it\n \"disk\" = \"1M\"", `:3: disk = "1M"`},
		{"memory = \"-1\"", "no size"},
		{"memory = 5", "memory"},
		{`memory = "0"`, "at least 64M"},
		{`template_max = "0"`, ""},
		{`template_max = 0`, ""},
		{`template_max = "20G"`, ""},
		{`template_max = "-1G"`, "no size"},
		{`template_unused = "0s"`, ""},
		{`template_unused = "-1h"`, "template_unused takes"},
		{`template_unused = "30d"`, `unknown unit "d"`},
		{`auto_pause = "0s"`, ""},
		{`auto_pause = "10m"`, ""},
		{`auto_pause = "999ms"`, "auto_pause takes at least 1s"},
		{`auto_pause = "-1m"`, "auto_pause takes at least 1s"},
		{"session_log_max = \"1K\"", "at least 64K"},
		{"vcpus = -1", "vcpus = -1"},
		{"vcpus = [", ":1: "},
		{"cache = \"here\"", "absolute path"},
		{"uid_base = 5", "uid_base"},
		{"uid_count = 100000", "uid_count"},
		{`subnet = "10.9.0.0/22"`, ""},
		{`subnet = "10.9.0.1/22"`, "as in"},
		{`subnet = "fd00::/64"`, "as in"},
		{`subnet = "0.0.0.0/8"`, "for hosts"},
		{`subnet = "127.0.0.0/8"`, "for hosts"},
		{`subnet = "169.254.0.0/16"`, "for hosts"},
		{`subnet = "224.0.0.0/8"`, "for hosts"},
		{`subnet = "10.9.0.0/30"`, "as in"},
		{`subnet = "here"`, "no subnet"},
		{"uid_base = 100000\nuid_count = 100000", ""},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path)) {
			t.Errorf("Load of %q = %v, want %q", tt.text, err, tt.want)
		}
		if err != nil && errkind.Of(err) != errkind.Usage {
			t.Errorf("Load of %q has kind %s", tt.text, errkind.Of(err))
		}
	}
	c, err := Load(filepath.Join(t.TempDir(), "none"))
	if _, bad := c.check(); err != nil || c != Default() || bad != nil || time.Duration(c.Grace) != 10*time.Second {
		t.Errorf("without a file: %+v, %v", c, err)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]Size{"1": 1, "512M": 512 << 20, "8G": 8 << 30, "8GiB": 8 << 30, "8gb": 8 << 30, "2k": 2048, "1T": 1 << 40} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "-1G", "1.5G", "G", "9999999999999T", "8 G", "0x10", "1GG", "lots"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", s, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("8G")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if again, err := ParseSize(n.String()); n <= 0 || err != nil || again != n {
			t.Errorf("%q is %d, written %q, read %d, %v", s, n, n, again, err)
		}
	})
}

func TestPaths(t *testing.T) {
	a, err := NewPaths("/tmp/a")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewPaths("/tmp/b")
	if a.Tag == b.Tag || a.Run == b.Run || len(a.Tag) != 6 {
		t.Errorf("two roots share a tag: %q %q", a.Tag, b.Tag)
	}
	if a.UIDBase(Default()) == b.UIDBase(Default()) || a.UIDBase(Config{UIDBase: 5000}) != 5000 {
		t.Errorf("user ids of two roots: %d and %d", a.UIDBase(Default()), b.UIDBase(Default()))
	}
	long, _ := NewPaths("/" + strings.Repeat("x", 300))
	if n := len(long.VM("01234567").AgentSock()); n > 107 {
		t.Errorf("the socket's path takes %d bytes", n)
	}
	if def, _ := NewPaths(""); def.Socket() != "/run/banger/daemon/banger.sock" {
		t.Errorf("default socket %s", def.Socket())
	}
}
