package cli

import (
	"context"

	"connectrpc.com/connect"

	"banger/internal/api"
	"banger/internal/api/client"
)

// makeTemplate has the template of an image's machines made, with progress.
func (a *app) makeTemplate(ctx context.Context, image string) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	p.stage("make a template of image " + image)
	_, err = askTemplate(ctx, c, &api.Spec{Image: image}, p)
	return err
}

// askTemplate returns the template of machines like s, which is made if there is
// none.
func askTemplate(ctx context.Context, c *client.Client, s *api.Spec, p *progress) (*api.Template, error) {
	stream, err := c.Template.MakeTemplate(ctx, connect.NewRequest(&api.MakeTemplateRequest{Spec: s}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		if u := stream.Msg().GetProgress(); u != nil {
			p.update("", u)
		} else if t := stream.Msg().GetTemplate(); t != nil {
			return t, nil
		}
	}
	return nil, ended(stream.Err())
}
