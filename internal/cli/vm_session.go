package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const sessionHelp = `Start commands in machines that outlive whoever started them.

A session goes on when you go away, and when the daemon or the agent in the
machine is started anew. What it writes is kept in the machine and can be read
at any time, also when the machine is off; input can be sent to it, and you can
attach to it and leave again.

A session is named by its machine, and in it by its name or any unambiguous
beginning of its id.`

func (a *app) vmSession() *cobra.Command {
	c := &cobra.Command{
		Use:   "session",
		Short: "Commands that outlive whoever started them",
		Long:  sessionHelp,
	}
	c.AddCommand(
		a.sessionStart(), a.sessionList(), a.sessionShow(), a.sessionLogs(),
		a.sessionSend(), a.sessionAttach(), a.sessionStop(), a.sessionKill(), a.sessionDelete(),
	)
	return asGroup(c)
}

// sessionStatuses are those of sessions, in the order of their lives.
var sessionStatuses = []string{"starting", "running", "stopping", "exited", "failed"}

// alive are the statuses of sessions that have not ended.
var alive = sessionStatuses[:3]

// sessionLine is a command line about a session, for hints.
func sessionLine(verb, vm, session string) string {
	return "banger vm session " + verb + " " + errkind.Quote(vm) + " " + errkind.Quote(session)
}

// theSession names one for people.
func theSession(vm, session string) string { return "session " + session + " in " + vm }

// oneSession takes a machine and a session.
func oneSession(c *cobra.Command, args []string) error {
	return exactly(2, "a machine and a session")(c, args)
}

// someSessions takes a machine and sessions in it.
func someSessions(c *cobra.Command, args []string) error {
	if len(args) < 2 {
		return errkind.WithHint(usage("%q takes a machine and one session or more", c.CommandPath()), c.CommandPath()+" --help")
	}
	return nil
}

// eachSession does something to several sessions of a machine at once, and
// reports a line for each that it was done to. Args are the machine and the
// sessions.
func (a *app) eachSession(ctx context.Context, args []string, verb, done string, do func(context.Context, *client.Client, string) (*api.Session, error)) error {
	vm := args[0]
	b := batch[*api.Session]{
		doing: func(ref string) string { return verb + " " + theSession(vm, ref) },
		done:  done,
		do: func(ctx context.Context, c *client.Client, ref string, _ func(*api.Progress)) (*api.Session, error) {
			return do(ctx, c, ref)
		},
		doc: func(list []*api.Session) proto.Message { return &api.ListSessionsResponse{Sessions: list} },
	}
	return b.run(ctx, a, unique(args[1:]))
}

// commandLine is a session's command as a shell takes it.
func commandLine(s *api.Session) string {
	return strings.TrimSpace(quoteAll(append([]string{s.GetCommand()}, s.GetArgs()...)))
}
