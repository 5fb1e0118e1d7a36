package cli

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"banger/internal/api"
	"banger/internal/errkind"
)

// What people read on standard error, always in this form:
//
//	banger: cannot start web: create tap: operation not permitted
//	hint: sudo banger daemon start
//
// and with --json {"error":{"kind","message","hints"}}.

// failure says what could not be done.
type failure struct {
	doing string // "start web"
	err   error
}

// cannot says what err was the end of. An error that says so already keeps its
// own words. cannot of nil is nil.
func cannot(doing string, err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) || isOutput(err) {
		return err
	}
	return &failure{doing, err}
}

func (f *failure) Error() string { return "cannot " + f.doing + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usage is an error of the command line.
func usage(format string, args ...any) error {
	return errkind.New(errkind.Usage, format, args...)
}

// tell writes an error to standard error.
func (a *app) tell(err error) {
	d := api.Detail(err)
	for i, h := range d.Hints {
		d.Hints[i] = a.hint(h)
	}
	d.Hints = slices.Compact(d.Hints)
	if a.json {
		a.tellJSON(d)
		return
	}
	fmt.Fprintf(a.Err, "banger: %s\n", clean(d.Message))
	for _, h := range d.Hints {
		fmt.Fprintf(a.Err, "hint: %s\n", clean(h))
	}
}

func (a *app) tellJSON(d *api.ErrorDetail) {
	doc, err := api.Marshal(d)
	if err != nil {
		panic("internal error: encode an error: " + err.Error())
	}
	doc = bytes.ReplaceAll(bytes.TrimSpace(doc), []byte("\n"), []byte("\n  "))
	fmt.Fprintf(a.Err, "{\n  \"error\": %s\n}\n", doc)
}

// warn tells of something that changes nothing about the outcome.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.Err, "banger: warning: %s\n", clean(fmt.Sprintf(format, args...)))
}

// note tells something that nobody has to know.
func (a *app) note(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.Err, "banger: %s\n", clean(fmt.Sprintf(format, args...)))
	}
}

// hint makes a hint work where it is pasted: with banger as it was called, and
// for the same root. Sudo drops the variable that names one.
func (a *app) hint(h string) string {
	lines := strings.Split(h, " && ")
	for i, l := range lines {
		args, sudo := strings.CutPrefix(l, "sudo ")
		rest, ours := strings.CutPrefix(args, "banger ")
		if !ours {
			continue
		}
		words := []string{a.self()}
		dir := a.rootDir
		if dir == "" && sudo {
			dir = a.env.get("BANGER_ROOT")
		}
		if dir != "" {
			words = append(words, "--root", errkind.Quote(dir))
		}
		if sudo {
			words = append([]string{"sudo"}, words...)
		}
		lines[i] = strings.Join(append(words, rest), " ")
	}
	return strings.Join(lines, " && ")
}

// quoteAll makes a shell take args as they are.
func quoteAll(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = errkind.Quote(arg)
	}
	return strings.Join(words, " ")
}

// clean makes text fit for a terminal: what a guest wrote may be part of it,
// and must move no cursor. Lines stay lines.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r == '\r':
			return -1
		case unicode.IsControl(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// printDoc writes the one document of --json.
func (a *app) printDoc(m proto.Message) error {
	doc, err := api.Marshal(m)
	if err != nil {
		return err
	}
	return a.print(doc)
}
