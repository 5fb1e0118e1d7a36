package hostcmd

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A tied program and an attached one die with whoever started them, even by
// SIGKILL.
func TestTied(t *testing.T) {
	argv := []string{"sh", "-c", "echo $$; exec sleep 60"}
	var err error
	switch os.Getenv("HOSTCMD_TIED") {
	case "tied":
		_, err = Cmd{Argv: argv, Stdout: os.Stdout, Tied: true}.Run(context.Background())
	case "attached":
		_, err = Attached{Argv: argv, Env: Env(), Stdout: os.Stdout}.Run(context.Background())
	default:
		t.Run("tied", func(t *testing.T) { testDiesWith(t, "tied") })
		t.Run("attached", func(t *testing.T) { testDiesWith(t, "attached") })
		return
	}
	t.Fatal("it ended by itself: ", err)
}

func testDiesWith(t *testing.T, how string) {
	parent := exec.Command(os.Args[0], "-test.run=^TestTied$")
	parent.Env = append(os.Environ(), "HOSTCMD_TIED="+how)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((10 * time.Second).Milliseconds()))
	if n != 1 || err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Errorf("the program lives on: %d, %v", n, err)
	}
}
