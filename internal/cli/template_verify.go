package cli

import (
	"context"
	"sync"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/errkind"
)

const verifyHelp = `Read all of a template and compare it with what it was made as. Of one that is
damaged no machine is made any more; it goes with the next prune, unless a
machine stands on it.`

const verifyExamples = `  banger template verify 3f9a
  banger template verify --all`

func (a *app) templateVerify() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:               "verify [flags] TEMPLATE…",
		Short:             "Tell whether templates are what they were made as",
		Long:              verifyHelp,
		Example:           verifyExamples,
		ValidArgsFunction: a.completeTemplates(),
		Args: func(c *cobra.Command, args []string) error {
			if all {
				return none(c, args)
			}
			return atLeastOne("one template or more, or --all")(c, args)
		},
		RunE: func(c *cobra.Command, ids []string) error {
			if all {
				return a.verifyAll(c.Context())
			}
			return a.verify(c.Context(), ids, false)
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "verify every template")
	return c
}

func (a *app) verifyAll(ctx context.Context) error {
	list, err := a.listTemplates(ctx)
	if err != nil {
		return cannot("verify all templates", err)
	}
	if len(list.Templates) == 0 {
		a.note("no templates")
		if a.json {
			return a.printDoc(list)
		}
		return nil
	}
	var ids []string
	for _, t := range list.Templates {
		ids = append(ids, t.Id)
	}
	return a.verify(ctx, ids, true)
}

// verify verifies templates, one after the other: each is gigabytes to be read.
// One that is gone is no failure if it may be.
func (a *app) verify(ctx context.Context, ids []string, mayBeGone bool) error {
	var mu sync.Mutex
	return a.eachTemplate(ctx, ids, "verify", "ok", func(ctx context.Context, c *client.Client, id string) (*api.Template, error) {
		mu.Lock()
		defer mu.Unlock()
		resp, err := c.Template.VerifyTemplate(ctx, connect.NewRequest(&api.VerifyTemplateRequest{Template: id}))
		switch {
		case err == nil:
			return resp.Msg.Template, nil
		case mayBeGone && errkind.Of(err) == errkind.NotFound:
			return nil, nil
		}
		return nil, err
	})
}

// eachTemplate does something to several templates and reports a line for each
// of those that it was done to. What do returns may be nil: it needs no word.
func (a *app) eachTemplate(ctx context.Context, ids []string, verb, done string, do func(context.Context, *client.Client, string) (*api.Template, error)) error {
	b := batch[namedTemplate]{
		doing: func(id string) string { return verb + " template " + shortID(id) }, done: done,
		do: func(ctx context.Context, c *client.Client, id string, _ func(*api.Progress)) (namedTemplate, error) {
			t, err := do(ctx, c, id)
			return namedTemplate{t}, err
		},
		doc: func(list []namedTemplate) proto.Message {
			var doc api.ListTemplatesResponse
			for _, n := range list {
				doc.Templates = append(doc.Templates, n.Template)
			}
			return &doc
		},
	}
	return b.run(ctx, a, unique(ids))
}

// namedTemplate is a template as a [batch] has it.
type namedTemplate struct{ *api.Template }

// GetName returns what a template is called in a line.
func (n namedTemplate) GetName() string { return shortID(n.Id) }
