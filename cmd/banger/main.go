// Command banger gives Linux machines with their own kernel. It parses, calls
// bangerd, which it starts if none answers, and prints.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"banger/internal/cli"
)

// passOn names the variables that a daemon gets which this process starts.
var passOn = []string{"BANGER_LOG_LEVEL", "SUDO_UID"}

func main() {
	// Output that nobody reads is an error that is dealt with, not the end. Not
	// ignored: that would go on in a daemon that is started.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	fi, err := os.Stat("/run/systemd/system") // sd_booted(3)
	os.Exit(cli.Run(context.Background(), os.Args[1:],
		cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
		cli.Env{
			Name:    os.Args[0],
			Vars:    os.Environ(),
			Root:    os.Geteuid() == 0,
			Systemd: err == nil && fi.IsDir(),
			PassOn:  passOn,
		}))
}
