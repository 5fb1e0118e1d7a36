// Command bangerd owns the host's side of every machine of one root. It can be
// killed at any instant: machines go on, and the next one finds them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/errkind"
	"banger/internal/version"
)

// exitLocked says that another daemon has the root (sysexits.h, EX_TEMPFAIL):
// who started this one only has to wait for the other's socket.
const exitLocked = 75

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("bangerd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	root := fs.String("root", os.Getenv("BANGER_ROOT"), "keep state, cache and configuration under `DIR`")
	show := fs.Bool("version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *show {
		fmt.Fprintln(stdout, "bangerd", version.String())
		return 0
	}
	if fs.Arg(0) == "doctor" {
		return doctor(*root, fs.Args()[1:], stdout, stderr)
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "bangerd: unexpected argument %q\n", fs.Arg(0))
		return 2
	}
	switch err := serve(*root, stderr); {
	case err == nil:
		return 0
	case errors.Is(err, daemon.ErrLocked):
		fmt.Fprintf(stderr, "bangerd: %v\n", err)
		return exitLocked
	default:
		fmt.Fprintf(stderr, "bangerd: %v\n", err)
		for _, h := range errkind.Hints(err) {
			fmt.Fprintf(stderr, "hint: %s\n", h)
		}
		return exitCode(err)
	}
}

func exitCode(err error) int {
	switch errkind.Of(err) {
	case errkind.Usage:
		return 2
	case errkind.Host:
		return 5
	}
	return 1
}

func serve(root string, stderr io.Writer) error {
	syscall.Umask(0o077)
	if os.Geteuid() != 0 {
		return errkind.WithHint(errkind.New(errkind.Host, "the daemon must be started by root"), "sudo banger daemon start")
	}
	paths, err := config.NewPaths(root)
	if err != nil {
		return err
	}
	conf, err := config.Load(paths.Config)
	if err != nil {
		return err
	}
	level, err := logLevel(os.Getenv("BANGER_LOG_LEVEL"))
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d, err := daemon.Open(ctx, daemon.Options{
		Paths: paths, Config: conf, Mechanisms: daemon.Real, SudoUID: os.Getenv("SUDO_UID"), Log: log,
	})
	if err != nil {
		return err
	}
	log.Info("serving", "version", version.Version, "root", paths.Root, "socket", paths.Socket())
	err = d.Serve(ctx)
	log.Info("stopping; machines go on")
	return errors.Join(err, d.Close())
}

func logLevel(text string) (slog.Level, error) {
	var l slog.Level
	if text == "" {
		return slog.LevelInfo, nil
	}
	if err := l.UnmarshalText([]byte(strings.ToUpper(text))); err != nil {
		return l, errkind.New(errkind.Usage, "BANGER_LOG_LEVEL is %q; it takes debug, info, warn or error", text)
	}
	return l, nil
}
