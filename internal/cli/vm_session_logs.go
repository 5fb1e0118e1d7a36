package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const sessionLogsHelp = `Print what a session wrote, byte for byte, also when its machine is off: the
last 200 lines of its standard output, if nothing else is asked for.

With "--stream both" each line stands behind "stdout | " or "stderr | ". Where
the log's limit has made the oldest part go, a line tells so.

With -f it goes on with what comes until the session ends, also over a restart
of the daemon: no byte is missing, and none comes twice.

With --json there is {"logs": [...]} with session, stream, path, content, offset
(of the content in all that the stream ever held) and mark (the content tells
what is missing) of each part; where that is no UTF-8 content is null, and
content_base64 holds it. With -f each part is a document on a line of its own.`

const sessionLogsExamples = `  banger vm session logs web build
  banger vm session logs -f --stream both web build
  banger vm session logs --since 10m --all web build`

// logStreams are what can be asked for.
var logStreams = []string{"stdout", "stderr", "both"}

func (a *app) sessionLogs() *cobra.Command {
	req := &api.SessionLogsRequest{}
	var since string
	c := &cobra.Command{
		Use:               "logs [flags] VM SESSION",
		Short:             "Print what a session wrote",
		Long:              sessionLogsHelp,
		Example:           sessionLogsExamples,
		Args:              oneSession,
		ValidArgsFunction: a.completeSessions(false),
		RunE: func(c *cobra.Command, args []string) error {
			req.Vm, req.Session = args[0], args[1]
			err := checkLogs(c, req, since)
			if err != nil {
				return err
			}
			l := &logReader{app: a, req: req, seen: make(seen)}
			return cannot("print the log of "+theSession(req.Vm, req.Session), l.run(c.Context()))
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&req.Stream, "stream", logStreams[0], "`STREAM`: stdout, stderr or both")
	f.Int32VarP(&req.Tail, "tail", "n", 0, "begin with the last `LINES` (200)")
	f.BoolVar(&req.All, "all", false, "begin with the oldest line that is kept")
	f.StringVar(&since, "since", "", "only what was written since this `TIME`, as in 10m, or 2006-01-02T15:04:05Z")
	f.BoolVarP(&req.Follow, "follow", "f", false, "go on with what comes")
	completeFlag(c, "stream", cobra.FixedCompletions(logStreams, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// checkLogs refuses what makes no sense, and completes the request.
func checkLogs(c *cobra.Command, req *api.SessionLogsRequest, since string) error {
	if !slices.Contains(logStreams, req.Stream) {
		return usage("--stream %q: there is %s", req.Stream, strings.Join(logStreams, ", "))
	}
	if req.All && c.Flags().Changed("tail") {
		return usage("--all and --tail exclude each other")
	}
	if !c.Flags().Changed("since") {
		return nil
	}
	t, err := parseSince(since, time.Now())
	req.Since = t
	return err
}

// parseSince reads a time, or a length of time before now.
func parseSince(s string, now time.Time) (*timestamppb.Timestamp, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return timestamppb.New(now.Add(-d)), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, usage("--since %q: write a time ago, as in 10m, or one as in %s", s, now.UTC().Format(time.RFC3339))
	}
	return timestamppb.New(t), nil
}

// logReader prints one log.
type logReader struct {
	*app
	req  *api.SessionLogsRequest
	to   logWriter
	seen seen
	p    *progress
}

func (l *logReader) run(ctx context.Context) error {
	ctx, cancel := l.limit(ctx)
	defer cancel()
	l.p = l.progress()
	defer l.p.stop()
	l.to = l.logWriter(l.req.Stream == "both", l.req.Follow)
	if !l.req.Follow {
		return l.to.end(l.attempt(ctx, l.p, false, l.read, func() {}))
	}
	again := sessionLine("logs -f", l.req.Vm, l.req.Session)
	ctx, done := l.whileRead(ctx)
	defer done()
	say := func(line string) { l.warn("%s", line) }
	err := l.to.end(l.again(ctx, l.p, say, l.read))
	if err != nil && wentAway(err, true) && ctx.Err() == nil {
		return errkind.WithHint(err, again)
	}
	return err
}

// read prints what one call gives; again, it goes on where it was.
func (l *logReader) read(ctx context.Context, c *client.Client, came func()) error {
	l.p.stop()
	since := maps.Clone(l.seen)
	l.goOn()
	stream, err := c.Session.SessionLogs(ctx, connect.NewRequest(l.req))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		came()
		m := stream.Msg()
		l.req.Session = m.GetSession() // what has that name later may be another
		m.Content = l.seen.next(since, m.GetStream(), m.GetOffset(), m.GetContent(), m.GetMark())
		if err := l.to.write(m); err != nil {
			return err
		}
	}
	return stream.Err()
}

// goOn makes the request go on where we are. A stream that had nothing to show
// begins as was asked for.
func (l *logReader) goOn() {
	l.req.FromStdout, l.req.FromStderr = l.seen["stdout"], l.seen["stderr"]
}
