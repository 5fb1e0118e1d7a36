package cli

import (
	"bytes"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger/internal/errkind"
)

const sshConfigHelp = `Print what makes ssh, scp, rsync, git and editors reach machines as NAME.vm, or
put it into ~/.ssh/config.

--install puts it between two marks at the top of ~/.ssh/config, --uninstall
removes it; the rest of the file stays as it is. Both may be repeated. The home
is that of HOME, under sudo as well.`

const sshConfigExamples = `  banger ssh-config --install
  ssh web.vm
  banger ssh-config > machines && ssh -F machines web.vm`

func (a *app) sshConfig() *cobra.Command {
	var install, uninstall bool
	c := &cobra.Command{
		Use:               "ssh-config [--install | --uninstall]",
		Short:             "Make plain ssh, scp, rsync and git reach machines",
		Long:              sshConfigHelp,
		Example:           sshConfigExamples,
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case install && uninstall:
				return usage("--install and --uninstall exclude each other")
			case install:
				return cannot("install the SSH configuration", a.installSSH())
			case uninstall:
				return cannot("uninstall the SSH configuration", a.uninstallSSH())
			}
			return cannot("tell the SSH configuration", a.printSSH())
		},
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVar(&install, "install", false, "put it into ~/.ssh/config")
	c.Flags().BoolVar(&uninstall, "uninstall", false, "remove it from there")
	return c
}

// sshBlock is this instance's.
func (a *app) sshBlock() (b sshBlock, err error) {
	paths, err := a.paths()
	if err != nil {
		return b, err
	}
	b.tag, b.undo = paths.Tag, "banger"
	if paths.Root != "" {
		b.undo += " --root " + errkind.Quote(paths.Root)
	}
	b.undo += " ssh-config --uninstall"
	b.options, err = a.sshOptions("%h")
	return b, err
}

func (a *app) printSSH() error {
	b, err := a.sshBlock()
	if err != nil {
		return err
	}
	if a.json {
		return a.printValue(map[string]string{"ssh_config": string(b.host())})
	}
	return a.print(b.host())
}

// sshFile reads the user's configuration.
func (a *app) sshFile() (*sshFile, error) {
	home := a.env.get("HOME")
	if !filepath.IsAbs(home) {
		return nil, usage("HOME is %q, and says not where ~/.ssh is", home)
	}
	return readSSHFile(home)
}

func (a *app) installSSH() error {
	b, err := a.sshBlock()
	if err != nil {
		return err
	}
	f, err := a.sshFile()
	if err != nil {
		return err
	}
	text, err := b.install(f.text, made{file: !f.exists, dir: !f.dirExists})
	if err != nil {
		return f.mend(err)
	}
	changed := !bytes.Equal(text, f.text)
	if changed {
		if err := f.write(text); err != nil {
			return err
		}
	}
	return a.sshInstalled(f.path, true, changed)
}

func (a *app) uninstallSSH() error {
	paths, err := a.paths()
	if err != nil {
		return err
	}
	f, err := a.sshFile()
	if err != nil {
		return err
	}
	rest, m, found, err := sshBlock{tag: paths.Tag}.uninstall(f.text)
	switch {
	case err != nil:
		return f.mend(err)
	case !found:
	case m.file && len(bytes.TrimSpace(rest)) == 0:
		err = f.remove(m)
	default:
		err = f.write(rest)
	}
	if err != nil {
		return err
	}
	return a.sshInstalled(f.path, false, found)
}

// sshInstalled tells what is so now, and whether it was so before.
func (a *app) sshInstalled(path string, installed, changed bool) error {
	if a.json {
		return a.printValue(map[string]any{"path": path, "installed": installed, "changed": changed})
	}
	what := map[[2]bool]string{
		{true, true}: "installed in", {true, false}: "installed already in",
		{false, true}: "uninstalled from", {false, false}: "not installed in",
	}[[2]bool{installed, changed}]
	return a.print([]byte(what + " " + clean(path) + "\n"))
}
