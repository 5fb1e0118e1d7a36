package qemu

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

// probe is what one QEMU binary says of itself.
type probe struct {
	version string
}

// oldest is the first major version whose options are as args.go writes them
// (boolean "server=on").
const oldest = 6

// probe asks QEMU for its version and machine types, unless it was asked
// already and the file is the same.
func (d *Driver) probe(ctx context.Context) (probe, error) {
	path, err := d.binary()
	if err != nil {
		return probe{}, err
	}
	return d.probed.Of(path, func() (probe, error) {
		version, err := askVersion(ctx, path)
		if err != nil {
			return probe{}, err
		}
		return probe{version}, checkMachines(ctx, path)
	})
}

func askVersion(ctx context.Context, path string) (string, error) {
	out, err := hostcmd.Run(ctx, path, "--version")
	if err != nil {
		return "", fmt.Errorf("ask QEMU for its version: %w", err)
	}
	version, major, ok := parseVersion(string(out))
	if !ok {
		return "", errkind.New(errkind.Host, "%s does not tell its version", path)
	}
	if major < oldest {
		err := errkind.New(errkind.Host, "QEMU %s is too old: banger needs %d.0 or newer", version, oldest)
		return "", errkind.WithHint(err, installHint)
	}
	return version, nil
}

var versionRE = regexp.MustCompile(`^QEMU emulator version (([0-9]{1,4})(\.[0-9]{1,4}){1,3})`)

// parseVersion reads the first line of what "qemu --version" prints.
func parseVersion(out string) (version string, major int, ok bool) {
	m := versionRE.FindStringSubmatch(out)
	if m == nil {
		return "", 0, false
	}
	major, err := strconv.Atoi(m[2])
	return m[1], major, err == nil
}

// checkMachines reports a QEMU that was built without microvm.
func checkMachines(ctx context.Context, path string) error {
	out, err := hostcmd.Run(ctx, path, "-machine", "help")
	if err != nil {
		return fmt.Errorf("ask QEMU for its machine types: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(line, " "); name == "microvm" {
			return nil
		}
	}
	err = errkind.New(errkind.Host, "%s was built without the machine type microvm", path)
	return errkind.WithHint(err, installHint)
}

// racyTCG reports a QEMU whose translator races with other virtual processors
// that write code: a guest with two of them that patches its kernel, as Linux
// does all the time, may spin on the old code for ever. Seen with 7.2 in at
// least two of 290 boots; mended in 8.1 (QEMU's commit deba78709ae8,
// "accel/tcg: Always lock pages before translation").
func racyTCG(version string) bool { return before(version, 8, 1) }

// retranslates reports a QEMU that keeps translated code by the address in the
// program, not by the place in memory alone: a program whose layout is another each
// time is translated each time. 7.2 to 8.2 did from their stable releases of January
// 2024 on ("accel/tcg: Revert mapping of PCREL translation block to multiple virtual
// addresses"), those before 7.2 always; 10.0 does not.
func retranslates(version string) bool { return before(version, 10, 0) }

// before reports a version that is before major.minor, or not known.
func before(version string, major, minor int) bool {
	var ma, mi int
	if _, err := fmt.Sscanf(version, "%d.%d", &ma, &mi); err != nil {
		return true
	}
	return ma < major || ma == major && mi < minor
}
