package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/doctor"
	"banger/internal/store"
	"banger/internal/vm"
)

func TestKVMModule(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "",
		"flags\t\t: fpu svm\n":             "kvm_amd",
		"bugs\t: svm\nflags : fpu vmx x\n": "kvm_intel",
		"flags\t: fpu svm_lock\nvmx flags\t: vnmi\n": "",
	} {
		if got := kvmModule(text); got != want {
			t.Errorf("kvmModule(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestBound(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:A455 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1
   1: 00000000:A455 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12 1
   2: 0200007F:A455 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 13 1
   3: 0100007F:A456 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 14 1
   4: 0100007F:A455 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 15 1
   5: 00000000000000000000000000000000:A455 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 16 1
   6: 0100007F:
`
	for loopback, want := range map[bool][]string{true: {"11", "12", "16"}, false: {"12", "16"}} {
		if got := bound(text, 42069, loopback); !slices.Equal(got, want) {
			t.Errorf("bound, loopback %t: %q, want %q", loopback, got, want)
		}
	}
}

// We are found by a port that we have.
func TestPortHolder(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := doctor.Holder{Taken: true, PID: os.Getpid(), Name: strings.TrimSpace(string(comm))}
	if got := portHolder("/proc", port, true); got != want {
		t.Errorf("portHolder = %+v, want %+v", got, want)
	}
	if got := portHolder("/proc", port, false); got.Taken {
		t.Errorf("on all addresses: %+v", got)
	}
}

func TestProcessesOf(t *testing.T) {
	proc := t.TempDir()
	for pid, text := range map[string]string{
		"10":   "Name:\tqemu\nState:\tS (sleeping)\nUid:\t1005\t1005\t1005\t1005\n",
		"11":   "Name:\tqemu\nState:\tZ (zombie)\nUid:\t1005\t1005\t1005\t1005\n",
		"12":   "Name:\tsh\nState:\tS (sleeping)\nUid:\t1010\t1010\t1010\t1010\n",
		"13":   "Name:\tsh\nState:\tS (sleeping)\nUid:\t0\t0\t0\t0\n",
		"self": "Name:\tqemu\nUid:\t1005\n",
	} {
		if err := errors.Join(os.Mkdir(filepath.Join(proc, pid), 0o755), os.WriteFile(filepath.Join(proc, pid, "status"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(proc, "14"), 0o755); err != nil { // has just ended
		t.Fatal(err)
	}
	got := processesOf(proc, vm.UIDRange{Base: 1000, Count: 10})
	if want := []doctor.Process{{PID: 10, UID: 1005, Name: "qemu"}}; !slices.Equal(got, want) {
		t.Errorf("processesOf = %+v, want %+v", got, want)
	}
}

// ground returns places whose parent others may pass.
func ground(t *testing.T) config.Paths {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "bgr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	p, err := config.NewPaths(root)
	if err != nil {
		t.Fatal(err)
	}
	p.Run = filepath.Join(root, "run")
	return p
}

// files lists all that there is under a root, with the sums of its content. The
// log and the index that SQLite makes for a reader belong to the database.
func files(t *testing.T, root string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "-wal") || strings.HasSuffix(path, "-shm") {
			return nil
		}
		line := path
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(text))
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func find(d *api.Doctor, name string) api.Check {
	for _, c := range d.Checks {
		if c.Name == name {
			return c
		}
	}
	return api.Check{}
}

// Doctor leaves no trace: neither where there is nothing, nor where there are
// records, a directory of no machine, and a configuration that is wrong.
func TestDoctorChangesNothing(t *testing.T) {
	p := ground(t)
	ctx := context.Background()
	d := Doctor(ctx, DoctorOptions{Paths: p})
	if c := find(d, "database"); c.Status != api.CheckOK || c.Detail != "there is none yet" {
		t.Errorf("%+v", c)
	}
	if got := files(t, p.Root); len(got) != 1 {
		t.Errorf("made: %q", got)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(p.VMs(), "ffffffff"), 0o711), os.WriteFile(p.Config, []byte("\nnosuch = 1\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(p.Database(), store.Options{Now: time.Now, UIDs: vm.UIDRange{Base: 5000, Count: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, vm.VM{Name: "web", Spec: vm.Spec{Image: "tiny", Kernel: "k", Driver: "fake", VCPUs: 1, MemoryBytes: 64 << 20, DiskBytes: 16 << 20, Network: "none"}, Token: strings.Repeat("0", 32)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := files(t, p.Root)
	d = Doctor(ctx, DoctorOptions{Paths: p})
	if c := find(d, "database"); !strings.HasSuffix(c.Detail, "; 1 machine") {
		t.Errorf("%+v", c)
	}
	if c := find(d, "leftovers"); c.Status != api.CheckWarn || !strings.Contains(c.Detail, filepath.Join(p.VMs(), "ffffffff")) {
		t.Errorf("%+v", c)
	}
	if c := find(d, "configuration"); c.Status != api.CheckFail || !strings.Contains(c.Detail, p.Config+":2: ") {
		t.Errorf("%+v", c)
	}
	if after := files(t, p.Root); !slices.Equal(before, after) {
		t.Errorf("before\n%q\nafter\n%q", before, after)
	}
}

func TestReadRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "banger.db")
	if _, err := readRecords(context.Background(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a database: %v", err)
	}
	old, err := os.ReadFile("../store/testdata/0001.db")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if vms, err := readRecords(context.Background(), path); !errors.Is(err, doctor.ErrOlder) {
		t.Errorf("version 1: %v, %v", vms, err)
	}
}
