package handle

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// The test binary is also the process to be found: with helperEnv set it says
// "ready" and then lives until its standard input ends.
const helperEnv = "BANGER_HANDLE_HELPER"

// The main goroutine of a helper must be its first thread.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		os.Exit(m.Run())
	case "leaderless":
		go helperLives()
		// Only this thread, the process's first, ends.
		_, _, errno := unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
		panic(errno)
	}
	helperLives()
}

func helperLives() {
	os.Stdout.WriteString("ready\n")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// start runs exe with arguments until the test ends, or stop is called.
func start(t testing.TB, exe, mode string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	return run(t, cmd)
}

func run(t testing.TB, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("helper said %q, %v", line, err)
	}
	return cmd
}

// self is the path of the test binary, and exe its base name.
func self(t testing.TB) (file, exe string) {
	t.Helper()
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return file, filepath.Base(file)
}

// signature is one that no other process of this host has.
func signature(t *testing.T) vmm.Signature {
	t.Helper()
	_, exe := self(t)
	return vmm.Signature{
		Exe: exe, UID: uint32(os.Getuid()),
		Arg: "-qmp", Next: "unix:" + filepath.Join(t.TempDir(), "api.sock") + ",server=on",
	}
}

// startVMM starts a process that has signature s.
func startVMM(t *testing.T, mode string, s vmm.Signature) *exec.Cmd {
	t.Helper()
	file, _ := self(t)
	return start(t, file, mode, "-M", "microvm", s.Arg, s.Next, "-m", "64")
}

// end kills a process and waits until it is a zombie, which it stays.
func end(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(procPath(cmd.Process.Pid, "stat"))
	if err != nil || !strings.Contains(string(stat), ") Z ") {
		t.Fatalf("it is no zombie: %s, %v", stat, err)
	}
}
