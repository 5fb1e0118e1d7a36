package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func (a *app) sessionShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show VM SESSION",
		Short:             "Show everything about a session",
		Example:           "  banger vm session show web build\n  banger vm session show --json web build",
		Args:              oneSession,
		ValidArgsFunction: a.completeSessions(false),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("show "+theSession(args[0], args[1]), a.showSession(c.Context(), args[0], args[1]))
		},
	}
}

func (a *app) showSession(ctx context.Context, vm, ref string) error {
	var s *api.Session
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Session.ShowSession(ctx, connect.NewRequest(&api.ShowSessionRequest{Vm: vm, Session: ref}))
		if err == nil {
			s = resp.Msg.GetSession()
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(s)
	}
	return a.printFacts(sessionFacts(s, time.Now()))
}

func sessionFacts(s *api.Session, now time.Time) facts {
	var f facts
	f.add("name", s.GetName())
	f.add("id", s.GetId())
	f.add("machine", s.GetVm())
	f.add("status", s.GetStatus())
	if s.GuestPid != nil {
		f.add("process", strconv.Itoa(int(s.GetGuestPid())))
	}
	if s.ExitCode != nil {
		f.add("exit code", strconv.Itoa(int(s.GetExitCode())))
	}
	f.add("ended by signal", s.GetExitSignal())
	if s.GetFailedStage() != "" {
		f.add("failed", s.GetFailedStage()+": "+s.GetFailedMessage())
	}
	f.add("last error", s.GetLastError())
	f.add("command", commandLine(s))
	f.add("directory", s.GetCwd())
	f.add("user", s.GetUser())
	f.add("environment", labelText(s.GetEnv()))
	f.add("input", s.GetStdin())
	f.add("tags", strings.Join(s.GetTags(), "\n"))
	f.add("requires", strings.Join(s.GetRequiredCommands(), "\n"))
	f.add("log limit", size(s.GetLogLimitBytes()))
	f.add("created", moment(s.GetCreatedAt(), now))
	f.add("started", moment(s.GetStartedAt(), now))
	f.add("ended", moment(s.GetEndedAt(), now))
	return f
}
