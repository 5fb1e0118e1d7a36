package cli

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const doctorHelp = `Look at everything that a machine needs of this host, and say what is missing
and which command mends it. Nothing is changed, and no daemon is needed.

  ✓  as it should be
  !  machines run, but not as they should
  ✗  machines cannot run

The exit code is 0 if machines can run, else 5.`

const doctorExamples = `  banger doctor
  banger doctor --json`

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "doctor",
		Short:             "Tell whether machines can run here, and what is missing",
		Long:              doctorHelp,
		Example:           doctorExamples,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.examine(c.Context())
			if err != nil {
				return cannot("look at the host", err)
			}
			if err := a.printDoctor(d); err != nil {
				return err
			}
			if !d.OK {
				return exitError(codeHost)
			}
			return nil
		},
	}
}

// examine has the daemon's program look at the host. Its hints work where they
// are pasted.
func (a *app) examine(ctx context.Context) (*api.Doctor, error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	o, err := a.daemon()
	if err != nil {
		return nil, err
	}
	p.brief("look at the host")
	d, err := client.Doctor(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, c := range d.Checks {
		for i, h := range c.Hints {
			c.Hints[i] = a.hint(h)
		}
	}
	return d, nil
}

// marks are the sign of each status, the same in ASCII, and its colour, as SGR
// parameters.
var marks = map[api.CheckStatus]struct{ sign, ascii, sgr string }{
	api.CheckOK:   {"✓", "+", "32"},
	api.CheckWarn: {"!", "!", "33"},
	api.CheckFail: {"✗", "x", "31"},
}

// mark is the sign of a status as standard output shows it.
func (a *app) mark(s api.CheckStatus) string {
	m, ok := marks[s]
	if !ok {
		return "?"
	}
	sign := m.sign
	if !a.utf8() {
		sign = m.ascii
	}
	if _, tty := terminal(a.Out); tty && a.colorful() {
		return "\x1b[" + m.sgr + "m" + sign + "\x1b[0m"
	}
	return sign
}

// printDoctor writes a line for each check, its hints under it, and a last
// line that says what it comes to.
func (a *app) printDoctor(d *api.Doctor) error {
	if a.json {
		return a.printValue(d)
	}
	width := 0
	for _, c := range d.Checks {
		width = max(width, utf8.RuneCountInString(clean(c.Name)))
	}
	var b strings.Builder
	for _, c := range d.Checks {
		name := clean(c.Name)
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(name)+2)
		b.WriteString(a.mark(c.Status) + " " + name + pad + clean(c.Detail) + "\n")
		for _, h := range c.Hints {
			b.WriteString("    hint: " + clean(h) + "\n")
		}
	}
	b.WriteString(clean(d.Summary) + "\n")
	return a.print([]byte(b.String()))
}
