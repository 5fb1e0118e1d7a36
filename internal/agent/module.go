package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// moduleDir is where the initramfs holds the kernel modules that the boot
// needs. They are loaded in the order of their names, which package guest/boot
// numbers.
const moduleDir = "/mod"

// loadModules loads the modules in dir, if there is one. One that is loaded or
// built in already is fine. Loading goes on after an error: which modules a
// machine cannot do without shows when its disks are looked for, and tells
// more when the others are there.
func loadModules(dir string) error {
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list modules: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, loadModule(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(name), err)
	}
	return nil
}
