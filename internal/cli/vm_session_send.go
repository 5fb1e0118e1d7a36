package cli

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"banger/internal/api"
	"banger/internal/errkind"
)

const sessionSendHelp = `Write to a session's input without attaching to it: TEXT and a newline, a file,
or our own input ("-"), these byte for byte and of any size.

What is sent is written whole, never mixed with what others send meanwhile.
Without --timeout it waits until the command has read it all. An empty TEXT
writes nothing, also no newline.

With --eof the session's input ends after it, or at once if nothing is sent.`

const sessionSendExamples = `  banger vm session send web agent '{"id":1,"add":[2,3]}'
  banger vm session send --eof web sorter --file words
  tar -c . | banger vm session send web unpack - --eof`

// sendFlags say what is sent.
type sendFlags struct {
	file      string
	bare      bool // without a newline
	eof       bool
	given     bool // there is a file
	vm, ref   string
	text      []string // at most one
	sizeBytes int64    // of what is sent; negative: not known
}

func (a *app) sessionSend() *cobra.Command {
	var f sendFlags
	c := &cobra.Command{
		Use:               "send [flags] VM SESSION [TEXT | --file FILE | -]",
		Short:             "Write to a session's input",
		Long:              sessionSendHelp,
		Example:           sessionSendExamples,
		Args:              func(c *cobra.Command, args []string) error { return f.check(c, args) },
		ValidArgsFunction: a.completeSessions(false, "running"),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("send to "+theSession(f.vm, f.ref), a.send(c.Context(), &f))
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&f.file, "file", "", "send this `FILE`")
	c.Flags().BoolVarP(&f.bare, "no-newline", "n", false, "send TEXT as it is")
	c.Flags().BoolVar(&f.eof, "eof", false, "end the session's input after it")
	if err := c.MarkFlagFilename("file"); err != nil {
		panic("internal error: " + err.Error())
	}
	return c
}

// check takes a machine, a session and one thing to send.
func (f *sendFlags) check(c *cobra.Command, args []string) error {
	if len(args) < 2 {
		return oneSession(c, args)
	}
	f.vm, f.ref, f.text = args[0], args[1], args[2:]
	f.given = c.Flags().Changed("file")
	switch {
	case len(f.text) > 1:
		return errkind.WithHint(usage("%q takes one TEXT, and got %d words", c.CommandPath(), len(f.text)),
			sessionLine("send", f.vm, f.ref)+" "+errkind.Quote(strings.Join(f.text, " ")))
	case len(f.text) == 1 && f.given:
		return usage("TEXT and --file exclude each other")
	case len(f.text) == 0 && !f.given && !f.eof:
		return errkind.WithHint(usage(`%q takes TEXT, "--file FILE", "-" or --eof`, c.CommandPath()), c.CommandPath()+" --help")
	}
	return nil
}

// open returns what is to be sent.
func (f *sendFlags) open(in io.Reader) (io.ReadCloser, error) {
	f.sizeBytes = -1
	switch {
	case f.given:
		file, err := os.Open(f.file)
		if err != nil {
			return nil, errkind.Wrap(errkind.Usage, err)
		}
		if fi, err := file.Stat(); err == nil && fi.Mode().IsRegular() {
			f.sizeBytes = fi.Size()
		}
		return file, nil
	case len(f.text) == 1 && f.text[0] == "-":
		return io.NopCloser(in), nil
	}
	text := strings.Join(f.text, "")
	if text != "" && !f.bare {
		text += "\n"
	}
	f.sizeBytes = int64(len(text))
	return io.NopCloser(strings.NewReader(text)), nil
}

// answerTime is how much later than the command's time is over the daemon's
// word about it is waited for.
const answerTime = 3 * time.Second

func (a *app) send(ctx context.Context, f *sendFlags) error {
	data, err := f.open(a.In)
	if err != nil {
		return err
	}
	defer data.Close()
	in := &api.SendIn{Vm: f.vm, Session: f.ref, Eof: f.eof}
	if a.timeout > 0 {
		in.Timeout = durationpb.New(a.timeout) // only the other end knows how much was written then
	}
	ctx, cancel := a.limitLater(ctx, answerTime)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	p.brief("wait until " + theSession(f.vm, f.ref) + " has read it")
	sent, err := c.SendSession(ctx, in, data)
	p.stop()
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printDoc(sent.Answer); err != nil {
			return err
		}
	}
	if !sent.Answer.GetTimedOut() {
		return nil
	}
	whole := strconv.FormatInt(f.sizeBytes, 10)
	if f.sizeBytes < 0 {
		if whole = strconv.FormatInt(sent.Bytes, 10); !sent.Whole {
			whole += " or more"
		}
	}
	return errkind.New(errkind.Timeout, "not done within %s: %d of %s bytes were written", a.timeout, sent.Answer.GetBytesWritten(), whole)
}
