package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/config"
	"banger/internal/errkind"
)

const runHelp = `Make a machine, start it and run a command in it, or a shell.

Without a name the machine belongs to this call alone and is gone with its disk
when the call ends, however it ends. With a name it stays.

The exit code is the command's: 128+n if signal n ended it, 126 or 127 if it
could not be run, 125 if banger itself failed.`

const runExamples = `  banger vm run -- uname -a
  echo hi | banger vm run -- tr a-z A-Z
  banger vm run --name web --memory 2G -- apt-get update
  banger vm run --image busybox`

// runAlias is "banger run".
func (a *app) runAlias() *cobra.Command {
	c := a.vmRun()
	c.Short = `The same as "vm run"`
	c.Example = strings.ReplaceAll(runExamples, "banger vm run", "banger run")
	return c
}

// sizeFlag is a number of bytes, above zero.
type sizeFlag struct{ n *int64 }

func (f sizeFlag) Set(s string) error {
	n, err := config.ParseSize(s)
	*f.n = int64(n)
	return err
}

func (f sizeFlag) String() string {
	if f.n == nil {
		return ""
	}
	return size(*f.n)
}

func (sizeFlag) Type() string { return "SIZE" }

// specFlags are those that say what machine is wanted.
type specFlags struct {
	sizeFlags
	spec   api.Spec
	labels []string
	from   string
	autoPauseFlag
}

// Ways in which a machine can begin.
const (
	fromBoot     = "boot"
	fromTemplate = "template"
	fromPool     = "pool"
)

var ways = []string{fromBoot, fromTemplate, fromPool}

// sizeFlags say how large a machine is to be.
type sizeFlags struct {
	vcpus        int32
	memory, disk int64 // bytes
}

func (s *sizeFlags) add(f *pflag.FlagSet) {
	f.Int32Var(&s.vcpus, "vcpus", 0, "`NUMBER` of virtual CPUs")
	f.Var(sizeFlag{&s.memory}, "memory", "its memory, as in 512M or 2G")
	f.Var(sizeFlag{&s.disk}, "disk-size", "the disk under /root, as in 8G")
}

func (s *sizeFlags) check(f *pflag.FlagSet) error {
	if f.Changed("vcpus") && s.vcpus < 1 {
		return usage("--vcpus %d: it takes at least 1", s.vcpus)
	}
	return nil
}

// autoPauseFlag is how long nobody has to use a machine for it to be paused.
type autoPauseFlag struct{ after time.Duration }

func (p *autoPauseFlag) add(f *pflag.FlagSet) {
	f.DurationVar(&p.after, "auto-pause", 0, "`TIME` without use after which it is paused, as in 10m; 0: never")
}

// value returns nil if the flag was not given.
func (p *autoPauseFlag) value(f *pflag.FlagSet) (*durationpb.Duration, error) {
	if !f.Changed("auto-pause") {
		return nil, nil
	}
	if p.after != 0 && p.after < time.Second {
		return nil, usage("--auto-pause %s: it takes at least 1s, or 0 for never", p.after)
	}
	return durationpb.New(p.after), nil
}

func (s *specFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.spec.Name, "name", "", "`NAME` of the machine; it stays")
	f.StringVar(&s.spec.Image, "image", "", "`NAME` of the image that it stands on")
	f.StringVar(&s.spec.Kernel, "kernel", "", "`NAME` of its kernel")
	s.sizeFlags.add(f)
	f.StringVar(&s.spec.Network, "network", "", "`MODE`: nat (through the host), or none")
	s.autoPauseFlag.add(f)
	f.StringArrayVar(&s.labels, "label", nil, "`KEY=VALUE` to keep with it; may be repeated")
	f.StringVar(&s.spec.Driver, "driver", "", "`NAME` of the virtual machine monitor")
	f.StringVar(&s.from, "from", "", "`HOW` it begins: boot (if no template must be used), or template or pool (or not at all)")
}

// finish checks what flags cannot.
func (s *specFlags) finish(f *pflag.FlagSet) (*api.Spec, error) {
	if err := s.check(f); err != nil {
		return nil, err
	}
	autoPause, err := s.autoPauseFlag.value(f)
	if err != nil {
		return nil, err
	}
	s.spec.AutoPause = autoPause
	s.spec.VcpuCount, s.spec.MemoryBytes, s.spec.DiskBytes = s.vcpus, s.memory, s.disk
	for _, name := range []string{"name", "image", "kernel", "driver", "network", "from"} {
		if f.Changed(name) && f.Lookup(name).Value.String() == "" {
			return nil, usage("--%s is empty", name)
		}
	}
	if s.from != "" && !slices.Contains(ways, s.from) {
		return nil, usage("--from %s: it takes %s", errkind.Quote(s.from), strings.Join(ways, ", "))
	}
	for _, l := range s.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, usage("--label %q: write --label KEY=VALUE", l)
		}
		if s.spec.Labels == nil {
			s.spec.Labels = make(map[string]string)
		}
		s.spec.Labels[k] = v
	}
	return &s.spec, nil
}

func (f *placeFlags) add(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.env, "env", "e", nil, "`NAME[=VALUE]` for the command's environment; may be repeated")
	fs.StringVarP(&f.user, "user", "u", "", "`USER` of the guest to run as (root)")
	fs.StringVarP(&f.dir, "cwd", "w", "", "`DIR` of the guest to run in (the user's home)")
}

func (f *commandFlags) add(fs *pflag.FlagSet) {
	f.placeFlags.add(fs)
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fs.BoolVar(&f.none, "no-tty", false, "give it none, also at a terminal")
}

func (a *app) vmRun() *cobra.Command {
	var spec specFlags
	var cmd commandFlags
	var rm, keep bool
	var traceFile string
	c := &cobra.Command{
		Use:     "run [flags] [-- COMMAND…]",
		Short:   "Run a command in a new machine",
		Long:    runHelp,
		Example: runExamples,
		Args:    onlyAfterDashes,
		RunE: func(c *cobra.Command, argv []string) error {
			s, err := spec.finish(c.Flags())
			if err == nil && rm && keep {
				err = usage("--rm and --keep exclude each other")
			}
			var t *tracing
			if err == nil && c.Flags().Changed("trace") {
				t, err = a.traceTo(traceFile)
			}
			if err != nil {
				return err
			}
			ephemeral := rm || s.Name == "" && !keep
			return a.runCommand(c.Context(), client.Machine{Spec: s, Ephemeral: ephemeral, From: spec.from}, cmd, argv, t)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	a.dashesBefore(c, 0)
	f := c.Flags()
	f.SortFlags = false
	spec.add(f)
	a.completeSpec(c)
	cmd.add(f)
	f.BoolVar(&rm, "rm", false, "delete the machine after the command, also a named one")
	f.BoolVar(&keep, "keep", false, "keep it, also without a name: one is made up")
	f.StringVar(&traceFile, "trace", "", "write to `FILE` when each stage was; Perfetto shows it")
	if err := c.MarkFlagFilename("trace"); err != nil {
		panic("internal error: " + err.Error())
	}
	return c
}

// onlyAfterDashes refuses words before "--".
func onlyAfterDashes(c *cobra.Command, args []string) error {
	n := c.ArgsLenAtDash()
	if n < 0 {
		n = len(args)
	}
	if n == 0 {
		return nil
	}
	err := usage(`%q: what is to be run stands after "--"; taking a directory along is not possible yet`, args[0])
	return errkind.WithHint(err, c.CommandPath()+" -- "+quoteAll(args))
}

func (a *app) runCommand(ctx context.Context, m client.Machine, f commandFlags, argv []string, tr *tracing) error {
	s, t, err := a.start(f, argv)
	if err != nil {
		return err
	}
	ctx, cancel := a.limit(ctx)
	defer cancel()
	x := &call{app: a, tty: t, progress: a.progress(), makes: true, ephemeral: m.Ephemeral, trace: tr}
	err = x.run(tr.with(ctx), func(ctx context.Context) (*client.Command, error) {
		tr.stage("connect to the daemon")
		c, err := a.connect(ctx, x.progress)
		if err != nil {
			return nil, err
		}
		tr.stage("send the request")
		defer tr.stage("wait for the machine")
		return c.Run(ctx, m, s)
	})
	tr.write()
	if !m.Ephemeral && m.Spec.Name == "" && x.vm != nil {
		a.note("machine %s stays; to delete it: %s", x.vm.Name, a.hint("banger vm delete "+x.vm.Name))
	}
	return guestError(doing(argv, m.Spec.Name), err)
}

// doing says what run and exec do.
func doing(argv []string, vm string) string {
	what := "run a shell"
	if len(argv) > 0 {
		what = "run " + cut(errkind.Quote(argv[0]), 60)
	}
	if vm == "" {
		return what
	}
	return what + " in " + vm
}

// guestError tells banger's own failure from the command's.
func guestError(doing string, err error) error {
	if err == nil {
		return nil
	}
	if _, silent := exitCode(err); silent {
		return err
	}
	return &guestFailure{cannot(doing, err)}
}
