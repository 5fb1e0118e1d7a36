package firecracker

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

// installHint puts the release that banger is tested with in place.
const installHint = "curl -fsSL https://github.com/firecracker-microvm/firecracker/releases/download/v1.12.1/firecracker-v1.12.1-x86_64.tgz" +
	" | tar -xzO -f - release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64 | install -m 755 /dev/stdin /usr/local/bin/firecracker"

// probe is what one binary says of itself.
type probe struct {
	version   string
	templates bool
}

// Versions of Firecracker, by minor number after 1.
const (
	oldest       = 8  // describes devices by ACPI, from which guests learn of them
	hasOverrides = 12 // a snapshot may be restored with another tap
)

// probe finds Firecracker and asks for its version, unless it was asked already
// and the file is the same.
func (d *Driver) probe(ctx context.Context) (path string, p probe, err error) {
	if path, err = d.binary(); err != nil {
		return "", probe{}, err
	}
	p, err = d.probed.Of(path, func() (probe, error) { return askVersion(ctx, path) })
	return path, p, err
}

func askVersion(ctx context.Context, path string) (probe, error) {
	if err := checkProgram(path); err != nil {
		return probe{}, errkind.WithHint(errkind.Wrap(errkind.Host, err), installHint)
	}
	out, err := hostcmd.Run(ctx, path, "--version")
	if err != nil {
		return probe{}, fmt.Errorf("ask Firecracker for its version: %w", err)
	}
	version, major, minor, ok := parseVersion(string(out))
	if !ok {
		return probe{}, errkind.New(errkind.Host, "%s does not tell its version", path)
	}
	if major < 1 || major == 1 && minor < oldest {
		err := errkind.New(errkind.Host, "Firecracker %s is too old: banger needs 1.%d or newer", version, oldest)
		return probe{}, errkind.WithHint(err, installHint)
	}
	return probe{version, major > 1 || minor >= hasOverrides}, nil
}

var versionRE = regexp.MustCompile(`^Firecracker v(([0-9]{1,4})\.([0-9]{1,4})(?:\.[0-9]{1,4})?)`)

// parseVersion reads the first line of what "firecracker --version" prints.
func parseVersion(out string) (version string, major, minor int, ok bool) {
	m := versionRE.FindStringSubmatch(out)
	if m == nil {
		return "", 0, 0, false
	}
	major, err := strconv.Atoi(m[2])
	minor, err2 := strconv.Atoi(m[3])
	return m[1], major, minor, err == nil && err2 == nil
}

// binary returns Firecracker's path as it is executed: links are not resolved, for
// where they lead changes with an upgrade.
func (d *Driver) binary() (string, error) {
	path, err := hostcmd.Look(d.program)
	if err != nil {
		if barred := notExecutable(d.program); barred != "" {
			err := errkind.New(errkind.Host, "%s is not executable", barred)
			return "", errkind.WithHint(err, "chmod 755 "+barred)
		}
		return "", errkind.WithHint(err, installHint)
	}
	return path, nil
}

// notExecutable returns the path of a program that is there but cannot be
// executed, empty if there is none.
func notExecutable(program string) string {
	dirs := []string{""}
	if !strings.Contains(program, "/") {
		dirs = filepath.SplitList(os.Getenv("PATH"))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, program)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// checkProgram reports a program for another processor. What is no ELF file may
// be a script, and is for the kernel to judge.
func checkProgram(path string) error {
	f, err := readELF(path)
	if err == nil && f != nil && f.Machine != elf.EM_X86_64 {
		err = fmt.Errorf("%s is for another processor: %s", path, f.Machine)
	}
	return err
}

// checkKernel reports what Firecracker could not boot: it takes an ELF image,
// and of one that is no kernel it says at best that its guest has ended.
func checkKernel(path string) error {
	f, err := readELF(path)
	why := ""
	switch {
	case err != nil:
		return fmt.Errorf("kernel: %w", err)
	case f == nil:
		why = "is no ELF image (vmlinux), which is what Firecracker boots"
	case f.Machine != elf.EM_X86_64:
		why = fmt.Sprintf("is for another processor: %s", f.Machine)
	case !slices.ContainsFunc(f.Progs, inKernelsHalf):
		why = "is a program, no kernel"
	default:
		return nil
	}
	return errkind.WithHint(errkind.New(errkind.Usage, "kernel %s %s", path, why), kernelHint)
}

// kernelHint shows where kernels come from.
const kernelHint = "banger kernel list"

// inKernelsHalf reports whether a part of an ELF file is loaded where programs
// are not: the upper half of the addresses is the kernel's
// (Documentation/arch/x86/x86_64/mm.rst).
func inKernelsHalf(p *elf.Prog) bool { return p.Type == elf.PT_LOAD && p.Vaddr>>63 == 1 }

// readELF returns the headers of an ELF file, nil if it is none.
func readELF(path string) (*elf.File, error) {
	f, err := elf.Open(path)
	var format *elf.FormatError
	if errors.As(err, &format) || errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f, f.Close()
}
