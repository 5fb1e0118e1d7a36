package cli

import (
	"context"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const sessionListHelp = `List sessions: of a machine, or of all machines.

Tags and statuses narrow the list: a session must have all of the tags and be in
one of the statuses. Of a machine that is off the list has what was last known.`

func (a *app) sessionList() *cobra.Command {
	req := &api.ListSessionsRequest{}
	c := &cobra.Command{
		Use:     "list [flags] [VM]",
		Aliases: []string{"ls"},
		Short:   "List sessions",
		Long:    sessionListHelp,
		Example: "  banger vm session list\n  banger vm session list --status running --tag ci web",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactly(1, "one machine, or none for all")(c, args)
		},
		ValidArgsFunction: a.completeVMs(false),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Vm = args[0]
			}
			return cannot("list sessions", a.printSessions(c.Context(), req))
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&req.Statuses, "status", nil, "only sessions in this `STATUS`; may be repeated")
	f.StringArrayVar(&req.Tags, "tag", nil, "only sessions with this `TAG`; may be repeated")
	completeFlag(c, "status", cobra.FixedCompletions(sessionStatuses, cobra.ShellCompDirectiveNoFileComp))
	completeFlag(c, "tag", a.completeTags())
	return c
}

func (a *app) printSessions(ctx context.Context, req *api.ListSessionsRequest) error {
	var list *api.ListSessionsResponse
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Session.ListSessions(ctx, connect.NewRequest(req))
		if err == nil {
			list = resp.Msg
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printDoc(list)
	case len(list.Sessions) > 0:
		return a.printTable(sessionTable(list.Sessions, req.Vm == "", time.Now()))
	case len(req.Statuses)+len(req.Tags) > 0:
		a.note("no such sessions; to see all: %s", a.hint("banger vm session list"))
	default:
		a.note("no sessions; how to start one: %s", a.hint("banger vm session start --help"))
	}
	return nil
}

// sessionTable has what tells sessions apart: also their machines, if there may
// be several.
func sessionTable(sessions []*api.Session, withVM bool, now time.Time) *table {
	t := &table{head: []string{"NAME", "STATUS", "PID", "EXIT", "AGE", "COMMAND"}, color: sessionColor}
	if withVM {
		t.head = append([]string{"VM"}, t.head...)
	}
	for _, s := range sessions {
		pid := ""
		if s.GuestPid != nil {
			pid = strconv.Itoa(int(s.GetGuestPid()))
		}
		cells := []string{s.GetName(), s.GetStatus(), pid, exitText(s), age(s.GetCreatedAt(), now), commandLine(s)}
		if withVM {
			cells = append([]string{s.GetVm()}, cells...)
		}
		t.add(cells...)
	}
	return t
}

// exitText is how a session ended: its exit code, or the signal that ended it.
func exitText(s *api.Session) string {
	switch {
	case s.GetExitSignal() != "":
		return s.GetExitSignal()
	case s.ExitCode != nil:
		return strconv.Itoa(int(s.GetExitCode()))
	}
	return ""
}

// sessionColor colours statuses, wherever they stand in the table: nothing else
// there is called so but by chance, which only is colourful.
func sessionColor(_ int, cell string) string {
	switch cell {
	case "running":
		return "32" // green
	case "failed":
		return "31" // red
	case "exited":
		return "2" // faint
	case "starting", "stopping":
		return "33" // yellow: on its way
	}
	return ""
}
