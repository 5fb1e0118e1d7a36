package apt

import (
	"os"
	"path"
	"slices"
	"strings"

	"banger/internal/errkind"
)

// Resolve returns where the packages of a Debian suite come from, with its
// updates and security updates: from mirror, if it is not empty, else from
// where the host's own sources get them, else from Debian.
//
// A mirror serves the suite and its updates; security updates come from where
// the host gets its own, if it does: a mirror need not have them.
func Resolve(host []Source, suite string, components []string, mirror string) ([]Source, error) {
	r := resolver{host: host, suite: suite, components: components}
	var sources []Source
	switch own := r.listing(suite); {
	case mirror != "":
		if !checkURI(mirror) {
			return nil, errkind.New(errkind.Usage, "mirror %q: it takes a URI of http, https or file", mirror)
		}
		base := Source{URI: strings.TrimRight(mirror, "/")}
		if i := slices.IndexFunc(host, func(s Source) bool { return s.URI == base.URI }); i >= 0 {
			base = host[i]
		}
		sources = append(r.pockets(base, suite, suite+"-updates"), r.security()...)
	case own != nil:
		// Only what the host itself has: it may have its reasons.
		sources = r.pockets(*own, suite)
		if up := r.listing(suite + "-updates"); up != nil {
			sources = append(sources, r.pockets(*up, suite+"-updates")...)
		}
		sources = append(sources, r.security()...)
	case r.debian() != nil:
		sources = append(r.pockets(*r.debian(), suite, suite+"-updates"), r.security()...)
	default:
		return nil, errkind.New(errkind.Host, "the apt configuration of this host names no Debian archive over http, https or file; set mirror in banger's config.toml")
	}
	return withKeys(sources, host)
}

type resolver struct {
	host       []Source
	suite      string
	components []string
}

// pockets is s for the given suites.
func (r resolver) pockets(s Source, suites ...string) []Source {
	s.Suites, s.Components = suites, r.components
	return []Source{s}
}

// listing is the host's first source of a suite.
func (r resolver) listing(suite string) *Source {
	for i, s := range r.host {
		if slices.Contains(s.Suites, suite) && slices.Contains(s.Components, "main") {
			return &r.host[i]
		}
	}
	return nil
}

// debian is the host's first source of any suite of Debian's.
func (r resolver) debian() *Source {
	for i, s := range r.host {
		if path.Base(s.URI) == "debian" && slices.Contains(s.Components, "main") {
			return &r.host[i]
		}
	}
	return nil
}

// security is where the host gets its security updates, for our suite; none
// if it does not.
func (r resolver) security() []Source {
	if s := r.listing(r.suite + "-security"); s != nil {
		return r.pockets(*s, r.suite+"-security")
	}
	for _, s := range r.host {
		if path.Base(s.URI) == "debian-security" {
			return r.pockets(s, r.suite+"-security")
		}
	}
	return nil
}

// withKeys sees to it that every source that the host has no opinion about is
// checked against Debian's own keys.
func withKeys(sources, host []Source) ([]Source, error) {
	ring := ""
	for _, k := range keyrings {
		if _, err := os.Stat(k); err == nil {
			ring = k
			break
		}
	}
	for i, s := range sources {
		known := slices.ContainsFunc(host, func(h Source) bool { return h.URI == s.URI })
		if s.SignedBy != "" || known {
			continue
		}
		if ring == "" {
			return nil, errkind.WithHint(errkind.New(errkind.Host, "the keys of Debian's archive are not installed"), "apt-get install -y debian-archive-keyring")
		}
		sources[i].SignedBy = ring
	}
	return sources, nil
}
