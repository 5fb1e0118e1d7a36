package cli

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

const completionHelp = `Print a script that makes a shell complete banger's commands, flags and the
names of your machines, images, kernels and templates. Completing starts no
daemon.

For bash it takes the package bash-completion.`

const completionExamples = `  source <(banger completion bash)
  banger completion bash > /etc/bash_completion.d/banger
  banger completion zsh > /usr/local/share/zsh/site-functions/_banger
  banger completion fish > ~/.config/fish/completions/banger.fish`

// completionCommand stands in the place of cobra's own.
func (a *app) completionCommand() *cobra.Command {
	write := map[string]func(*cobra.Command, *bytes.Buffer) error{
		"bash": func(root *cobra.Command, b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"zsh":  func(root *cobra.Command, b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"fish": func(root *cobra.Command, b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	}
	shells := slices.Sorted(maps.Keys(write))
	return &cobra.Command{
		Use:               "completion bash|zsh|fish",
		Short:             "Print what makes a shell complete words",
		Long:              completionHelp,
		Example:           completionExamples,
		Args:              exactly(1, "one shell: bash, zsh or fish"),
		ValidArgsFunction: once(cobra.FixedCompletions(shells, cobra.ShellCompDirectiveNoFileComp)),
		RunE: func(c *cobra.Command, args []string) error {
			w, ok := write[args[0]]
			if !ok {
				return usage("no completion for %q; there is bash, zsh and fish", args[0])
			}
			var b bytes.Buffer
			if err := w(c.Root(), &b); err != nil {
				return err
			}
			return a.print(b.Bytes())
		},
	}
}

// completeLimit is how long completing a word may take.
const completeLimit = 500 * time.Millisecond

// asked completes words with what a daemon answers in time, if one runs: it
// starts none, and says nothing of what went wrong. What is on the command
// line already is left out.
func (a *app) asked(words func(context.Context, *client.Client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		paths, err := a.paths()
		if err != nil {
			return nil, none
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
		defer cancel()
		c := client.New(paths.Socket())
		defer c.Close()
		found, err := words(ctx, c)
		if err != nil {
			return nil, none
		}
		return slices.DeleteFunc(found, func(w string) bool {
			return slices.ContainsFunc(args, func(arg string) bool { return len(w) > len(arg) && w[:len(arg)+1] == arg+"\t" })
		}), none
	}
}

// once completes the first argument alone.
func once(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, word)
	}
}

// word is a completion with what a shell shows beside it.
func word(w, about string) string { return clean(w) + "\t" + clean(about) }

// completeVMs completes machines' names: of all machines, or of those in one
// of the given states.
func (a *app) completeVMs(several bool, states ...string) cobra.CompletionFunc {
	f := a.asked(func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.VM.List(ctx, connect.NewRequest(&api.ListRequest{All: true, States: states}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, v := range list.Msg.Vms {
			names = append(names, word(v.Name, v.State))
		}
		return names, nil
	})
	if several {
		return f
	}
	return once(f)
}

// completeSessions completes a machine's name and then those of its sessions,
// or of those in one of the given statuses.
func (a *app) completeSessions(several bool, statuses ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return a.completeVMs(false)(cmd, args, typed)
		}
		if len(args) > 1 && !several {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		f := a.asked(func(ctx context.Context, c *client.Client) ([]string, error) {
			list, err := c.Session.ListSessions(ctx, connect.NewRequest(&api.ListSessionsRequest{Vm: args[0], Statuses: statuses}))
			if err != nil {
				return nil, err
			}
			var names []string
			for _, s := range list.Msg.Sessions {
				names = append(names, word(s.Name, s.Status))
			}
			return names, nil
		})
		return f(cmd, args[1:], typed)
	}
}

// completeTags completes tags that sessions have.
func (a *app) completeTags() cobra.CompletionFunc {
	return a.asked(func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.Session.ListSessions(ctx, connect.NewRequest(&api.ListSessionsRequest{}))
		if err != nil {
			return nil, err
		}
		found := make(map[string]bool)
		for _, s := range list.Msg.Sessions {
			for _, tag := range s.Tags {
				found[word(tag, "")] = true
			}
		}
		return slices.Sorted(maps.Keys(found)), nil
	})
}

// completeImages completes images that are there.
func (a *app) completeImages() cobra.CompletionFunc {
	return a.asked(func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.Image.ListImages(ctx, connect.NewRequest(&api.ListImagesRequest{}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, i := range list.Msg.Images {
			names = append(names, word(i.Name, i.Source))
		}
		return names, nil
	})
}

// completeKernels completes kernels that are there.
func (a *app) completeKernels() cobra.CompletionFunc {
	return a.asked(func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.Kernel.ListKernels(ctx, connect.NewRequest(&api.ListKernelsRequest{}))
		if err != nil {
			return nil, err
		}
		var names []string
		for _, k := range list.Msg.Kernels {
			names = append(names, word(k.Name, k.Version))
		}
		return names, nil
	})
}

// completeTemplates completes templates that are there.
func (a *app) completeTemplates() cobra.CompletionFunc {
	return a.asked(func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.Template.ListTemplates(ctx, connect.NewRequest(&api.ListTemplatesRequest{}))
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, t := range list.Msg.Templates {
			ids = append(ids, word(shortID(t.Id), t.Image))
		}
		return ids, nil
	})
}

// completeLabels completes labels that machines have, as KEY and as KEY=VALUE.
func (a *app) completeLabels() cobra.CompletionFunc {
	return a.asked(func(ctx context.Context, c *client.Client) ([]string, error) {
		list, err := c.VM.List(ctx, connect.NewRequest(&api.ListRequest{All: true}))
		if err != nil {
			return nil, err
		}
		found := make(map[string]bool)
		for _, v := range list.Msg.Vms {
			for key, value := range v.Labels {
				found[word(key, "any value")] = true
				found[word(key+"="+value, "")] = true
			}
		}
		return slices.Sorted(maps.Keys(found)), nil
	})
}

// completeFlag makes f complete the values of a flag.
func completeFlag(c *cobra.Command, name string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(name, f); err != nil {
		panic("internal error: " + err.Error())
	}
}

// completeSpec makes the flags complete that say what machine is wanted.
func (a *app) completeSpec(c *cobra.Command) {
	completeFlag(c, "image", a.completeImages())
	completeFlag(c, "kernel", a.completeKernels())
	completeFlag(c, "label", a.completeLabels())
}
