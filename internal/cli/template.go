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

// templateDigits is how much of a template's id people are shown: it is 32
// digits, of which that many tell any two apart.
const templateDigits = 12

func shortID(id string) string { return id[:min(len(id), templateDigits)] }

func (a *app) templateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "template",
		Short: "Frozen machines that others are made of",
	}
	c.AddCommand(a.templateList(), a.templateShow(), a.templateVerify(), a.templateDelete(), a.templatePrune())
	return asGroup(c)
}

func (a *app) templateList() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Aliases:           []string{"ls"},
		Short:             "List templates, and how many machines stand on each",
		Example:           "  banger template list",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return cannot("list templates", a.printTemplates(c.Context()))
		},
	}
}

func (a *app) listTemplates(ctx context.Context) (*api.ListTemplatesResponse, error) {
	var list *api.ListTemplatesResponse
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Template.ListTemplates(ctx, connect.NewRequest(&api.ListTemplatesRequest{}))
		if err == nil {
			list = resp.Msg
		}
		return err
	})
	return list, err
}

func (a *app) printTemplates(ctx context.Context) error {
	list, err := a.listTemplates(ctx)
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printDoc(list)
	case len(list.Templates) == 0:
		a.note("no templates; one is made after a machine of an image has run")
		return nil
	}
	return a.printTable(templateTable(list.Templates, time.Now()))
}

func templateTable(ts []*api.Template, now time.Time) *table {
	t := &table{
		head:  []string{"ID", "IMAGE", "KERNEL", "DRIVER", "VCPUS", "MEMORY", "NETWORK", "SIZE", "CREATED", "USED", "MACHINES", "STATE"},
		color: damageColor,
	}
	for _, x := range ts {
		t.add(shortID(x.Id), x.Image, x.Kernel, x.Driver, number(x.VcpuCount), size(x.MemoryBytes), x.Network, size(x.SizeBytes),
			age(x.CreatedAt, now), lastUse(x, now), strconv.Itoa(len(x.Machines)), templateState(x))
	}
	return t
}

// damageColor colours the last column of a list of templates.
func damageColor(column int, state string) string {
	if column == 11 && state != "ok" {
		return "31" // red
	}
	return ""
}

// number writes a number that a damaged template may not have.
func number(n int32) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(int(n))
}

func lastUse(t *api.Template, now time.Time) string {
	if t.UsedAt == nil {
		return "never"
	}
	return age(t.UsedAt, now)
}

func templateState(t *api.Template) string {
	if t.Damaged != "" {
		return "damaged: " + t.Damaged
	}
	return "ok"
}

func (a *app) templateShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show TEMPLATE",
		Short:             "Show a template, its files and who stands on it",
		Example:           "  banger template show 3f9a",
		Args:              exactly(1, "one template"),
		ValidArgsFunction: once(a.completeTemplates()),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("show template "+args[0], a.showTemplate(c.Context(), args[0]))
		},
	}
}

func (a *app) showTemplate(ctx context.Context, ref string) error {
	var t *api.Template
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Template.ShowTemplate(ctx, connect.NewRequest(&api.ShowTemplateRequest{Template: ref}))
		if err == nil {
			t = resp.Msg.Template
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(t)
	}
	return a.printFacts(templateFacts(t, time.Now()))
}

func templateFacts(t *api.Template, now time.Time) facts {
	var f facts
	f.add("id", t.Id)
	f.add("state", templateState(t))
	f.add("machines", strings.Join(t.Machines, "\n"))
	f.add("image", t.Image)
	f.add("image id", t.ImageId)
	f.add("kernel", t.Kernel)
	f.add("kernel id", t.KernelId)
	f.add("driver", t.Driver)
	f.add("VMM", t.VmmVersion)
	f.add("agent", t.Agent)
	f.add("cpus", number(t.VcpuCount))
	f.add("memory", size(t.MemoryBytes))
	f.add("root disk", size(t.RootBytes))
	f.add("work disk", size(t.WorkBytes))
	f.add("network", t.Network)
	f.add("size", size(t.SizeBytes))
	f.add("created", moment(t.CreatedAt, now))
	used := "never"
	if t.UsedAt != nil {
		used = moment(t.UsedAt, now)
	}
	f.add("used", used)
	f.add("directory", t.Dir)
	f.add("memory file", t.RamPath)
	f.add("state file", t.StatePath)
	f.add("root disk file", t.RootPath)
	f.add("work disk file", t.WorkPath)
	f.add("processor", t.Cpu) // last, for it may be long
	return f
}

func (a *app) templateDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete TEMPLATE…",
		Aliases:           []string{"rm"},
		Short:             "Delete templates that no machine stands on",
		Example:           "  banger template delete 3f9a 77c0",
		Args:              atLeastOne("one template or more"),
		ValidArgsFunction: a.completeTemplates(),
		RunE: func(c *cobra.Command, ids []string) error {
			return a.eachTemplate(c.Context(), ids, "delete", "deleted", func(ctx context.Context, c *client.Client, id string) (*api.Template, error) {
				resp, err := c.Template.DeleteTemplate(ctx, connect.NewRequest(&api.DeleteTemplateRequest{Template: id}))
				if err != nil {
					return nil, err
				}
				return resp.Msg.Template, nil
			})
		},
	}
}
