package apt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

// Architecture is Debian's name of what this program runs on.
const Architecture = runtime.GOARCH // they agree where we run: amd64, arm64

// Apt is apt with a state of its own in one directory. Use [New] to get one.
// It must not be used concurrently.
type Apt struct {
	dir    string
	config string // path
}

// New prepares a state in dir, which is there, is empty and belongs to us
// alone. Removing it removes all there is.
func New(ctx context.Context, dir string, sources []Source) (*Apt, error) {
	if _, err := hostcmd.Look("apt-get"); err != nil {
		return nil, err
	}
	net, err := NetworkSettings(ctx)
	if err != nil {
		return nil, err
	}
	a := &Apt{dir: dir, config: filepath.Join(dir, "apt.conf")}
	for _, d := range []string{"none", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	for name, text := range map[string]string{"status": "", "sources.list": Lines(sources), "apt.conf": a.settings() + net} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// settings is the text of an apt.conf(5) that leaves out the host's own: its
// hooks would run, and its state change.
func (a *Apt) settings() string {
	in := func(name string) string { return strconv.Quote(filepath.Join(a.dir, name)) }
	return fmt.Sprintf(`Dir::State %s;
Dir::State::status %s;
Dir::Cache %s;
Dir::Etc::main "/dev/null";
Dir::Etc::parts %[4]s;
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts %[4]s;
Dir::Etc::sourcelist %[5]s;
Dir::Etc::sourceparts %[4]s;
APT::Architecture "%[6]s";
APT::Architectures { "%[6]s"; };
// The state is no place that another user may look into.
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
`, in("state"), in("status"), in("cache"), in("none"), in("sources.list"), Architecture)
}

// networkSetting is what a host says about its way to the network, one value a
// line; nothing about signatures.
var networkSetting = regexp.MustCompile(`^Acquire::(?:(?:http|https|file|socks)::[A-Za-z0-9:./-]+|Retries|ForceIPv4|ForceIPv6) "[^"\n]+";$`)

// NetworkSettings returns the host's settings of apt.conf(5) that say how to
// reach an archive, such as proxies.
func NetworkSettings(ctx context.Context) (string, error) {
	out, err := hostcmd.Run(ctx, "apt-config", "dump")
	if err != nil {
		return "", fmt.Errorf("read apt's configuration: %w", err)
	}
	var b strings.Builder
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		if networkSetting.MatchString(sc.Text()) {
			b.WriteString(sc.Text() + "\n")
		}
	}
	return b.String(), sc.Err()
}

func (a *Apt) run(ctx context.Context, argv ...string) ([]byte, error) {
	return hostcmd.Cmd{
		Argv: argv,
		Dir:  a.dir,
		Env:  append(hostcmd.Env(), "APT_CONFIG="+a.config, "DEBIAN_FRONTEND=noninteractive"),
		Tied: true,
	}.Run(ctx)
}

// Update fetches what the archives hold and checks their signatures.
func (a *Apt) Update(ctx context.Context) error {
	if _, err := a.run(ctx, "apt-get", "-q", "update"); err != nil {
		return fmt.Errorf("read package lists: %w", err)
	}
	return nil
}

// Package is what an archive says of a package.
type Package struct {
	Name      string
	Version   string
	SizeBytes int64    // of its file
	Depends   []string // names alone, the first of each set of alternatives
}

// Show returns the newest version of a package. If there is none, the error is
// of kind [errkind.NotFound].
func (a *Apt) Show(ctx context.Context, name string) (Package, error) {
	out, err := a.run(ctx, "apt-cache", "show", "--no-all-versions", name)
	var ee *hostcmd.ExitError
	if errors.As(err, &ee) || err == nil && len(out) == 0 {
		return Package{}, errkind.New(errkind.NotFound, "the archive has no package %s", name)
	}
	if err != nil {
		return Package{}, err
	}
	p := parsePackage(string(out))
	if p.Name == "" || p.Version == "" {
		return Package{}, fmt.Errorf("package %s: apt-cache tells neither name nor version", name)
	}
	return p, nil
}

func parsePackage(text string) Package {
	var p Package
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch k {
		case "Package":
			p.Name = v
		case "Version":
			p.Version = v
		case "Size":
			p.SizeBytes, _ = strconv.ParseInt(v, 10, 64) // 0: not known
		case "Depends":
			for d := range strings.SplitSeq(v, ",") {
				if f := strings.Fields(d); len(f) > 0 {
					p.Depends = append(p.Depends, f[0])
				}
			}
		}
		if line == "\n" {
			break
		}
	}
	return p
}

// Download fetches a package that Show told of into dir, checks it against the
// signed lists, and returns its path.
func (a *Apt) Download(ctx context.Context, p Package, dir string) (string, error) {
	argv := []string{"apt-get", "-q", "download", p.Name + "=" + p.Version}
	cmd := hostcmd.Cmd{Argv: argv, Dir: dir, Env: append(hostcmd.Env(), "APT_CONFIG="+a.config), Tied: true}
	if _, err := cmd.Run(ctx); err != nil {
		return "", fmt.Errorf("download %s: %w", p.Name, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, p.Name+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("download %s: %d files in %s", p.Name, len(found), dir)
	}
	return found[0], nil
}
