package fetch

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"banger/internal/errkind"
)

// What a tar of modules may hold.
const (
	maxModuleFiles = 100_000
	maxModuleFile  = 512 << 20 // bytes, unpacked
	maxModules     = 4 << 30   // bytes, unpacked
	// maxModuleDepth is where in a path the kernel's version may stand:
	// usr/lib/modules/<version>, with a directory before it or not.
	maxModuleDepth = 5
)

// roots are the modules that an initramfs needs to find the root disk and to
// speak to the host: those of DESIGN.md's devices, by either transport, and
// randomness where the image has nothing that loads modules.
var roots = []string{
	"virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng",
	"vmw_vsock_virtio_transport", "ext4",
}

// needed are those of the roots without which no machine comes up.
var needed = []string{"virtio_blk", "ext4"}

// unpackModules unpacks what stands under …/<version>/ in the tar r into root,
// modules uncompressed, and gives every other file to other, if that is not
// nil. Nothing is written outside, links are left out. It reads r to its end,
// and returns how many files it unpacked.
func unpackModules(r io.Reader, root *os.Root, version string, other func(name string, r io.Reader) error) (files int, err error) {
	limited := &io.LimitedReader{R: r, N: maxModules}
	tr := tar.NewReader(limited)
	var total int64
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if limited.N == 0 {
				return files, errkind.New(errkind.Usage, "the modules are over %d bytes", int64(maxModules))
			}
			_, err := io.Copy(io.Discard, r) // what pads a tar
			return files, err
		}
		if err != nil {
			return files, errkind.New(errkind.Usage, "read the tar of modules: %w", err)
		}
		name := moduleName(h.Name, version)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if name == "" {
			if other != nil {
				if err := other(path.Clean(h.Name), tr); err != nil {
					return files, err
				}
			}
			continue
		}
		if files++; files > maxModuleFiles {
			return files, errkind.New(errkind.Usage, "the tar of modules holds over %d files", maxModuleFiles)
		}
		n, err := unpackModule(tr, root, name)
		if err != nil {
			return files, fmt.Errorf("module %s: %w", name, err)
		}
		if total += n; total > maxModules {
			return files, errkind.New(errkind.Usage, "the modules unpack to over %d bytes", int64(maxModules))
		}
	}
}

// moduleName returns the part of a path in a tar that is under
// lib/modules/<version>/; empty if it is not, or leads out of it.
func moduleName(name, version string) string {
	elems := strings.Split(path.Clean(name), "/")
	i := slices.Index(elems, version)
	if i < 0 || i >= maxModuleDepth || i == len(elems)-1 {
		return ""
	}
	sub := path.Join(elems[i+1:]...)
	if !filepath.IsLocal(sub) || strings.ContainsAny(sub, "\n \t:") { // modules.dep has no quotes
		return ""
	}
	return sub
}

// unpackModule writes one file and returns how large it is.
func unpackModule(r io.Reader, root *os.Root, name string) (int64, error) {
	unpack := func(w io.Writer, r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	}
	for ext, u := range map[string]func(io.Writer, io.Reader) error{".ko.xz": unpackXZ, ".ko.zst": unpackZstd, ".ko.gz": unpackGzip} {
		if base, ok := strings.CutSuffix(name, ext); ok {
			name, unpack = base+".ko", u
		}
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return 0, err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return 0, errkind.New(errkind.Usage, "the tar of modules holds %s twice", name)
	}
	if err != nil {
		return 0, err
	}
	out := &limitWriter{w: f, left: maxModuleFile}
	if err := errors.Join(unpack(out, r), f.Close()); err != nil {
		return 0, err
	}
	return maxModuleFile - out.left, nil
}

// modules is what a kernel's lib/modules/<version> says of its modules.
type modules struct {
	path map[string]string   // of each module, by its name
	deps map[string][]string // names of what a module needs, itself left out
	soft map[string][]string // names or aliases of what it wants loaded before
	name map[string]string   // of a module, by an alias without wildcards
	// builtin holds what the kernel has built in.
	builtin map[string]bool
}

// readModules reads depmod's files.
func readModules(root *os.Root) (*modules, error) {
	m := &modules{map[string]string{}, map[string][]string{}, map[string][]string{}, map[string]string{}, map[string]bool{}}
	for _, f := range []struct {
		name     string
		line     func(string)
		optional bool
	}{
		{"modules.dep", m.addDep, false},
		{"modules.softdep", m.addSoftdep, true},
		{"modules.alias", m.addAlias, true},
		{"modules.builtin", m.addBuiltin, true},
	} {
		err := eachLine(root, f.name, f.line)
		if err != nil && !(f.optional && errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
	}
	return m, nil
}

func eachLine(root *os.Root, name string, line func(string)) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if s := strings.TrimSpace(sc.Text()); s != "" && s[0] != '#' {
			line(s)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// modName is the name of the module in a file, as modprobe(8) has it.
func modName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// addDep takes "kernel/a.ko: kernel/b.ko kernel/c.ko".
func (m *modules) addDep(line string) {
	file, deps, ok := strings.Cut(line, ":")
	if !ok {
		return
	}
	m.path[modName(file)] = file
	for _, d := range strings.Fields(deps) {
		m.deps[modName(file)] = append(m.deps[modName(file)], modName(d))
	}
}

// addSoftdep takes "softdep a pre: b c post: d".
func (m *modules) addSoftdep(line string) {
	f := strings.Fields(line)
	if len(f) < 3 || f[0] != "softdep" {
		return
	}
	pre := false
	for _, w := range f[2:] {
		if strings.HasSuffix(w, ":") {
			pre = w == "pre:"
		} else if pre {
			m.soft[modName(f[1])] = append(m.soft[modName(f[1])], w)
		}
	}
}

// addAlias takes "alias crc32c crc32c_generic".
func (m *modules) addAlias(line string) {
	f := strings.Fields(line)
	if len(f) == 3 && f[0] == "alias" && !strings.ContainsAny(f[1], "*?[") {
		if _, ok := m.name[f[1]]; !ok {
			m.name[f[1]] = modName(f[2])
		}
	}
}

func (m *modules) addBuiltin(line string) { m.builtin[modName(line)] = true }

// bootOrder returns the files of the modules that an initramfs needs, each
// after those that it needs.
func (m *modules) bootOrder() ([]string, error) {
	for _, n := range needed {
		if m.path[n] == "" && !m.builtin[n] {
			return nil, errkind.New(errkind.Usage, "the kernel has no %s, neither built in nor among its modules: it could not find its root disk", n)
		}
	}
	var order []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		if seen[name] || m.path[name] == "" {
			return // seen, built in, or a kernel without it
		}
		seen[name] = true // before its needs: a circle has no order
		for _, d := range m.soft[name] {
			if alias, ok := m.name[d]; ok && m.path[modName(d)] == "" {
				d = alias
			}
			visit(modName(d))
		}
		for _, d := range slices.Backward(m.deps[name]) { // the deepest stands last
			visit(d)
		}
		order = append(order, m.path[name])
	}
	for _, r := range roots {
		visit(r)
	}
	return order, nil
}
