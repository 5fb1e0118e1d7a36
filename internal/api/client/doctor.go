package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"banger/internal/api"
	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/hostcmd"
	"banger/internal/version"
)

// Doctor has the daemon's program, found as by [Ensure], look at the host. No
// daemon is needed, nor root, nor is one started.
func Doctor(ctx context.Context, o Options) (*api.Doctor, error) {
	s := starter{Options: o}
	path, err := s.program()
	if err != nil {
		return nil, err
	}
	argv := []string{path}
	if o.Paths.Root != "" {
		argv = append(argv, "--root", o.Paths.Root)
	}
	argv = append(argv, "doctor", "--json", "--client", version.Version)
	// It ends badly, too, when it has found that machines cannot run.
	out, err := hostcmd.Cmd{Argv: argv, Dir: "/", Env: append(hostcmd.Env(), o.Env...), Tied: true}.Run(ctx)
	var exit *hostcmd.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	var d api.Doctor
	if jerr := json.Unmarshal(out, &d); jerr != nil || d.Checks == nil {
		if err == nil {
			err = fmt.Errorf("%s printed no findings", path)
		}
		return nil, errkind.WithHint(err, path+" --version")
	}
	return &d, nil
}

// LockHolder returns the process that has these places for its own: a daemon
// that runs, starts, or hangs.
func LockHolder(p config.Paths) (pid int, ok bool) { return holder(p.Lock()) }
