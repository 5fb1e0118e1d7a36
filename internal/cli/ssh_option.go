package cli

import (
	"path/filepath"
	"slices"
	"strings"

	"banger/internal/config"
	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

// An sshOption is one line of an ssh_config(5).
type sshOption struct{ key, value string }

// sshOptions are those by which OpenSSH's programs reach the machine that
// target names: a name, or "%h" for the one on their command line. The host's
// key is known, and nothing else is believed.
func (a *app) sshOptions(target string) ([]sshOption, error) {
	paths, err := a.paths()
	if err != nil {
		return nil, err
	}
	proxy, err := a.proxyCommand(paths, target)
	if err != nil {
		return nil, err
	}
	identity, err := sshPath(paths.SSHIdentity())
	if err != nil {
		return nil, err
	}
	known, err := sshPath(paths.KnownHosts())
	if err != nil {
		return nil, err
	}
	return []sshOption{
		{"ProxyCommand", proxy},
		{"User", "root"},
		{"IdentityFile", identity},
		{"IdentitiesOnly", "yes"},
		{"UserKnownHostsFile", known},
		{"GlobalKnownHostsFile", "/dev/null"},
		{"StrictHostKeyChecking", "yes"},
	}, nil
}

// proxyCommand is how ssh-proxy is called for a daemon, wherever from. OpenSSH
// gives it to the user's shell; the quotes are for names that old versions do
// not check before they take the place of %h (CVE-2023-51385).
func (a *app) proxyCommand(paths config.Paths, target string) (string, error) {
	program, err := a.program()
	if err != nil {
		return "", err
	}
	words := []string{program, "--root", paths.Root}
	if paths.Root == "" {
		// No flag names the default places, and the variable would win.
		words = []string{"env", "-u", "BANGER_ROOT", program}
	}
	if slices.ContainsFunc(words, func(w string) bool { return strings.ContainsAny(w, "\n\r\x00") }) {
		return "", usage("ssh cannot use the path %q", words)
	}
	return strings.ReplaceAll(quoteAll(words), "%", "%%") + " ssh-proxy '" + target + "'", nil
}

// program is the absolute path of this program.
func (a *app) program() (string, error) {
	name := a.env.Name
	if name == "" {
		name = "banger"
	}
	path, err := hostcmd.Look(name)
	if err != nil {
		return "", errkind.New(errkind.Host, "%s is not in PATH, and ssh has to call it", name)
	}
	return filepath.Abs(path)
}

// sshPath writes a path as the value of an option. Percent signs are tokens
// there; for quotes and variables not all versions have a way to write them.
func sshPath(path string) (string, error) {
	if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' || r == '\\' }) || strings.Contains(path, "${") {
		return "", usage("ssh cannot use the path %q: give banger another --root", path)
	}
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.ContainsAny(path, " '#=") {
		path = `"` + path + `"`
	}
	return path, nil
}
