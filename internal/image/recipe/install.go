package recipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"banger/internal/apt"
	"banger/internal/errkind"
	"banger/internal/hostcmd"
	"banger/internal/image"
)

// mergedHook lets /bin and its like be links from the beginning, as they are
// in every Debian since 12; without it a package moves them afterwards, which
// takes longer.
const mergedHook = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"

// install makes a system with the recipe's packages and what they depend on in
// dir, with mmdebstrap. It and all it starts live in a process and a mount
// namespace of their own, which end with it: nothing stays mounted or running,
// whatever dies.
func (b *build) install(ctx context.Context, dir string) ([]image.Package, error) {
	if _, err := hostcmd.Look("mmdebstrap"); err != nil {
		return nil, errkind.WithHint(err, "apt-get install -y mmdebstrap")
	}
	list := filepath.Join(b.Tmp, "debian.list") // mmdebstrap goes by the ending
	if err := os.WriteFile(list, []byte(apt.Lines(b.sources)), 0o644); err != nil {
		return nil, err
	}
	net, err := apt.NetworkSettings(ctx)
	if err != nil {
		return nil, err
	}
	settings := filepath.Join(b.Tmp, "apt.conf")
	// What is being built is for nobody else to look into.
	if err := os.WriteFile(settings, []byte(net+"APT::Sandbox::User \"root\";\n"), 0o644); err != nil {
		return nil, err
	}
	argv := []string{
		"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"mmdebstrap", "--verbose", "--mode=root", "--variant=minbase", "--format=directory",
		"--architectures=" + apt.Architecture, "--components=" + strings.Join(b.r.Components, ","),
		"--include=" + strings.Join(b.r.Packages, ","),
		"--aptopt=" + settings,
		// It is synced when it is an image; a build that was cut off is not used.
		"--dpkgopt=force-unsafe-io",
	}
	for _, x := range b.r.Exclude {
		argv = append(argv, "--dpkgopt=path-exclude="+x)
	}
	for _, k := range b.r.Keep {
		argv = append(argv, "--dpkgopt=path-include="+k)
	}
	if _, err := os.Stat(mergedHook); err == nil {
		argv = append(argv, "--hook-dir="+mergedHook)
	}
	argv = append(argv, b.r.Suite, dir, list)
	w := &watcher{p: b.progress}
	env := append(hostcmd.Env(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(epoch.Unix(), 10), "TMPDIR="+b.Tmp)
	_, err = hostcmd.Cmd{Argv: argv, Env: env, Line: w.line, Tied: true}.Run(ctx)
	if err != nil {
		return nil, w.explain(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return tree{root}.installed()
}

// watcher reads what mmdebstrap says. What it does not understand it ignores,
// so another version of it costs detail, no more.
type watcher struct {
	p      func(detail string, done, total int64)
	detail string
	done   int64
	total  int64    // of unpacking and setting up, as last told; 0: not yet
	errs   []string // what was said about failing
}

// steps tell what mmdebstrap announces ("I: …") in our words.
var steps = []struct{ begins, detail string }{
	{"running apt-get update", "reading package lists"},
	{"downloading packages", "downloading essential packages"},
	{"extracting archives", "unpacking essential packages"},
	{"installing essential", "installing essential packages"},
	{"installing remaining", "installing packages"},
	{"cleaning", "cleaning up"},
}

// maxErrors is how many lines about failing are kept.
const maxErrors = 20

func (w *watcher) line(s string) {
	if msg, ok := strings.CutPrefix(s, "I: "); ok {
		for _, st := range steps {
			if strings.HasPrefix(msg, st.begins) {
				// The total was told by the step before.
				w.detail, w.done = st.detail, 0
				w.p(w.detail, 0, 0)
			}
		}
		return
	}
	// "0 upgraded, 139 newly installed, 0 to remove and 0 not upgraded."
	if _, rest, ok := strings.Cut(s, " upgraded, "); ok {
		n, _, _ := strings.Cut(rest, " newly installed")
		if v, err := strconv.ParseInt(n, 10, 32); err == nil && v > 0 {
			w.done, w.total = 0, 2*v // unpacked and set up
		}
		return
	}
	if w.total > 0 && (strings.HasPrefix(s, "Unpacking ") || strings.HasPrefix(s, "Setting up ")) {
		w.done = min(w.done+1, w.total)
		w.p(w.detail, w.done, w.total)
		return
	}
	if msg, ok := strings.CutPrefix(s, "E: "); ok || strings.Contains(s, "No space left on device") {
		if len(w.errs) < maxErrors {
			w.errs = append(w.errs, strings.TrimSpace(msg))
		}
	}
}

// explain puts what mmdebstrap and its tools said first, which is the cause,
// in place of what they said last, which is about mmdebstrap.
func (w *watcher) explain(err error) error {
	var ee *hostcmd.ExitError
	if !errors.As(err, &ee) || len(w.errs) == 0 {
		return err
	}
	cause := w.errs[0]
	for _, e := range w.errs {
		if strings.Contains(e, "No space left on device") {
			cause = e
			break
		}
	}
	return fmt.Errorf("mmdebstrap, %s: %s", w.detail, cause)
}

// extract unpacks the files of the recipe's packages into dir.
func (b *build) extract(ctx context.Context, dir string) ([]image.Package, error) {
	state := filepath.Join(b.Tmp, "apt")
	if err := os.Mkdir(state, 0o755); err != nil {
		return nil, err
	}
	a, err := apt.New(ctx, state, b.sources)
	if err != nil {
		return nil, err
	}
	b.progress("reading package lists", 0, 0)
	if err := a.Update(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return nil, err
	}
	var pkgs []image.Package
	for i, name := range b.r.Packages {
		b.progress("unpacking packages", int64(i), int64(len(b.r.Packages)))
		pkg, err := a.Show(ctx, name)
		if err != nil {
			return nil, err
		}
		deb, err := a.Download(ctx, pkg, b.Tmp)
		if err != nil {
			return nil, err
		}
		if _, err := (hostcmd.Cmd{Argv: []string{"dpkg-deb", "--extract", deb, dir}, Tied: true}).Run(ctx); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", name, err)
		}
		pkgs = append(pkgs, image.Package{Name: pkg.Name, Version: pkg.Version})
	}
	sortPackages(pkgs)
	return pkgs, nil
}
