// Package recipe is the library of images: it builds them from recipes, with
// Debian's packages, and keeps them. See [banger/internal/filestore] for where
// files stand.
package recipe

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"banger/internal/errkind"
)

// Ways to put packages into an image.
const (
	// methodInstall installs them, with what they depend on, as Debian's
	// installer would.
	methodInstall = "install"
	// methodExtract only unpacks their files: no dependencies, no scripts.
	methodExtract = "extract"
)

// Recipe says what an image holds. It names no mirror: that is the host's
// affair.
type Recipe struct {
	Description string   `toml:"description"`
	Suite       string   `toml:"suite"`      // of Debian; required
	Components  []string `toml:"components"` // required
	Method      string   `toml:"method"`     // "install" or "extract"; required
	Packages    []string `toml:"packages"`   // required
	Kernel      string   `toml:"kernel"`     // that it is meant for; required
	Init        string   `toml:"init"`       // absolute path; empty: none
	Busybox     string   `toml:"busybox"`    // absolute path of a BusyBox all of whose applets get links; empty: none
	Exclude     []string `toml:"exclude"`    // patterns of files that are not unpacked (dpkg(1), path-exclude) …
	Keep        []string `toml:"keep"`       // … but for these
	Remove      []string `toml:"remove"`     // paths, with all below them
	Mask        []string `toml:"mask"`       // units of systemd
	Dirs        []Dir    `toml:"dir"`
	Links       []Link   `toml:"link"`
	Files       []File   `toml:"file"`

	hash string // hexadecimal SHA-256 of its text
}

// Dir is a directory to make, or to give a mode.
type Dir struct {
	Path string `toml:"path"`
	Mode mode   `toml:"mode"` // 0: 0755
}

// Link is a symbolic link to make, in place of what is there.
type Link struct {
	Path   string `toml:"path"`
	Target string `toml:"target"`
}

// File is a file to write, owned by root, in place of what is there.
type File struct {
	Path string `toml:"path"`
	Mode mode   `toml:"mode"` // 0: 0644
	Text string `toml:"text"` // a newline at its beginning is for the recipe's looks
}

// mode is a file's permissions as in "0755".
type mode uint32

// UnmarshalText reads octal digits.
func (m *mode) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 8, 12)
	if err != nil {
		return fmt.Errorf("mode %q: it takes octal digits, at most 7777", text)
	}
	*m = mode(v)
	return nil
}

// maxRecipe is how long a recipe's text may be, in bytes.
const maxRecipe = 1 << 20

// Parse reads a recipe. Unknown keys and values that make no sense are errors
// of kind [errkind.Usage] that name them.
func Parse(text []byte) (Recipe, error) {
	if len(text) > maxRecipe {
		return Recipe{}, errkind.New(errkind.Usage, "recipe is over %d bytes", maxRecipe)
	}
	var r Recipe
	md, err := toml.Decode(string(text), &r)
	var pe toml.ParseError
	if errors.As(err, &pe) {
		return Recipe{}, errkind.New(errkind.Usage, "recipe, line %d: %s", pe.Position.Line, pe.Message)
	}
	if err != nil {
		return Recipe{}, errkind.New(errkind.Usage, "recipe: %w", err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		return Recipe{}, errkind.New(errkind.Usage, "recipe: unknown key %q", un[0].String())
	}
	if err := r.check(); err != nil {
		return Recipe{}, errkind.New(errkind.Usage, "recipe: %w", err)
	}
	sum := sha256.Sum256(text)
	r.hash = hex.EncodeToString(sum[:])
	return r, nil
}

// What reaches a command line or a configuration file of apt or dpkg.
var (
	suiteForm   = regexp.MustCompile(`^[a-z][a-z0-9.-]*$`)
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	patternForm = regexp.MustCompile(`^/[A-Za-z0-9_.,:@+*?/\[\]-]+$`)
	unitForm    = regexp.MustCompile(`^[A-Za-z0-9@_.:-]+\.(service|socket|timer|target|mount|path|slice)$`)
	labelForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

func (r Recipe) check() error {
	for _, f := range []struct {
		key      string
		form     *regexp.Regexp
		values   []string
		required bool
	}{
		{"suite", suiteForm, []string{r.Suite}, true},
		{"components", suiteForm, r.Components, true},
		{"packages", packageForm, r.Packages, true},
		{"kernel", labelForm, []string{r.Kernel}, true},
		{"exclude", patternForm, r.Exclude, false},
		{"keep", patternForm, r.Keep, false},
		{"mask", unitForm, r.Mask, false},
	} {
		if f.required && (len(f.values) == 0 || f.values[0] == "") {
			return fmt.Errorf("%q is missing", f.key)
		}
		for _, v := range f.values {
			if !f.form.MatchString(v) {
				return fmt.Errorf("%s: %q is none", f.key, v)
			}
		}
	}
	if r.Method != methodInstall && r.Method != methodExtract {
		return fmt.Errorf("method = %q: it takes %q or %q", r.Method, methodInstall, methodExtract)
	}
	return r.checkPaths()
}

func (r Recipe) checkPaths() error {
	paths := slices.Clone(r.Remove)
	for _, d := range r.Dirs {
		paths = append(paths, d.Path)
	}
	for _, l := range r.Links {
		paths = append(paths, l.Path)
		if l.Target == "" || strings.ContainsRune(l.Target, 0) {
			return fmt.Errorf("link %s: target %q", l.Path, l.Target)
		}
	}
	for _, f := range r.Files {
		paths = append(paths, f.Path)
	}
	for _, p := range []string{r.Init, r.Busybox} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
			return fmt.Errorf("%q is no absolute path of a file in the image", p)
		}
	}
	return nil
}

//go:embed recipes/*.toml
var embedded embed.FS

// known returns the text of the recipe called name; false if there is none.
func known(name string) ([]byte, bool) {
	text, err := embedded.ReadFile("recipes/" + name + ".toml")
	return text, err == nil
}

// knownNames returns the names of all recipes, sorted.
func knownNames() []string {
	entries, err := embedded.ReadDir("recipes")
	if err != nil {
		panic("internal error: no embedded recipes: " + err.Error())
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".toml"))
	}
	return names
}
