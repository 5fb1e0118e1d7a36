package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// dnsSuffix is what machines' names end with for SSH clients; see
// [config.DNSName].
const dnsSuffix = ".vm"

// sshProxy is what SSH clients reach machines by (ProxyCommand). They start it
// for each connection, so it does nothing else and says nothing that is no
// error.
func (a *app) sshProxy() *cobra.Command {
	return &cobra.Command{
		Use:               "ssh-proxy VM",
		Short:             "Join standard input and output to a machine's SSH server",
		Hidden:            true,
		Args:              exactly(1, "one machine"),
		ValidArgsFunction: a.completeVMs(false),
		RunE: func(c *cobra.Command, args []string) error {
			name := strings.TrimSuffix(args[0], dnsSuffix)
			return cannot("reach "+name, a.joinSSH(c.Context(), name))
		},
	}
}

func (a *app) joinSSH(ctx context.Context, name string) error {
	a.quiet = true
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Tunnel(ctx, name, "ssh", a.In, a.output())
}

// output is standard output, which can be closed if it is a file.
func (a *app) output() io.WriteCloser {
	if f, ok := a.Out.(io.WriteCloser); ok {
		return f
	}
	return struct {
		io.Writer
		io.Closer
	}{a.Out, io.NopCloser(nil)}
}
