// Package docs reads the examples of the pages that people read, and runs
// them: README.md and docs/*.md.
//
// An example is a line of a fenced block. What follows the fence says how its
// block is read, and where it runs:
//
//	console          "$ " begins a command, "> " goes on with it; what follows
//	                 up to the next "$ " is what it prints
//	sh               every line is a command; what it prints is not looked at
//	console real     the same, in a real machine alone, with the small image
//	console debian   the same, with Debian's; both also behind sh
//	help             a command's help, which another test compares
//
// Where no machine is real, guests' commands run on the host: what writes
// anywhere or looks at the guest is real. A page with a real block is run from
// its first line to its last on a real daemon, too.
//
// In what a command prints, "…" stands for anything within a line, a line of
// its own for any lines, and blanks for any number of blanks. Lines that tell
// of progress may be left out. A line "^C" interrupts the command once it has
// printed what stands before. Nothing shown: anything may be printed. A
// command must end with 0, unless an error of banger's is shown.
//
// Every page begins with a daemon of its own without machines, in an empty
// directory, which is HOME too. Each command is a shell of its own.
package docs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Page is a Markdown file with examples.
type Page struct {
	Name     string // of the file, as in "docs/machines.md"
	Examples []Example
}

// An Example is one command of a page.
type Example struct {
	Line    int    // of the page, from 1
	Command string // for sh -c
	Want    []string
	Real    bool // it needs a real machine …
	Debian  bool // … of the Debian image
}

// Pages returns README.md and docs/*.md of the repository at root. A block
// that looks like an example and is marked as none is an error.
func Pages(root string) ([]Page, error) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	var pages []Page
	for _, file := range append([]string{filepath.Join(root, "README.md")}, files...) {
		name, err := filepath.Rel(root, file)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		p, err := parse(name, string(text))
		if err != nil {
			return nil, err
		}
		pages = append(pages, p)
	}
	return pages, nil
}

// Real reports whether the page has examples that need a real machine.
func (p Page) Real() bool {
	return slices.ContainsFunc(p.Examples, func(e Example) bool { return e.Real })
}

// Debian reports whether one of them needs the Debian image.
func (p Page) Debian() bool {
	return slices.ContainsFunc(p.Examples, func(e Example) bool { return e.Debian })
}

// Pretend returns the page without the examples that need a real machine.
func (p Page) Pretend() Page {
	p.Examples = slices.DeleteFunc(slices.Clone(p.Examples), func(e Example) bool { return e.Real })
	return p
}

const fence = "```"

// parse reads a page.
func parse(name, text string) (Page, error) {
	p := Page{Name: name}
	var info string
	var block []string
	start := 0 // line of the fence; 0: outside of a block
	for i, line := range strings.Split(text, "\n") {
		after, isFence := strings.CutPrefix(strings.TrimSpace(line), fence)
		switch {
		case isFence && start == 0:
			info, start, block = after, i+1, nil
		case isFence:
			examples, err := readBlock(info, block, start+1)
			if err != nil {
				return p, fmt.Errorf("%s:%d: %w", name, start, err)
			}
			p.Examples = append(p.Examples, examples...)
			start = 0
		case start > 0:
			block = append(block, line)
		}
	}
	if start > 0 {
		return p, fmt.Errorf("%s:%d: the block has no end", name, start)
	}
	return p, nil
}

// readBlock reads the examples of a block whose first line has this number.
func readBlock(info string, lines []string, first int) ([]Example, error) {
	lang, where, _ := strings.Cut(info, " ")
	var examples []Example
	switch lang {
	case "console":
		examples = console(lines, first)
	case "sh":
		examples = script(lines, first)
	case "help":
		return nil, nil
	default:
		if slices.ContainsFunc(lines, looksRun) {
			return nil, errors.New(`a block with commands is marked "console" or "sh"`)
		}
		return nil, nil
	}
	if len(examples) == 0 || where != "" && where != "real" && where != "debian" {
		return nil, fmt.Errorf("block %q has no command, or is marked by an unknown word", info)
	}
	for i := range examples {
		examples[i].Real, examples[i].Debian = where != "", where == "debian"
	}
	return examples, nil
}

func looksRun(line string) bool {
	return strings.HasPrefix(line, "$ ") || strings.HasPrefix(line, "banger ")
}

// console reads a block that is a terminal's.
func console(lines []string, first int) []Example {
	var examples []Example
	for i, line := range lines {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			examples = append(examples, Example{Line: first + i, Command: command})
			continue
		}
		if len(examples) == 0 {
			continue
		}
		e := &examples[len(examples)-1]
		if more, ok := strings.CutPrefix(line, ">"); ok && len(e.Want) == 0 {
			e.Command += "\n" + strings.TrimPrefix(more, " ")
		} else if strings.TrimSpace(line) != "" {
			e.Want = append(e.Want, line)
		}
	}
	return examples
}

// script reads a block of commands alone.
func script(lines []string, first int) []Example {
	var examples []Example
	more := false
	for i, line := range lines {
		switch {
		case more:
			examples[len(examples)-1].Command += "\n" + line
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
			continue
		default:
			examples = append(examples, Example{Line: first + i, Command: line})
		}
		more = strings.HasSuffix(line, `\`)
	}
	return examples
}
