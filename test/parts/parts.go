// Package parts makes what tests run: the programs, and the images and kernel
// that their machines boot.
package parts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Programs builds banger, bangerd with failpoints, and banger-agent into dir.
func Programs(dir string) error {
	build := exec.Command("go", "build", "-tags", "failpoints", "-ldflags", "-s -w", "-o", dir+"/", "banger/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return os.Chmod(dir, 0o755)
}

// Fetch makes the images, and with them the kernel, in cache, by the programs in
// bin: the namespaces that tests run in have no way to a package archive.
func Fetch(bin, cache string, images ...string) (err error) {
	root, err := os.MkdirTemp("/tmp", "banger-parts-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	conf := fmt.Sprintf("cache = %q\n", cache)
	if err := errors.Join(os.Chmod(root, 0o711), os.MkdirAll(cache, 0o755),
		os.WriteFile(filepath.Join(root, "config.toml"), []byte(conf), 0o600)); err != nil {
		return err
	}
	run := func(args ...string) error {
		c := exec.Command(filepath.Join(bin, "banger"), append([]string{"--root", root}, args...)...)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("banger %q: %w\n%s", args, err, out)
		}
		return nil
	}
	var errs []error
	for _, image := range images {
		// Whatever is missing is built and pulled for a machine to be made.
		if err := run("vm", "create", "--no-start", "--network", "none", "--image", image, image); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, run("vm", "delete", image))
	}
	return errors.Join(append(errs, run("daemon", "stop"))...)
}
