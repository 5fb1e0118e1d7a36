package agent

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

// selfProgram is this program, wherever that is: the initramfs is out of reach.
const selfProgram = "/proc/self/exe"

// Files are transferred by a child of the agent's that runs as the user who has
// logged in, as commands do: what that user may do with files the kernel
// decides, and what a client may say is read without root's rights.
var sftpArgs = []string{"banger-agent", "sftp"}

// stdioConn is the standard input and output.
type stdioConn struct{}

func (stdioConn) Read(b []byte) (int, error)  { return os.Stdin.Read(b) }
func (stdioConn) Write(b []byte) (int, error) { return os.Stdout.Write(b) }
func (stdioConn) Close() error                { return errors.Join(os.Stdin.Close(), os.Stdout.Close()) }

// serveSFTP is the child. It returns the exit code.
func serveSFTP() int {
	// Started as /proc/self/exe it would be "exe" in the guest's ps.
	os.WriteFile("/proc/self/comm", []byte("banger-agent"), 0)
	s, err := sftp.NewServer(stdioConn{})
	if err == nil {
		err = s.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sftp:", err)
		return 1
	}
	return 0
}
