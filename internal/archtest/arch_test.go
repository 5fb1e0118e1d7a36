// Package archtest checks that imports run one way.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "banger/"

// rank orders packages; an import must go to a strictly lower rank.
// The longest matching pattern wins.
var rank = map[string]int{
	"internal/errkind": -1, // what every error may carry
	"internal/version": 0, "internal/failpoint": 0, "internal/ctxbody": 0,
	"internal/undo": 0, "internal/keylock": 0,
	"internal/flight": 0, "internal/apt": 1, "internal/filestore": 1,
	"internal/atomicfile": 0, "internal/plainfile": 0, "internal/sparse": 0, "internal/hostcmd": 0, "internal/guest/wire": 0,
	"internal/cgroup": 0, "internal/trace": 0,

	"internal/vm": 1, "internal/vmm": 1, "internal/disk": 1, "internal/network": 1,
	"internal/image": 1, "internal/kernel": 1, "internal/guest": 1, "internal/template": 1,
	"internal/api": 1, "internal/config": 1, "internal/ext4": 1, "internal/sshkey": 1,
	"internal/transfer": 1, "internal/vmm/vmmproc": 1, "internal/sessiondir": 1,

	"internal/handle": 2, "internal/dns": 2, "internal/api/client": 2,
	"internal/vmm/*": 2, "internal/disk/*": 2, "internal/network/*": 2,
	"internal/image/*": 2, "internal/kernel/*": 2, "internal/guest/*": 2, "internal/template/*": 2,

	"internal/lifecycle": 3, "internal/session": 3, "internal/doctor": 3,

	"internal/store": 4, "internal/api/server": 4,
	"internal/session/sessiontest": 4, // a guest, for tests alone

	"internal/daemon": 5, "internal/cli": 5, "internal/agent": 5,

	"internal/daemon/daemontest": 6, // fakes for whole daemons, for tests alone

	"cmd/*": 6, "test/*": 6, "test/bench/*": 6, "test/lab/*": 7,
}

// only lists, for a package with a narrow diet, everything it may import from this module.
var only = map[string][]string{
	"internal/cli":   {"internal/api", "internal/api/client", "internal/config", "internal/hostcmd", "internal/errkind", "internal/transfer", "internal/version", "internal/atomicfile", "internal/trace"},
	"internal/agent": {"internal/guest/wire", "internal/sparse", "internal/atomicfile", "internal/sessiondir", "internal/transfer", "internal/version"},
}

// owners names, as patterns, the only packages that may import an outside one.
// What is not of the standard library needs an entry, which holds for the
// packages below it too; the longest wins. Entries of the standard library
// hold for themselves alone. Tests and generated code may import anything.
var owners = map[string][]string{
	"database/sql": {"internal/store"},
	"os/exec":      {"internal/hostcmd", "internal/agent", "test/*", "test/lab/*"}, // the agent runs what the daemon asks for

	"connectrpc.com/connect": {
		"internal/agent", "internal/api", "internal/api/*", "internal/cli", "internal/daemon",
		"internal/guest/transport", "internal/lifecycle", "internal/session", "internal/session/*", "test/lab",
	},
	"github.com/BurntSushi/toml":         {"internal/config", "internal/image/recipe"},
	"github.com/cavaliergopher/cpio":     {"internal/guest/boot"},
	"github.com/creack/pty":              {"internal/agent"},
	"github.com/google/go-cmp":           {"internal/*/*test"},
	"github.com/klauspost/compress/zstd": {"internal/kernel/fetch"},
	"github.com/pierrec/lz4/v4":          {"internal/kernel/fetch"},
	"github.com/spf13/cobra":             {"internal/cli"},
	"github.com/spf13/pflag":             {"internal/cli"},
	"github.com/ulikunitz/xz":            {"internal/kernel/fetch"},
	"github.com/google/nftables":         {"internal/network/linux"},
	"github.com/miekg/dns":               {"internal/dns"},
	"github.com/pkg/sftp":                {"internal/agent"},
	"github.com/vishvananda/netlink":     {"internal/network/linux"},
	"golang.org/x/crypto":                {"internal/agent", "internal/sshkey"},
	"golang.org/x/sys": { // what talks to the kernel
		"internal/agent", "internal/api/client", "internal/cgroup", "internal/cli", "internal/daemon", "internal/daemon/daemontest",
		"internal/disk/*", "internal/ext4", "internal/filestore", "internal/guest/boot",
		"internal/guest/transport", "internal/handle", "internal/hostcmd",
		"internal/image/recipe", "internal/network/linux", "internal/plainfile", "internal/sparse", "internal/template/templatefs", "internal/transfer", "internal/vmm/*", "test/*", "test/lab/*",
	},
	"golang.org/x/term":          {"internal/cli", "test/lab/*"},
	"google.golang.org/protobuf": {"internal/api", "internal/api/server", "internal/cli"},
	"modernc.org/sqlite":         {"internal/store"},
}

// tool lists what several mechanisms need, such as the wrappers of host programs.
var tool = map[string]bool{"internal/ext4": true, "internal/apt": true, "internal/filestore": true, "internal/vmm/vmmproc": true}

// mechanism reports whether p is one implementation of a contract,
// which only the daemon may choose.
func mechanism(p string) bool {
	for _, noun := range []string{"vmm", "disk", "network", "image", "kernel", "guest", "template"} {
		if strings.HasPrefix(p, "internal/"+noun+"/") && p != "internal/guest/wire" && !tool[p] {
			return true
		}
	}
	return false
}

func rankOf(p string) (int, bool) {
	if r, ok := rank[p]; ok {
		return r, true
	}
	r, ok := rank[path.Dir(p)+"/*"]
	return r, ok
}

// eachFile calls f with every Go file that is not a test, parsed under mode.
//
// The files are read here, not by running "go list": go test sees which files
// a test opens, but not what its children read, and would report a stale pass.
func eachFile(t *testing.T, mode parser.Mode, f func(dir string, file *ast.File)) {
	t.Helper()
	const root = "../.."
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, src, mode)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		f(filepath.ToSlash(rel), parsed)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImports(t *testing.T) {
	eachFile(t, parser.ImportsOnly|parser.ParseComments, func(dir string, f *ast.File) {
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range check(dir, imp, ast.IsGenerated(f)) {
				t.Error(fault)
			}
		}
	})
}

func TestPackagesHaveDocs(t *testing.T) {
	documented := make(map[string]bool)
	eachFile(t, parser.PackageClauseOnly|parser.ParseComments, func(dir string, f *ast.File) {
		generated := f.Doc != nil && strings.HasPrefix(f.Doc.Text(), "Code generated")
		documented[dir] = documented[dir] || f.Doc != nil && !generated
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment: what is it for?", dir)
		}
	}
}

// Exported names say what they promise.
func TestExportedNamesHaveDocs(t *testing.T) {
	eachFile(t, parser.ParseComments|parser.SkipObjectResolution, func(dir string, f *ast.File) {
		if ast.IsGenerated(f) || f.Name.Name == "main" {
			return
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s has no comment", dir, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: type %s has no comment", dir, ts.Name.Name)
					}
				}
			}
		}
	})
}

// exportedReceiver reports whether a function can be named from outside: a
// method of an unexported type answers to an interface that has the comment.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if idx, ok := typ.(*ast.IndexExpr); ok {
		typ = idx.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported() && d.Name.Name != "Error" && d.Name.Name != "String"
}

// check returns what is wrong with package from importing imp.
func check(from, imp string, generated bool) []string {
	rf, ok := rankOf(from)
	if !ok {
		return []string{from + " has no rank: decide where it belongs"}
	}
	to, ours := strings.CutPrefix(imp, module)
	if ours {
		return checkInside(from, to, rf)
	}
	if fault := checkOutside(from, imp); fault != "" && !generated {
		return []string{fault}
	}
	return nil
}

// checkInside is check for an import of this module by a package of rank rf.
func checkInside(from, to string, rf int) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	rt, _ := rankOf(to)
	if rt >= rf {
		fault("%s (rank %d) imports %s (rank %d)", from, rf, to, rt)
	}
	if mechanism(from) && rt == 1 && to != path.Dir(from) && !tool[to] {
		fault("%s imports %s; a mechanism knows only its own noun", from, to)
	}
	if mechanism(to) && from != "internal/daemon" && from != "internal/daemon/daemontest" && from != "test/lab" { // a machine of its own
		fault("%s imports mechanism %s; take the contract instead", from, to)
	}
	if tool[to] && !mechanism(from) && from != "internal/daemon" {
		fault("%s imports tool %s; only mechanisms and the daemon may", from, to)
	}
	if diet, ok := only[from]; ok && !slices.Contains(diet, to) {
		fault("%s must not import %s", from, to)
	}
	return faults
}

// checkOutside is check for an import from outside this module.
func checkOutside(from, imp string) string {
	patterns, ok := ownersOf(imp)
	switch {
	case !ok && standard(imp):
		return ""
	case !ok:
		return fmt.Sprintf("%s imports %s, which nobody owns: name its owners, and it in docs/dependencies.md", from, imp)
	case slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, from); return ok }):
		return ""
	}
	return fmt.Sprintf("%s imports %s, which belongs to %v", from, imp, patterns)
}

// ownersOf returns the patterns of the packages that may import imp.
func ownersOf(imp string) (patterns []string, ok bool) {
	if patterns, ok := owners[imp]; ok || standard(imp) {
		return patterns, ok
	}
	for p := path.Dir(imp); p != "."; p = path.Dir(p) {
		if patterns, ok := owners[p]; ok {
			return patterns, true
		}
	}
	return nil, false
}

// standard reports whether a package is of the standard library: the paths of
// all others begin with the name of a host.
func standard(imp string) bool {
	host, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(host, ".")
}
