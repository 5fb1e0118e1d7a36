package session

import (
	"cmp"
	"slices"
	"strings"
	"unicode"

	"banger/internal/errkind"
	"banger/internal/guest/wire"
	"banger/internal/vm"
)

// Limits of a request.
const (
	maxWords    = 512 << 10 // bytes of command, arguments and environment; the agent takes 1 MiB
	maxTags     = 64
	maxTag      = 128     // bytes
	minLogLimit = 4 << 10 // bytes
)

// Request is what a caller wants started.
type Request struct {
	Name     string // empty: one is made up
	Argv     []string
	Dir      string // empty: the user's home
	Env      map[string]string
	User     string         // empty: root
	Stdin    string         // empty: Closed
	Terminal *wire.Terminal // of a PTY; may be nil
	Tags     []string
	Required []string
	LogLimit int64 // 0: the configured one
}

// record checks a request and returns the record of it. What makes no sense is
// [errkind.Usage].
func (r Request) record(logLimit int64) (Session, error) {
	if len(r.Argv) == 0 || r.Argv[0] == "" {
		return Session{}, errkind.New(errkind.Usage, "no command was given")
	}
	s := Session{
		ID: NewID(), Name: r.Name, Command: r.Argv[0], Args: r.Argv[1:], Dir: r.Dir, Env: r.Env,
		User: cmp.Or(r.User, "root"), Stdin: cmp.Or(r.Stdin, Closed), Tags: unique(r.Tags),
		Required: unique(r.Required), LogLimit: cmp.Or(r.LogLimit, logLimit),
		Standing: Standing{Status: Starting},
	}
	if !slices.Contains([]string{Closed, Pipe, PTY}, s.Stdin) {
		return s, errkind.New(errkind.Usage, "%.70q is no stdin of a session; there is %s, %s and %s", s.Stdin, Closed, Pipe, PTY)
	}
	if s.LogLimit < minLogLimit {
		return s, errkind.New(errkind.Usage, "a log of %d bytes: it takes at least %d", s.LogLimit, minLogLimit)
	}
	if s.Name != "" {
		if err := CheckName(s.Name); err != nil {
			return s, err
		}
	}
	if err := s.checkWords(); err != nil {
		return s, err
	}
	return s, s.checkTags()
}

// CheckName refuses what cannot name a session, as [vm.CheckName] does.
func CheckName(name string) error {
	if vm.CheckName(name) != nil {
		return errkind.New(errkind.Usage, "%.70q is no name for a session: it takes 1 to 63 lower-case letters, digits and inner hyphens", name)
	}
	return nil
}

// checkWords refuses what no command can be started with (execve(2): its words
// end at the first NUL).
func (s Session) checkWords() error {
	words := slices.Concat([]string{s.Command, s.Dir, s.User}, s.Args, s.Required)
	for k, v := range s.Env {
		if k == "" || strings.Contains(k, "=") {
			return errkind.New(errkind.Usage, "%.70q is no name of an environment variable", k)
		}
		words = append(words, k, v)
	}
	total := 0
	for _, w := range words {
		total += len(w)
		if strings.Contains(w, "\x00") {
			return errkind.New(errkind.Usage, "%.70q: no word of a command can hold a NUL", w)
		}
	}
	if slices.Contains(s.Required, "") {
		return errkind.New(errkind.Usage, "a required command has no name")
	}
	if total > maxWords {
		return errkind.New(errkind.Usage, "command and environment of %d bytes: a session takes at most %d", total, maxWords)
	}
	return nil
}

func (s Session) checkTags() error {
	if len(s.Tags) > maxTags {
		return errkind.New(errkind.Usage, "%d tags: a session takes at most %d", len(s.Tags), maxTags)
	}
	for _, t := range s.Tags {
		if t == "" || len(t) > maxTag || strings.ContainsFunc(t, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return errkind.New(errkind.Usage, "%.70q is no tag: it takes 1 to %d bytes of printable text", t, maxTag)
		}
	}
	return nil
}

// unique is a list without what came before in it; nil if it is empty.
func unique(list []string) (out []string) {
	had := make(map[string]bool)
	for _, s := range list {
		if !had[s] {
			out = append(out, s)
		}
		had[s] = true
	}
	return out
}

// start is what the agent is asked for.
func (s Session) start(t *wire.Terminal) *wire.StartSessionRequest {
	if s.Stdin != PTY {
		t = nil
	} else if t == nil {
		t = &wire.Terminal{}
	}
	return &wire.StartSessionRequest{
		Id: string(s.ID), Stdin: s.Stdin, Required: s.Required, LogLimitBytes: s.LogLimit,
		Command: &wire.ExecStart{
			Argv: slices.Concat([]string{s.Command}, s.Args), Env: s.Env, Cwd: s.Dir, User: s.User,
			Tty: t, Stdin: s.Stdin != Closed,
		},
	}
}
