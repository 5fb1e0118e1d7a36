// Command shell boots the lab and runs a command in it, or root's shell if none
// is given. It is run in the project's directory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"banger/internal/guest/wire"
	"banger/test/lab"
)

func main() {
	var o lab.Options
	flag.StringVar(&o.Share, "share", "", "directory that the lab sees at /share")
	flag.StringVar(&o.Data, "data", "", "ext4 image that the lab sees at /parts/cache")
	flag.Parse()
	code, err := run(context.Background(), o, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(ctx context.Context, o lab.Options, argv []string) (code int, err error) {
	cache, err := filepath.Abs(".cache/lab")
	if err != nil {
		return 0, err
	}
	if o.Parts, err = lab.Parts(ctx, cache); err != nil {
		return 0, err
	}
	bin, err := os.MkdirTemp("", "banger-lab-bin-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	o.Agent = filepath.Join(bin, "banger-agent")
	build := exec.Command("go", "build", "-o", o.Agent, "./cmd/banger-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	began := time.Now()
	l, err := lab.Boot(ctx, o)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	fmt.Fprintf(os.Stderr, "lab: up after %s\n", time.Since(began).Round(100*time.Millisecond))
	c := lab.Command{Argv: argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if len(argv) == 0 {
		c.Argv = []string{"bash", "-l"}
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		before, err := term.MakeRaw(fd)
		if err != nil {
			return 0, err
		}
		defer term.Restore(fd, before)
		c.Terminal = &wire.Terminal{Term: os.Getenv("TERM"), Size: size(fd)}
		c.Resized = resizes(fd)
	}
	return l.Run(ctx, c)
}

func size(fd int) *wire.WindowSize {
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return nil
	}
	return &wire.WindowSize{Cols: uint32(cols), Rows: uint32(rows)}
}

func resizes(fd int) <-chan *wire.WindowSize {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	sizes := make(chan *wire.WindowSize)
	go func() {
		for range changed {
			sizes <- size(fd)
		}
	}()
	return sizes
}
