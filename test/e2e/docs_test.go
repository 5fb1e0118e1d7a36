//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"banger/test/docs"
)

// The pages that need real machines do what they show, from the first line to
// the last.
func TestDocs(t *testing.T) {
	pages, err := docs.Pages("../..")
	if err != nil {
		t.Fatal(err)
	}
	// Pages name programs as people do, also with sudo.
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("PATH=%s:%s:%s", binDir, bin, os.Getenv("PATH"))
	for _, p := range pages {
		if !p.Real() {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			conf := []string{}
			if p.Debian() {
				conf = append(conf, `image = "debian-bookworm"`, `memory = "512M"`)
			}
			b := newBed(t, conf...)
			if p.Name == "docs/images.md" {
				// It fetches packages, and deletes what other tests stand on: it
				// has images of its own. Its machines have no network.
				b.outside = true
				b.configure(`image = "busybox"`, `memory = "192M"`, `disk = "64M"`, `vcpus = 1`)
			}
			home := filepath.Join(b.root, "home")
			if err := os.Mkdir(home, 0o755); err != nil {
				t.Fatal(err)
			}
			p.Run(t, home, func(ctx context.Context, script string) *exec.Cmd {
				// OpenSSH takes the home from the accounts, not from HOME.
				mount := "mount --bind " + home + ` /root && exec sh -c "$1"`
				c := b.program(ctx, "unshare", "-m", "sh", "-c", mount, "sh", script)
				c.Env = append(c.Env, "HOME="+home, path)
				return c
			})
		})
	}
}
