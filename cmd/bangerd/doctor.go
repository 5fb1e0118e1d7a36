package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"banger/internal/config"
	"banger/internal/daemon"
)

// exitHost says that machines cannot run here, as banger's own code does.
const exitHost = 5

// doctor prints what is found on this host, as one JSON document.
func doctor(root string, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("bangerd doctor", flag.ContinueOnError)
	fs.SetOutput(stderr)
	asJSON := fs.Bool("json", false, "print one JSON document")
	client := fs.String("client", "", "`VERSION` of the banger that asks")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if fs.NArg() > 0 || !*asJSON {
		fmt.Fprintln(stderr, "bangerd: doctor takes --json; people run: banger doctor")
		return 2
	}
	paths, err := config.NewPaths(root)
	if err != nil {
		fmt.Fprintf(stderr, "bangerd: %v\n", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	d := daemon.Doctor(ctx, daemon.DoctorOptions{Paths: paths, Client: *client})
	enc := json.NewEncoder(stdout)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d); err != nil {
		fmt.Fprintf(stderr, "bangerd: %v\n", err)
		return 1
	}
	if !d.OK {
		return exitHost
	}
	return 0
}
