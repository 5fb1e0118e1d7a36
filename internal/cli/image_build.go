package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
)

const buildHelp = `Build an image, from a recipe that banger knows or from a recipe file.

What has a slash or ends in .toml is a file; its image is called as the file,
or as --name says. Building again makes a new version; machines stay on the one
that they stand on.

With --template its template is made too, for machines of the configured size,
so that the first of them is as quick as any later one.`

const buildExamples = `  banger image build debian-bookworm
  banger image build ./tools.toml --name tools
  banger image build --template busybox`

// maxRecipe bounds a recipe file, in bytes.
const maxRecipe = 1 << 20

func (a *app) imageBuild() *cobra.Command {
	var name string
	var withTemplate bool
	c := &cobra.Command{
		Use:     "build [flags] RECIPE|FILE",
		Short:   "Build an image",
		Long:    buildHelp,
		Example: buildExamples,
		Args:    exactly(1, "one recipe"),
		RunE: func(c *cobra.Command, args []string) error {
			req, err := buildRequest(args[0], name)
			if err != nil {
				return cannot("build "+args[0], err)
			}
			img, err := a.build(c.Context(), req)
			if err != nil {
				return cannot("build "+req.Name, err)
			}
			var terr error // the image is there all the same
			if withTemplate {
				terr = cannot("make a template of "+req.Name, a.makeTemplate(c.Context(), img.Name))
			}
			if a.json {
				return errors.Join(a.printDoc(img), terr)
			}
			return errors.Join(a.print([]byte(clean(img.Name)+"\n")), terr)
		},
	}
	c.Flags().StringVar(&name, "name", "", "`NAME` of the image (the recipe's)")
	c.Flags().BoolVar(&withTemplate, "template", false, "make its template too, of which machines are made quickly")
	return c
}

// buildRequest reads a recipe file here: the daemon opens no path that a
// caller names.
func buildRequest(recipe, name string) (*api.BuildImageRequest, error) {
	if !strings.Contains(recipe, "/") && !strings.HasSuffix(recipe, ".toml") {
		if name != "" && name != recipe {
			return nil, usage("--name is for recipe files; a known recipe's image is called as the recipe")
		}
		return &api.BuildImageRequest{Name: recipe}, nil
	}
	f, err := os.Open(recipe)
	if err != nil {
		return nil, usage("%w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecipe+1))
	switch {
	case err != nil:
		return nil, usage("%w", err)
	case len(text) == 0:
		return nil, usage("%s is empty", recipe)
	case len(text) > maxRecipe:
		return nil, usage("%s is over %s, which no recipe is", recipe, size(maxRecipe))
	}
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(recipe), filepath.Ext(recipe))
	}
	return &api.BuildImageRequest{Name: name, Recipe: text}, nil
}

func (a *app) build(ctx context.Context, req *api.BuildImageRequest) (*api.Image, error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p.stage("build image " + req.Name)
	stream, err := c.Image.BuildImage(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		if u := stream.Msg().GetProgress(); u != nil {
			p.update("", u)
		} else if img := stream.Msg().GetImage(); img != nil {
			return img, nil
		}
	}
	return nil, ended(stream.Err())
}
