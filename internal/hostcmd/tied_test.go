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

// A tied program dies with whoever started it, even by SIGKILL.
func TestTied(t *testing.T) {
	if os.Getenv("HOSTCMD_TIED") != "" {
		_, err := Cmd{Argv: []string{"sh", "-c", "echo $$; exec sleep 60"}, Stdout: os.Stdout, Tied: true}.Run(context.Background())
		t.Fatal("it ended by itself: ", err)
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestTied$")
	parent.Env = append(os.Environ(), "HOSTCMD_TIED=1")
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
