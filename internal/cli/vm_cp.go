package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/errkind"
	"banger/internal/transfer"
)

const cpHelp = `Copy files and directories into a machine that runs, or out of it.

One side is VM:PATH; a relative PATH begins at /root. A file here whose name has
a colon is written ./a:b. A directory is copied with all that is in it, into DST
if that is a directory, else as DST; SRC/. is what is in SRC. "-" is standard
input or output.

Permissions, times and symbolic links are kept, owners are not. What is no file,
directory or link is passed over with a warning. Nothing stands at its place
before it is whole. A copy that was interrupted goes on with --resume; a file of
the same size and time is taken for the same then.`

const cpExamples = `  banger vm cp index.html web:/srv/
  banger vm cp web:/etc/os-release .
  banger vm cp ./src/. web:src
  banger vm cp web:/var/log/dpkg.log - | tail`

func (a *app) vmCp() *cobra.Command {
	var resume bool
	c := &cobra.Command{
		Use:               "cp [flags] SRC… DST",
		Short:             "Copy files into a machine or out of it",
		Long:              cpHelp,
		Example:           cpExamples,
		Args:              atLeastTwo,
		ValidArgsFunction: a.completeCp,
		RunE: func(c *cobra.Command, args []string) error {
			return a.cp(c.Context(), args, resume)
		},
	}
	c.Flags().BoolVar(&resume, "resume", false, "go on with a copy that was interrupted")
	return c
}

func atLeastTwo(c *cobra.Command, args []string) error {
	if len(args) < 2 {
		return errkind.WithHint(usage("%q takes what to copy and where to", c.CommandPath()), c.CommandPath()+" --help")
	}
	return nil
}

// completeCp completes machines' names up to the colon, and files here.
func (a *app) completeCp(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if strings.ContainsAny(typed, ":/.") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, _ := a.completeVMs(true)(c, args, typed)
	var out []string
	for _, n := range names {
		name, about, _ := strings.Cut(n, "\t")
		if strings.HasPrefix(name, typed) {
			out = append(out, name+":\t"+about)
		}
	}
	if len(out) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return out, cobra.ShellCompDirectiveNoSpace
}

// A copying is one run of vm cp.
type copying struct {
	*app
	args    []string // as they were given
	vm      string
	out     bool     // of the machine
	sources []string // paths
	target  string   // path
	names   []string // of sources, in a directory
	resume  bool

	progress *progress
	stage    string
	bytes    int64
	skipped  []skip // at most keptSkips
	skips    int
}

type skip struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

const stream = "-"

// parseCp finds out what is to be copied where to.
func (a *app) parseCp(args []string, resume bool) (*copying, error) {
	c := &copying{app: a, args: args, resume: resume}
	target, sources := args[len(args)-1], args[:len(args)-1]
	vm, path, remote := cutVM(target)
	c.vm, c.target = vm, path
	for _, s := range sources {
		v, path, r := cutVM(s)
		switch {
		case r && remote:
			return nil, errkind.WithHint(usage("both sides are in machines"), a.throughHere(s, target, len(sources))...)
		case !r && !remote:
			return nil, errkind.WithHint(usage("neither %s nor %s is in a machine: write VM:PATH", s, target), "banger vm cp --help")
		case r && c.vm != "" && c.vm != v:
			return nil, usage("%s and %s are two machines", c.vm, v)
		case r:
			c.vm, c.out = v, true
		}
		c.sources = append(c.sources, path)
		c.names = append(c.names, baseName(path))
	}
	return c, c.check()
}

// throughHere is how to copy one file from a machine to another.
func (a *app) throughHere(src, dst string, n int) []string {
	if n != 1 {
		return nil
	}
	return []string{"banger vm cp " + errkind.Quote(src) + " - | " + a.self() + " vm cp - " + errkind.Quote(dst)}
}

// check refuses what cannot be meant.
func (c *copying) check() error {
	seen := make(map[string]bool)
	for i, name := range c.names {
		switch {
		case name != "" && seen[name]:
			return usage("two of what is to be copied are called %s", name)
		case !c.out && c.sources[i] == "", c.out && c.target == "":
			return usage("an empty path names nothing")
		case !c.out && c.sources[i] == stream && len(c.sources) > 1:
			return usage("standard input cannot be copied with others")
		}
		seen[name] = true
	}
	if c.out && c.target == stream && len(c.sources) > 1 {
		return usage("only one file can be copied to standard output")
	}
	if c.streams() && c.resume {
		return usage("--resume: a stream cannot be resumed")
	}
	if c.out && c.target == stream && c.json {
		return usage("--json: standard output is the file")
	}
	return nil
}

// streams reports whether this side is standard input or output.
func (c *copying) streams() bool {
	return c.out && c.target == stream || !c.out && c.sources[0] == stream
}

// cutVM parts VM:PATH. A colon after a slash is one of a path.
func cutVM(s string) (vm, path string, ok bool) {
	vm, path, ok = strings.Cut(s, ":")
	if !ok || vm == "" || strings.Contains(vm, "/") {
		return "", s, false
	}
	return vm, path, true
}

// baseName is what a source is called in the directory to which it is copied;
// empty if its content is meant, or it has no name.
func baseName(path string) string {
	path = strings.TrimRight(path, "/")
	name := path[strings.LastIndexByte(path, '/')+1:]
	if name == "." || name == ".." || name == stream && path == stream {
		return ""
	}
	return name
}

func (a *app) cp(ctx context.Context, args []string, resume bool) error {
	c, err := a.parseCp(args, resume)
	if err != nil {
		return err
	}
	ctx, cancel := a.limit(ctx)
	defer cancel()
	c.progress = a.progress()
	defer c.progress.stop()
	c.stage = "copy " + strings.Join(args[:len(args)-1], " ") + " to " + args[len(args)-1]
	if c.out {
		err = c.pull(ctx)
	} else {
		err = c.push(ctx)
	}
	c.progress.stop()
	if n := c.skips - maxSkips; n > 0 {
		c.warn("%d more are not copied", n)
	}
	if err != nil {
		return c.failed(err)
	}
	if !c.json {
		return nil
	}
	return c.printValue(map[string]any{"bytes": c.bytes, "skipped": append([]skip{}, c.skipped...)})
}

// push copies from here into the machine.
func (c *copying) push(ctx context.Context) error {
	if !c.streams() {
		for _, path := range c.sources {
			if _, err := os.Stat(path); err != nil {
				return &fs.PathError{Op: "read", Path: path, Err: errors.Unwrap(err)}
			}
		}
	}
	cl, err := c.connect(ctx, c.progress)
	if err != nil {
		return err
	}
	defer cl.Close()
	c.progress.stage(c.stage)
	p := client.Push{VM: c.vm, Target: c.target, Names: c.names, Resume: c.resume, Notice: c.notice}
	return cl.Push(ctx, p, func(ctx context.Context, out transfer.Out) error {
		o := transfer.SendOptions{Resume: c.resume, Progress: c.tellProgress, Skipped: c.skip}
		if c.streams() {
			return transfer.SendStream(ctx, out, c.input(ctx), o)
		}
		return transfer.Send(ctx, out, c.sources, o)
	})
}

// input is our standard input, of which a read ends with ctx.
func (c *copying) input(ctx context.Context) io.Reader {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
	go func() {
		// May stay behind in a read.
		_, err := io.CopyBuffer(w, struct{ io.Reader }{c.In}, make([]byte, chunk))
		w.CloseWithError(err)
	}()
	return r
}

// pull copies out of the machine to here.
func (c *copying) pull(ctx context.Context) (err error) {
	var to client.Taker
	if c.streams() {
		to = transfer.NewWriter(stdout{c.app}, func(done, total int64) { c.tellProgress("", done, total) })
	} else {
		r, err := transfer.NewReceiver(c.target, transfer.ReceiveOptions{
			Names: c.names, Resume: c.resume, Progress: c.tellProgress, Skipped: c.skip,
		})
		if err != nil {
			return err
		}
		to = r
		defer func() { err = c.endOf(r, err) }()
	}
	cl, err := c.connect(ctx, c.progress)
	if err != nil {
		return err
	}
	defer cl.Close()
	c.progress.stage(c.stage)
	return cl.Pull(ctx, client.Pull{VM: c.vm, Sources: c.sources, Resume: c.resume, Notice: c.notice}, to)
}

// notice tells what the daemon has to say of the machine.
func (c *copying) notice(line string) { c.warn("%s", line) }

// endOf closes a receiver. What is not whole stays if it can be gone on with.
func (c *copying) endOf(r *transfer.Receiver, err error) error {
	if errors.Is(err, client.ErrInterrupted) {
		return errors.Join(err, r.Close())
	}
	return errors.Join(err, r.Discard())
}

// stdout is our standard output.
type stdout struct{ a *app }

func (s stdout) Write(b []byte) (int, error) {
	if err := s.a.print(b); err != nil {
		return 0, err
	}
	return len(b), nil
}
