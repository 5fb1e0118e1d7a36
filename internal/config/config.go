// Package config holds the daemon's configuration and every path that banger
// uses on the host.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"banger/internal/errkind"
)

// Config is the content of config.toml. Every key is optional; [Default] gives
// what holds without it.
type Config struct {
	Driver string `toml:"driver"`  // "auto", or a VMM driver's name
	Image  string `toml:"image"`   // image of a machine that names none
	Kernel string `toml:"kernel"`  // kernel of a machine that names none; empty: the image's own
	VCPUs  int    `toml:"vcpus"`   // of a machine that says nothing; 0: as suits the driver
	Memory Size   `toml:"memory"`  // the same
	Disk   Size   `toml:"disk"`    // work disk, the same
	RootFS Size   `toml:"root_fs"` // root disk as the guest sees it
	Cache  string `toml:"cache"`   // directory of images and kernels; empty: the root's own
	Mirror string `toml:"mirror"`  // Debian mirror for images and kernels; empty: the host's own apt configuration
	LogCap Size   `toml:"console_log_max"`
	Grace  Dur    `toml:"stop_grace"`   // how long a guest has to power off
	Boot   Dur    `toml:"boot_timeout"` // how long a guest has until its agent answers
	// Templates: templates are made, and machines restored from them.
	Templates bool `toml:"templates"`
	// Pool is how many machines wait, restored and paused, for each template that
	// is used; 0: none do. PoolIdle is how long they wait for nobody; 0: for ever.
	Pool     int `toml:"pool"`
	PoolIdle Dur `toml:"pool_idle"`
	// A template goes that was last used longer ago than TemplateUnused (0: none
	// for that), and the least recently used while all together take more than
	// TemplateMax (0: none for that). What machines stand on stays.
	TemplateUnused Dur  `toml:"template_unused"`
	TemplateMax    Size `toml:"template_max"`
	// AutoPause is how long nobody has to use a machine for it to be paused, of
	// one that says nothing of it; 0: it never is by itself.
	AutoPause Dur `toml:"auto_pause"`
	// SessionLog is how much is kept of each stream of a session that says
	// nothing of it.
	SessionLog Size `toml:"session_log_max"`
	// Subnet is where machines' addresses come from, IPv4; empty: one that no
	// route of the host collides with.
	Subnet  Subnet `toml:"subnet"`
	UIDBase uint32 `toml:"uid_base"`  // first user id that a machine's VMM may run as; 0: as the root's tag says
	UIDs    uint32 `toml:"uid_count"` // how many there are from there on
}

// maxPool is how many machines may wait for each template.
const maxPool = 16

// Default returns the configuration that holds without a file.
func Default() Config {
	return Config{
		Driver: "auto",
		Image:  "debian-bookworm",
		Memory: 1 << 30,
		Disk:   8 << 30,
		RootFS: 16 << 30,
		LogCap: 4 << 20,
		Grace:  Dur(10 * time.Second),
		Boot:   Dur(120 * time.Second),
		UIDs:   1 << uidBits,

		SessionLog: 64 << 20,
		Templates:  true,
		Pool:       1,
		PoolIdle:   Dur(time.Hour),

		TemplateUnused: Dur(30 * 24 * time.Hour),
	}
}

// A FileError tells where in a configuration file the fault is.
type FileError struct {
	Path string
	Line int // from 1; 0: not known
	Err  error
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err)
}

// Unwrap returns what is wrong there.
func (e *FileError) Unwrap() error { return e.Err }

// Load reads the file at path over the defaults. Without a file the defaults
// hold. An unknown key, a wrong type or a value that makes no sense is an error
// of kind [errkind.Usage] that names it, and wraps a [*FileError].
func Load(path string) (Config, error) {
	c := Default()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	bad := func(line int, err error) (Config, error) {
		return c, errkind.Wrap(errkind.Usage, &FileError{path, line, err})
	}
	md, err := toml.Decode(string(text), &c)
	var pe toml.ParseError
	if errors.As(err, &pe) {
		return bad(pe.Position.Line, errors.New(pe.Message))
	}
	if err != nil {
		return bad(0, err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		key := un[0].String()
		return bad(lineOf(string(text), key), fmt.Errorf("unknown key %q; the nearest known one is %q", key, errkind.Nearest(key, keys())[0]))
	}
	if key, err := c.check(); err != nil {
		return bad(lineOf(string(text), key), err)
	}
	return c, nil
}

// lineOf returns the number of the line that sets a key, 0 if none is seen to.
func lineOf(text, key string) int {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if k, _, ok := strings.Cut(line, "="); ok && strings.Trim(strings.TrimSpace(k), `"'`) == key {
			return n
		}
	}
	return 0
}

// check returns the first value that makes no sense, by its key, and why.
func (c Config) check() (key string, err error) {
	switch {
	case c.Cache != "" && !filepath.IsAbs(c.Cache):
		return "cache", fmt.Errorf("cache = %q: it takes an absolute path", c.Cache)
	case c.VCPUs < 0:
		return "vcpus", fmt.Errorf("vcpus = %d: it takes at least 1, or 0 for what suits the driver", c.VCPUs)
	case c.Memory < 64<<20:
		return "memory", fmt.Errorf("memory = %q: it takes at least 64M", c.Memory)
	case c.Disk < 16<<20:
		return "disk", fmt.Errorf("disk = %q: it takes at least 16M", c.Disk)
	case c.RootFS < 256<<20:
		return "root_fs", fmt.Errorf("root_fs = %q: it takes at least 256M", c.RootFS)
	case c.LogCap < 64<<10:
		return "console_log_max", fmt.Errorf("console_log_max = %q: it takes at least 64K", c.LogCap)
	case c.SessionLog < 64<<10:
		return "session_log_max", fmt.Errorf("session_log_max = %q: it takes at least 64K", c.SessionLog)
	case c.Pool < 0 || c.Pool > maxPool:
		return "pool", fmt.Errorf("pool = %d: it takes 0 to %d", c.Pool, maxPool)
	case c.PoolIdle < 0:
		return "pool_idle", errors.New("pool_idle takes a positive duration, or 0s")
	case c.Grace < 0:
		return "stop_grace", errors.New("stop_grace takes a positive duration")
	case c.Boot <= 0:
		return "boot_timeout", errors.New("boot_timeout takes a positive duration")
	case c.TemplateUnused < 0:
		return "template_unused", errors.New("template_unused takes a duration, or 0s for templates that stay however long nobody uses them")
	case c.AutoPause < 0 || c.AutoPause > 0 && c.AutoPause < Dur(time.Second):
		return "auto_pause", errors.New("auto_pause takes at least 1s, or 0s for machines that are never paused by themselves")
	case c.Subnet.IsValid() && !usable(c.Subnet.Addr()):
		return "subnet", fmt.Errorf("subnet = %q: it takes a network for hosts, as in %q", c.Subnet, "10.77.0.0/22")
	case c.Subnet.IsValid() && (!c.Subnet.Addr().Is4() || c.Subnet.Prefix != c.Subnet.Masked() || c.Subnet.Bits() < 8 || c.Subnet.Bits() > 29):
		return "subnet", fmt.Errorf("subnet = %q: it takes an IPv4 network of 8 to 29 bits, as in %q", c.Subnet, "10.77.0.0/22")
	case c.UIDBase != 0 && c.UIDBase < 1000 || c.UIDs < 1 || c.UIDBase+c.UIDs < c.UIDBase:
		return "uid_base", errors.New("uid_base must be at least 1000 and uid_count at least 1, and both must fit in 32 bits")
	case c.UIDBase == 0 && c.UIDs > 1<<uidBits:
		return "uid_count", fmt.Errorf("uid_count = %d: without uid_base it takes at most %d", c.UIDs, 1<<uidBits)
	}
	return "", nil
}

// usable reports whether an address is of a kind that hosts can have (the
// special ones are those of RFC 6890).
func usable(a netip.Addr) bool {
	first := a.As16()[12] // of IPv4; another check refuses IPv6
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && first != 0 && first < 224
}

// keys lists every key a configuration file may hold.
func keys() []string {
	var b strings.Builder
	if err := toml.NewEncoder(&b).Encode(Default()); err != nil {
		panic("internal error: encode the default configuration: " + err.Error())
	}
	var ks []string
	for line := range strings.Lines(b.String()) {
		if k, _, ok := strings.Cut(line, " = "); ok {
			ks = append(ks, k)
		}
	}
	return ks
}

// Dur is a duration written as in "10s".
type Dur time.Duration

// UnmarshalText reads a duration as [time.ParseDuration] does.
func (d *Dur) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Dur(v)
	return err
}

// MarshalText writes what UnmarshalText reads.
func (d Dur) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }
