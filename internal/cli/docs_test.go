package cli

import (
	"context"
	"os/exec"
	"testing"

	"banger/internal/config"
	"banger/test/docs"
)

// Every example of the pages does what the page shows; those that need a real
// machine are run by test/e2e.
func TestDocs(t *testing.T) {
	t.Parallel()
	pages, err := docs.Pages("../..")
	must(t, err)
	for _, p := range pages {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			root, home := bed(t), t.TempDir()
			p.Pretend().Run(t, home, func(ctx context.Context, script string) *exec.Cmd {
				c := exec.CommandContext(ctx, "sh", "-c", script)
				c.Env = append(environ(root), "HOME="+home, "FAKE_IMAGE="+config.Default().Image)
				return c
			})
		})
	}
}
