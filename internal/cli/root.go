package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/errkind"
	"banger/internal/version"
)

const rootHelp = `banger gives you a Linux machine of your own, with its own kernel, on your own
host. Inside you are root and may break everything; outside nothing is left.

Begin with:
  banger vm run -- uname -a    a machine for one command, gone after it
  banger vm run                a shell in a machine
  banger vm run --name web     a machine that stays`

const (
	groupDaily = "daily"
	groupParts = "parts"
	groupSelf  = "self"
)

// Commands are listed in the order in which they are added.
func init() { cobra.EnableCommandSorting = false }

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:               "banger",
		Short:             "Linux machines with their own kernel, quickly",
		Long:              rootHelp,
		Version:           version.String(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetIn(a.In)
	root.SetErr(a.Err)
	root.SetVersionTemplate("banger {{.Version}}\n")
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.SortFlags = false
	f.BoolVar(&a.json, "json", false, "print one JSON document, and errors as JSON")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "show no progress")
	f.DurationVar(&a.timeout, "timeout", 0, "give up after this `TIME`, as in 90s or 5m")
	f.StringVar(&a.rootDir, "root", "", "use the daemon that keeps everything under `DIR` (BANGER_ROOT)")
	f.BoolP("help", "h", false, "tell about the command")
	root.Flags().BoolP("version", "v", false, "print the version")
	if err := root.MarkPersistentFlagDirname("root"); err != nil {
		panic("internal error: " + err.Error())
	}
	root.AddGroup(&cobra.Group{ID: groupDaily, Title: "Machines:"}, &cobra.Group{ID: groupParts, Title: "What they stand on:"}, &cobra.Group{ID: groupSelf, Title: "Banger itself:"})
	root.CompletionOptions.DisableDefaultCmd = true
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.AddCommand(
		in(groupDaily, a.vmCommand()), in(groupDaily, a.runAlias()), in(groupDaily, a.psAlias()),
		in(groupParts, a.imageCommand()), in(groupParts, a.kernelCommand()), in(groupParts, a.templateCommand()),
		in(groupSelf, a.daemonCommand()), in(groupSelf, a.doctorCommand()), in(groupSelf, a.benchCommand()), in(groupSelf, a.sshConfig()), a.sshProxy(), in(groupSelf, a.completionCommand()), in(groupSelf, a.versionCommand()),
		in(groupSelf, helpCommand()),
	)
	plainUsage(root)
	return asGroup(root)
}

// plainUsage has cobra add nothing to how commands say that they are used.
func plainUsage(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	for _, sub := range c.Commands() {
		plainUsage(sub)
	}
}

// helpCommand is "banger help vm run", which is "banger vm run --help".
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND…]",
		Short:   "Tell about a command",
		Example: "  banger help vm run",
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			about, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range about.Commands() {
				names = append(names, word(sub.Name(), sub.Short))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return errkind.WithHint(usage("no command %q", strings.Join(args, " ")), "banger --help")
			}
			return about.Help()
		},
	}
}

func in(group string, c *cobra.Command) *cobra.Command {
	c.GroupID = group
	return c
}

// asGroup makes a command that only holds others refuse what it does not know,
// with the nearest of what it does.
func asGroup(c *cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := usage("unknown command %q for %q", args[0], cmd.CommandPath())
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		if vm, _, verr := cmd.Find([]string{"vm", args[0]}); verr == nil && !vm.HasSubCommands() {
			return errkind.WithHint(err, vm.CommandPath()+" --help") // "banger list"
		}
		if near := nearest(args[0], names); near != "" {
			return errkind.WithHint(err, cmd.CommandPath()+" "+near+" --help")
		}
		return errkind.WithHint(err, cmd.CommandPath()+" --help")
	}
	return c
}

// nearest returns the name that is meant by a mistyped one, or "" if none is
// likely.
func nearest(typed string, names []string) string {
	for _, n := range errkind.Nearest(typed, names) {
		// Most of what was typed is in it, from the first letter on.
		common := 0
		for _, r := range n {
			if strings.ContainsRune(typed, r) {
				common++
			}
		}
		if typed != "" && n[0] == typed[0] && 2*common >= len(n) {
			return n
		}
	}
	return ""
}

// flagError tells of a flag that is not known, with the nearest that is, or
// that has no or a wrong value.
func flagError(cmd *cobra.Command, err error) error {
	help := cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return errkind.WithHint(usage("%w", err), help)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	name := unknown.GetSpecifiedName()
	if len(name) > 1 {
		if near := nearest(name, names); near != "" {
			return errkind.WithHint(usage("unknown flag --%s; did you mean --%s?", name, near), help)
		}
	}
	return errkind.WithHint(usage("%w", err), help)
}

// dashesBefore makes the error of a flag that c does not know, which may well
// be one of the command to run, tell how to write that: after n words.
func (a *app) dashesBefore(c *cobra.Command, n int) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		words := a.args[min(len(strings.Fields(c.CommandPath()))-1, len(a.args)):]
		if len(words) <= n || slices.Contains(words, "--") || slices.ContainsFunc(words[:n+1], func(w string) bool { return strings.HasPrefix(w, "-") }) {
			return flagError(c, err)
		}
		line := append([]string{c.CommandPath()}, words[:n]...)
		return errkind.WithHint(usage(`%w; what is to be run stands after "--"`, err),
			strings.Join(line, " ")+" -- "+quoteAll(words[n:]))
	})
}

// exactly takes n arguments, which what names.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return errkind.WithHint(usage("%q takes %s", cmd.CommandPath(), what), cmd.CommandPath()+" --help")
		}
		return nil
	}
}

// atLeastOne takes one argument or more, which what names.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errkind.WithHint(usage("%q takes %s", cmd.CommandPath(), what), cmd.CommandPath()+" --help")
		}
		return nil
	}
}

// none takes no arguments.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errkind.WithHint(usage("%q takes no arguments, and got %q", cmd.CommandPath(), args[0]), cmd.CommandPath()+" --help")
	}
	return nil
}

// unique returns args without those that came before.
func unique(args []string) []string {
	var out []string
	for _, arg := range args {
		if !slices.Contains(out, arg) {
			out = append(out, arg)
		}
	}
	return out
}

// helpTemplate is cobra's, with a full stop where there is but a summary.
const helpTemplate = `{{with .Long}}{{.}}{{else}}{{.Short}}.{{end}}

{{.UsageString}}`

// usageTemplate is cobra's, with less of it.
const usageTemplate = `Usage:{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{else}}
  {{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Everywhere:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" tells more of a command.{{end}}
`
