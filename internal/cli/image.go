package cli

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "What machines stand on: root file systems",
	}
	c.AddCommand(a.imageBuild(), a.imageList(), a.imageShow(), a.imageDelete())
	return asGroup(c)
}

func (a *app) imageList() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Aliases:           []string{"ls"},
		Short:             "List images that are built",
		Example:           "  banger image list",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return cannot("list images", a.listImages(c.Context()))
		},
	}
}

func (a *app) listImages(ctx context.Context) error {
	var list *api.ListImagesResponse
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Image.ListImages(ctx, connect.NewRequest(&api.ListImagesRequest{}))
		if err == nil {
			list = resp.Msg
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(list)
	}
	if len(list.Images) == 0 {
		a.note("no images; to build one: %s", a.hint("banger image build debian-bookworm"))
		return nil
	}
	now := time.Now()
	t := &table{head: []string{"NAME", "ID", "SIZE", "ON DISK", "KERNEL", "SOURCE", "AGE"}}
	for _, i := range list.Images {
		t.add(i.Name, i.Id, size(i.SizeBytes), size(i.DiskUsageBytes), i.DefaultKernel, i.Source, age(i.CreatedAt, now))
	}
	return a.printTable(t)
}

func (a *app) imageShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show IMAGE",
		Short:             "Show an image and its packages",
		Example:           "  banger image show debian-bookworm",
		Args:              exactly(1, "one image"),
		ValidArgsFunction: once(a.completeImages()),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("show image "+args[0], a.showImage(c.Context(), args[0]))
		},
	}
}

func (a *app) showImage(ctx context.Context, name string) error {
	var i *api.Image
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Image.ShowImage(ctx, connect.NewRequest(&api.ShowImageRequest{Name: name}))
		if err == nil {
			i = resp.Msg.Image
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(i)
	}
	var f facts
	f.add("name", i.Name)
	f.add("id", i.Id)
	f.add("source", i.Source)
	f.add("recipe hash", i.RecipeHash)
	f.add("size", size(i.SizeBytes))
	f.add("on disk", size(i.DiskUsageBytes))
	f.add("kernel", i.DefaultKernel)
	f.add("init", i.Init)
	f.add("created", moment(i.CreatedAt, time.Now()))
	f.add("file", i.Path)
	for n, p := range i.Packages {
		name := ""
		if n == 0 {
			name = "packages"
		}
		f.add(name, p.Name+" "+p.Version)
	}
	return a.printFacts(f)
}

func (a *app) imageDelete() *cobra.Command {
	return &cobra.Command{
		Use:               "delete IMAGE…",
		Aliases:           []string{"rm"},
		Short:             "Delete images that no machine stands on",
		Example:           "  banger image delete busybox tools",
		Args:              atLeastOne("one image or more"),
		ValidArgsFunction: a.completeImages(),
		RunE: func(c *cobra.Command, names []string) error {
			return a.eachName(c.Context(), "image", names, func(ctx context.Context, c *client.Client, name string) error {
				_, err := c.Image.DeleteImage(ctx, connect.NewRequest(&api.DeleteImageRequest{Name: name}))
				return err
			})
		},
	}
}
