// Package apt uses the host's apt without touching the host's packages: with
// state, cache and sources of its own, but the host's mirrors, keys and way to
// the network.
package apt

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// keyrings are where Debian's package debian-archive-keyring puts its keys,
// in the order of preference.
var keyrings = []string{"/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"}

// IsDebianKeyring reports whether a path is that of a keyring which every
// Debian has.
func IsDebianKeyring(path string) bool { return slices.Contains(keyrings, path) }

// maxSources is how much of a host's file of sources is read, in bytes.
const maxSources = 1 << 20

// Source is one archive: an entry as in sources.list(5).
type Source struct {
	URI        string
	Suites     []string
	Components []string
	SignedBy   string // absolute path of a keyring; empty: the keys that the host trusts for everything
	// NoValidUntil accepts an archive that is out of date, as a snapshot is.
	NoValidUntil bool
}

// Line returns the source as a line of sources.list(5) for one of its suites.
func (s Source) Line(suite string) string {
	var opts []string
	if s.SignedBy != "" {
		opts = append(opts, "signed-by="+s.SignedBy)
	}
	if s.NoValidUntil {
		opts = append(opts, "check-valid-until=no")
	}
	line := "deb "
	if len(opts) > 0 {
		line += "[" + strings.Join(opts, " ") + "] "
	}
	return line + s.URI + " " + suite + " " + strings.Join(s.Components, " ")
}

// Lines returns sources as the text of a sources.list(5).
func Lines(sources []Source) string {
	var b strings.Builder
	for _, s := range sources {
		for _, suite := range s.Suites {
			b.WriteString(s.Line(suite) + "\n")
		}
	}
	return b.String()
}

// HostSources returns the sources of binary packages that are configured under
// etc, such as /etc/apt. What cannot be understood is left out; files that are
// not there are no error.
func HostSources(etc string) ([]Source, error) {
	files := []string{filepath.Join(etc, "sources.list")}
	parts, err := os.ReadDir(filepath.Join(etc, "sources.list.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, p := range parts {
		files = append(files, filepath.Join(etc, "sources.list.d", p.Name()))
	}
	var out []Source
	for _, name := range files {
		var parse func(string) []Source
		switch filepath.Ext(name) {
		case ".list":
			parse = parseList
		case ".sources":
			parse = parseDeb822
		default:
			continue
		}
		text, err := readCapped(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, parse(text)...)
	}
	return out, nil
}

func readCapped(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSources))
	return string(b), err
}

// parseList reads the one-line style.
func parseList(text string) []Source {
	var out []Source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t[") {
			continue
		}
		fields := map[string]string{}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			opts, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			rest = after
			for _, o := range strings.Fields(opts) {
				k, v, _ := strings.Cut(o, "=")
				fields[strings.ToLower(k)] = strings.ReplaceAll(v, ",", " ")
			}
		}
		words := strings.Fields(rest)
		if len(words) < 2 {
			continue
		}
		fields["uris"], fields["suites"], fields["components"] = words[0], words[1], strings.Join(words[2:], " ")
		// The names of options differ in number between the styles.
		fields["architectures"] = fields["arch"]
		out = append(out, fromFields(fields)...)
	}
	return out
}

// parseDeb822 reads the style of paragraphs.
func parseDeb822(text string) []Source {
	var out []Source
	fields, last := map[string]string{}, ""
	flush := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") {
			out = append(out, fromFields(fields)...)
		}
		fields, last = map[string]string{}, ""
	}
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, maxSources+1)
	for sc.Scan() {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += "\n" + strings.TrimSpace(line)
		default:
			k, v, ok := strings.Cut(line, ":")
			if last = strings.ToLower(strings.TrimSpace(k)); ok {
				fields[last] = strings.TrimSpace(v)
			}
		}
	}
	flush()
	return out
}

// fromFields makes a source of each URI that can be fetched from. A source
// that is marked as trusted is as good as any: its signature is checked.
func fromFields(f map[string]string) []Source {
	if strings.EqualFold(f["enabled"], "no") || strings.EqualFold(f["enabled"], "false") {
		return nil
	}
	if archs := strings.Fields(f["architectures"]); len(archs) > 0 && !slices.Contains(archs, Architecture) {
		return nil
	}
	s := Source{Suites: strings.Fields(f["suites"]), Components: strings.Fields(f["components"])}
	// Not a key given in place, nor a fingerprint.
	if k := strings.TrimSpace(f["signed-by"]); filepath.IsAbs(k) && !strings.ContainsAny(k, " \n,]") {
		s.SignedBy = k
	}
	s.NoValidUntil = strings.EqualFold(f["check-valid-until"], "no")
	var out []Source
	for _, u := range strings.Fields(f["uris"]) {
		s.URI = strings.TrimRight(u, "/")
		if checkURI(s.URI) && len(s.Suites) > 0 && len(s.Components) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// checkURI reports whether packages can be fetched from uri by plain means.
func checkURI(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || strings.ContainsAny(uri, " \t\n[]\"") {
		return false
	}
	switch u.Scheme {
	case "http", "https":
		return u.Host != ""
	case "file":
		return path.IsAbs(u.Path)
	}
	return false
}
