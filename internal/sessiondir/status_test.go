package sessiondir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const aBootID = "3e0f4f4e-55a6-4a8e-9ff3-0d2b6c1d2e3f"

func TestStatus(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadStatus(OSDir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadStatus of none = %v", err)
	}
	for _, want := range []Status{
		{State: Starting},
		{
			State: Exited, BootID: aBootID, Supervisor: Process{1, 0}, Command: Process{maxPID, 1<<64 - 1}, Code: 255,
			StartedAt: t0, EndedAt: t0.Add(1500 * time.Microsecond), StdinOpen: true,
		},
		{State: Failed, Signal: "RTMIN+1", Stage: "check", Message: `no such command: "größe" 試`},
	} {
		if err := want.Write(dir); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadStatus(OSDir(dir)); err != nil || got != want {
			t.Errorf("ReadStatus = %+v, %v, want %+v", got, err, want)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "status")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("its mode is %v, %v", fi.Mode(), err)
	}
}

// What a supervisor says is made fit to be shown; what cannot be is no status.
func TestStatusWrite(t *testing.T) {
	dir := t.TempDir()
	local := time.FixedZone("", 3600)
	s := Status{State: Failed, Stage: "st\x1b[31mart", Message: "two\nlines \xff" + strings.Repeat("é", maxMessage), StartedAt: t0.In(local)}
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := ReadStatus(OSDir(dir))
	if err != nil || got.Stage != "st?[31mart" || !strings.HasPrefix(got.Message, "two lines ?éé") || len(got.Message) > maxMessage || got.StartedAt != t0 {
		t.Errorf("ReadStatus = %+v, %v", got, err)
	}
	for _, s := range []Status{
		{},
		{State: "dead"},
		{State: Running, BootID: "this one"},
		{State: Running, Command: Process{PID: -1}},
		{State: Exited, Code: 256},
		{State: Exited, Signal: "kill"},
		{State: Exited, EndedAt: t0.AddDate(9000, 0, 0)},
	} {
		if err := s.Write(dir); err == nil {
			t.Errorf("Write of %+v succeeded", s)
		}
	}
	if again, err := ReadStatus(OSDir(dir)); err != nil || again != got {
		t.Errorf("after that ReadStatus = %+v, %v", again, err)
	}
}

// The end of a session is told on a full disk too, once.
func TestStatusSpare(t *testing.T) {
	dir := t.TempDir()
	running := Status{State: Running, Command: Process{PID: 7, Start: 1}}
	if err := errors.Join(running.Write(dir), Reserve(dir)); err != nil {
		t.Fatal(err)
	}
	data := []byte(`{"state": "exited", "code": 3}`)
	if err := useSpare(dir, data); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadStatus(OSDir(dir)); err != nil || got.State != Exited || got.Code != 3 {
		t.Errorf("ReadStatus = %+v, %v", got, err)
	}
	if err := useSpare(dir, data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second time: %v", err)
	}
}

// The longest status fits into the room that is kept for it.
func TestStatusLongest(t *testing.T) {
	dir := t.TempDir()
	s := Status{State: Failed, Stage: strings.Repeat("<", maxStage), Message: strings.Repeat("<", maxMessage)}
	if err := s.Write(dir); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, statusFile))
	if err != nil || fi.Size() > maxWritten {
		t.Errorf("a status of %v bytes, %v", fi.Size(), err)
	}
	if got, err := ReadStatus(OSDir(dir)); err != nil || got.Message != s.Message {
		t.Errorf("ReadStatus = %+v, %v", got, err)
	}
}

func TestStatusGarbled(t *testing.T) {
	for _, text := range []string{
		"", "{", "null", "[]", `{"state":"running"} {}`,
		`{"state":"dead"}`, `{"state":1}`, `{"state":"running","code":"0"}`, `{"state":"running","code":1.5}`,
		`{"state":"running","code":-1}`, `{"state":"running","code":99999999999999999999}`,
		`{"state":"running","command":{"pid":4194305}}`, `{"state":"running","command":{"pid":1,"start":-1}}`,
		`{"state":"running","supervisor":7}`, `{"state":"running","boot_id":"` + strings.ToUpper(aBootID) + `"}`,
		`{"state":"exited","signal":"K\nL"}`, `{"state":"failed","stage":"\u001b[2J"}`, `{"state":"failed","message":"a\nb"}`,
		`{"state":"failed","message":"` + strings.Repeat("x", maxMessage+1) + `"}`,
		`{"state":"exited","started_at":"yesterday"}`, `{"state":"exited","ended_at":"1969-01-01T00:00:00Z"}`,
		`{"state":"running"}` + strings.Repeat(" ", maxStatus),
		strings.Repeat("[", maxStatus),
	} {
		s, err := ReadStatus(memDir{"status": []byte(text)})
		if !errors.Is(err, ErrGarbled) || s != (Status{}) || len(err.Error()) > 300 || err.Error() != clean(err.Error(), 300) {
			t.Errorf("ReadStatus of %q = %+v, %v", short(text), s, err)
		}
	}
}

// What is planted where a file should be is not followed, nor waited for.
func TestOSDir(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(secret, path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		path := filepath.Join(dir, "stdout.log")
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		var o output
		err := Read(t.Context(), OSDir(dir), query(Stdout, Stderr), o.emit(t))
		if err == nil || o.text.Len() > 0 || strings.Count(err.Error(), path) != 1 {
			t.Errorf("Read of a %s = %q, %v", name, o.text.String(), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
