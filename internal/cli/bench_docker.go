package cli

import (
	"bytes"
	"context"
	"errors"
	"time"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

const (
	// dockerImage is what containers stand on.
	dockerImage = "debian:bookworm-slim"
	// dockerAnswers is how long Docker is waited for.
	dockerAnswers = 2 * time.Second
	// dockerRuns bounds one container.
	dockerRuns = time.Minute
)

// docker is a container that runs the same command.
func (b *bench) docker(ctx context.Context) (func(context.Context) (lap, error), error) {
	b.p.brief("look for Docker")
	if _, err := hostcmd.Look("docker"); err != nil {
		return nil, errkind.New(errkind.Host, "Docker is not installed")
	}
	if err := b.askDocker(ctx, "info"); err != nil {
		return nil, wrapHost(ctx, "Docker does not answer", err)
	}
	if err := b.askDocker(ctx, "image", "inspect", dockerImage); err != nil {
		err := wrapHost(ctx, "Docker does not have image "+dockerImage, nil)
		return nil, errkind.WithHint(err, "docker pull "+dockerImage)
	}
	return b.dockerRun, nil
}

// askDocker asks Docker something that it answers soon.
func (b *bench) askDocker(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, dockerAnswers, errkind.New(errkind.Timeout, "not within %s", dockerAnswers))
	defer cancel()
	_, err := hostcmd.Cmd{Argv: append([]string{"docker"}, args...), Env: b.env.Vars}.Run(ctx)
	return err
}

// wrapHost says that the host lacks something, unless ctx has ended.
func wrapHost(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return errkind.New(errkind.Host, "%s", what)
	}
	return errkind.New(errkind.Host, "%s: %w", what, err)
}

// dockerRun runs one container to its end whatever happens: docker deletes what it
// has made only if it is left alone.
func (b *bench) dockerRun(ctx context.Context) (l lap, err error) {
	if ctx.Err() != nil {
		return l, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dockerRuns)
	defer cancel()
	began := time.Now()
	w := &lineTimer{began: began}
	argv := append([]string{"docker", "run", "--rm", "--pull=never", dockerImage}, benchArgv...)
	_, err = hostcmd.Cmd{Argv: argv, Env: b.env.Vars, Stdout: w}.Run(ctx)
	l = lap{answer: w.took, gone: time.Since(began)}
	if err == nil && w.took == 0 {
		err = errors.New("docker run printed nothing")
	}
	return l, err
}

// A lineTimer takes the time at which the first line is whole.
type lineTimer struct {
	began time.Time
	took  time.Duration // 0: there was none yet
}

func (w *lineTimer) Write(p []byte) (int, error) {
	if w.took == 0 && bytes.IndexByte(p, '\n') >= 0 {
		w.took = time.Since(w.began)
	}
	return len(p), nil
}
