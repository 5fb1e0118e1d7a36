package cli

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

const sshHelp = `Log in to a machine that runs, or run a command in it, with this host's ssh.

The command's words reach it as they are. The exit code is the command's: 128+n
if signal n ended it, 126 or 127 if it could not be run, 125 if ssh ended with
255, which is how it says that it failed itself.

"banger ssh-config" makes plain ssh, scp, rsync and git reach machines, too.`

const sshExamples = `  banger vm ssh web
  banger vm ssh web -- tail -f /var/log/messages
  banger vm ssh -L 8080:127.0.0.1:80 web`

// sshFlags are those of vm ssh.
type sshFlags struct {
	user          string
	tty, none     bool
	local, remote []string
}

func (a *app) vmSSH() *cobra.Command {
	var f sshFlags
	c := &cobra.Command{
		Use:               "ssh [flags] VM [-- COMMAND…]",
		Short:             "Log in to a machine with the host's ssh",
		Long:              sshHelp,
		Example:           sshExamples,
		Args:              oneBeforeDashes,
		ValidArgsFunction: a.completeVMs(false),
		RunE: func(c *cobra.Command, args []string) error {
			return a.sshCommand(c.Context(), args[0], f, args[1:])
		},
	}
	a.dashesBefore(c, 1)
	fs := c.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.user, "user", "u", "root", "`USER` of the guest to log in as")
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fs.BoolVar(&f.none, "no-tty", false, "give it none, also at a terminal")
	fs.StringArrayVarP(&f.local, "local-forward", "L", nil, "forward a port of this host, as in ssh's `PORT:HOST:PORT`; may be repeated")
	fs.StringArrayVarP(&f.remote, "remote-forward", "R", nil, "forward a port of the guest, likewise")
	return c
}

func (a *app) sshCommand(ctx context.Context, vm string, f sshFlags, argv []string) error {
	if f.tty && f.none {
		return usage("--tty and --no-tty exclude each other")
	}
	if f.user == "" || strings.HasPrefix(f.user, "-") {
		return usage("--user %q is no user's name", f.user)
	}
	ctx, cancel := a.limit(ctx)
	defer cancel()
	return guestError(doing(argv, vm), a.runSSH(ctx, vm, f, argv))
}

func (a *app) runSSH(ctx context.Context, vm string, f sshFlags, argv []string) error {
	name, err := a.running(ctx, vm)
	if err != nil {
		return err
	}
	if err := checkSSH(ctx); err != nil {
		return err
	}
	args, err := a.sshArgs(name, f, argv)
	if err != nil {
		return err
	}
	code, err := hostcmd.Attached{Argv: args, Env: a.env.Vars, Stdin: a.In, Stdout: a.Out, Stderr: a.Err}.Run(ctx)
	switch {
	case err != nil:
		return err
	case code == sshFailed:
		return errors.New("ssh ended with 255: the connection failed, or the command has that exit code")
	case code != 0:
		return exitError(code)
	}
	return nil
}

// sshFailed is what OpenSSH's client ends with when the failure is its own.
const sshFailed = 255

// running returns the name of a machine that runs; one that was paused goes on.
func (a *app) running(ctx context.Context, ref string) (name string, err error) {
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return "", err
	}
	defer c.Close()
	p.brief("wait for the daemon")
	resp, err := c.VM.Show(ctx, connect.NewRequest(&api.ShowRequest{Vm: ref}))
	if err != nil {
		return "", err
	}
	v := resp.Msg.GetVm()
	if v.GetState() == "paused" {
		_, err := c.VM.Resume(ctx, connect.NewRequest(&api.ResumeRequest{Vm: v.GetId()}))
		return v.GetName(), err
	}
	return v.GetName(), notRunning(v)
}

// notRunning is why nobody can log in to a machine, in the words by which the
// daemon refuses; nil if somebody can. Left to the daemon, the refusal would
// come by way of ssh, which makes 255 of it.
func notRunning(v *api.VM) error {
	if v.GetState() == "running" {
		return nil
	}
	state := v.GetState()
	if v.GetStateReason() != "" {
		state += ": " + v.GetStateReason()
	}
	err := errkind.New(errkind.Conflict, "machine %q is not running (%s)", v.GetName(), state)
	if v.GetState() == "stopped" || v.GetState() == "created" {
		err = errkind.WithHint(err, "banger vm start "+v.GetName())
	}
	return err
}

// checkSSH tells whether this host has an ssh that works, so that a broken one
// is not taken for the command's failure.
func checkSSH(ctx context.Context) error {
	if _, err := hostcmd.Look("ssh"); err != nil {
		return errkind.WithHint(err, "apt-get install -y openssh-client")
	}
	_, err := hostcmd.Run(ctx, "ssh", "-V")
	if err != nil && ctx.Err() == nil {
		err = errkind.WithHint(errkind.New(errkind.Host, "this host's ssh does not work: %w", err),
			"apt-get install -y --reinstall openssh-client")
	}
	return err
}

// sshArgs is the command line of ssh. The user's own configuration stays out of
// it: what it says of other hosts must not change how machines are reached.
func (a *app) sshArgs(name string, f sshFlags, argv []string) ([]string, error) {
	options, err := a.sshOptions(name)
	if err != nil {
		return nil, err
	}
	args := []string{"ssh", "-F", "none", "-l", f.user}
	for _, o := range options {
		if o.key != "User" {
			args = append(args, "-o", o.key+"="+o.value)
		}
	}
	args = append(args,
		"-o", "PreferredAuthentications=publickey", // nothing else would be let in, and nobody is asked
		"-o", "SendEnv=LANG LC_*",
		"-o", "LogLevel=ERROR") // that a connection was closed is no news
	for _, spec := range f.local {
		args = append(args, "-L", spec)
	}
	for _, spec := range f.remote {
		args = append(args, "-R", spec)
	}
	switch t := a.wantTTY(f.tty, f.none); {
	case t == nil:
		args = append(args, "-T")
	case f.tty:
		args = append(args, "-tt")
	default:
		args = append(args, "-t")
	}
	args = append(args, name+dnsSuffix)
	if len(argv) > 0 {
		args = append(args, remoteCommand(argv))
	}
	return args, nil
}

// runWords is a script for the guest's shell that runs its arguments as a
// program and ends with its exit code. SSH servers say when a signal has ended
// what they run, but OpenSSH's client then ends with 255, as if the connection
// had failed; a shell ends with 128+n. What it would say about that is left out,
// the program's own error output is not. Ctrl-C is for the program.
const runWords = `exec 3>&2 2>/dev/null; trap : INT; (exec "$@" 2>&3 3>&-); exit $?`

// remoteCommand is what makes the guest's login shell, to which SSH leaves it,
// run argv as it is. Every word is quoted: one that a shell knows as a keyword,
// or that looks like an assignment, is a word like any other.
func remoteCommand(argv []string) string {
	words := []string{"exec", "/bin/sh", "-c"} // to shells of all kinds the same
	for _, arg := range append([]string{runWords, "sh"}, argv...) {
		words = append(words, "'"+strings.ReplaceAll(arg, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}
