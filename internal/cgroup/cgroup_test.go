package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/errkind"
)

// standIn is a directory with the files of a group; an empty value is an empty
// file, "-" none.
func standIn(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if text == "-" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What a top of the hierarchy offers is told from its files.
func TestCheckControllers(t *testing.T) {
	tests := []struct {
		what  string
		files map[string]string
		want  string // part of the error; empty: none
	}{
		{"the host's root", map[string]string{"cgroup.type": "-", "cgroup.procs": "1\n2\n"}, ""},
		{"a container whose init makes groups", map[string]string{"cgroup.type": "domain\n", "cgroup.procs": ""}, ""},
		{"a container where they are enabled", map[string]string{"cgroup.subtree_control": "cpu memory pids\n", "cgroup.type": "domain\n"}, ""},
		{"a container with processes at its root", map[string]string{"cgroup.type": "domain\n", "cgroup.procs": "1\n"}, `processes of its own, as in a container, so the kernel gives groups below it no controller "memory"`},
		{"one of the two is enabled", map[string]string{"cgroup.subtree_control": "memory\n", "cgroup.type": "domain\n", "cgroup.procs": "1\n"}, `no controller "pids"`},
		{"without controllers", map[string]string{"cgroup.controllers": ""}, `offers no controller "memory"`},
		{"without pids", map[string]string{"cgroup.controllers": "cpu memory\n"}, `offers no controller "pids"`},
		{"no group at all", map[string]string{"cgroup.controllers": "-"}, "no such file"},
	}
	for _, tt := range tests {
		files := map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n", "cgroup.subtree_control": ""}
		for name, text := range tt.files {
			files[name] = text
		}
		err := checkControllers(standIn(t, files))
		if tt.want == "" && err != nil || tt.want != "" && (errkind.Of(err) != errkind.Host || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
}

// On a host whose hierarchy is of another version there are no groups, and
// nothing fails for that.
func TestNoCgroup2(t *testing.T) {
	for top, want := range map[string]string{
		t.TempDir():                        "not of version 2 alone",
		filepath.Join(t.TempDir(), "none"): "no such file",
	} {
		g := New(Options{Tag: "abcdef", Top: top})
		if err := g.Err(); errkind.Of(err) != errkind.Host || !strings.Contains(err.Error(), want) {
			t.Errorf("Err = %v, want %q", err, want)
		}
		if dir, err := g.Make("00000001", 1<<30, 10); dir != "" || err != nil {
			t.Errorf("Make = %q, %v", dir, err)
		}
		if p := g.Path("00000001"); p != "" {
			t.Errorf("Path = %q", p)
		}
		if limit, killed := g.OutOfMemory("00000001"); limit != 0 || killed {
			t.Errorf("OutOfMemory = %d, %t", limit, killed)
		}
		if err := errors.Join(g.Remove(t.Context(), "00000001"), g.Prune(nil)); err != nil {
			t.Errorf("Remove and Prune: %v", err)
		}
	}
}

// Who wanted memory is told from the counts of a group.
func TestOutOfMemory(t *testing.T) {
	tests := []struct {
		events, max string
		limit       int64
		killed      bool
	}{
		{"low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n", "1048576\n", 0, false},
		{"low 0\nhigh 0\nmax 90\noom 1\noom_kill 0\n", "1048576\n", 0, false}, // it failed without a kill
		{"low 0\nhigh 0\nmax 90\noom 1\noom_kill 2\noom_group_kill 1\n", "1048576\n", 1 << 20, true},
		{"max 90\noom 0\noom_kill 1\n", "1048576\n", 0, true}, // the host's want
		{"oom 1\noom_kill 1\n", "max\n", 0, true},
		{"-", "-", 0, false},
	}
	for _, tt := range tests {
		g := &Groups{dir: t.TempDir()}
		if err := os.Rename(standIn(t, map[string]string{"memory.events": tt.events, "memory.max": tt.max}), g.path("00000001")); err != nil {
			t.Fatal(err)
		}
		if limit, killed := g.OutOfMemory("00000001"); limit != tt.limit || killed != tt.killed {
			t.Errorf("%q: OutOfMemory = %d, %t, want %d, %t", tt.events, limit, killed, tt.limit, tt.killed)
		}
	}
}

// A limit that cannot be set leaves nothing, and is told of.
func TestMakeFails(t *testing.T) {
	top := standIn(t, map[string]string{"cgroup.subtree_control": "memory pids"})
	g := &Groups{top: top, dir: filepath.Join(top, "banger-abcdef")}
	// Nothing makes files in a directory that is no group.
	if dir, err := g.Make("00000001", 1<<30, 10); dir != "" || err == nil || !errors.Is(g.Err(), err) {
		t.Errorf("Make = %q, %v; Err = %v", dir, err, g.Err())
	}
	if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", g.dir, err)
	}
}
