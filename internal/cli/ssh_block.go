package cli

import (
	"bytes"
	"fmt"
	"strings"

	"banger/internal/errkind"
)

// An sshBlock is the part of an ssh_config(5) that is one instance's. It stands
// between two marks that carry the instance's tag, so that several can be in
// one file, and ends with "Match all": what follows holds for all hosts, as it
// did without the block.
type sshBlock struct {
	tag     string // see config.Paths
	undo    string // the command that removes the block
	options []sshOption
}

// made is what installing a block has made that was not there, and uninstalling
// it removes.
type made struct{ file, dir bool }

const (
	andFile = ", and the file"
	andDir  = ", and its directory"
)

func (b sshBlock) begin() string { return "# banger " + b.tag + " begin: " }
func (b sshBlock) end() string   { return "# banger " + b.tag + " end" }

// host is what there is to say about machines.
func (b sshBlock) host() []byte {
	var text bytes.Buffer
	text.WriteString("Host *" + dnsSuffix + "\n")
	for _, o := range b.options {
		fmt.Fprintf(&text, "    %s %s\n", o.key, o.value)
	}
	return text.Bytes()
}

// install returns text with the block at its top: the first value of an option
// is the one that counts. It is an error if text holds a part of a block.
func (b sshBlock) install(text []byte, m made) ([]byte, error) {
	rest, old, found, err := b.uninstall(text)
	if err != nil {
		return nil, err
	}
	if found {
		m = old
	}
	var out bytes.Buffer
	out.WriteString(b.begin() + quoteMark(b.undo) + " removes these lines")
	if m.file {
		out.WriteString(andFile)
	}
	if m.dir {
		out.WriteString(andDir)
	}
	out.WriteByte('\n')
	out.Write(b.host())
	out.WriteString("Match all\n" + b.end() + "\n")
	out.Write(rest)
	return out.Bytes(), nil
}

// quoteMark puts a command into a comment.
func quoteMark(s string) string { return `"` + s + `"` }

// uninstall returns text without the block, what installing it has made, and
// whether there was one. It is an error if text holds a part of a block.
func (b sshBlock) uninstall(text []byte) (rest []byte, m made, found bool, err error) {
	begin, end := mark{}, mark{}
	number := 0
	for at := 0; at < len(text); {
		number++
		next := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		line := strings.TrimRight(string(text[at:next]), " \t\r\n")
		here := mark{number, at, next, line}
		switch {
		case strings.HasPrefix(line, b.begin()):
			if begin.number != 0 {
				return nil, made{}, false, damaged("line %d begins banger's block, and so does line %d", number, begin.number)
			}
			begin = here
		case line == b.end():
			if begin.number == 0 || end.number != 0 {
				return nil, made{}, false, damaged("line %d ends a block of banger's that does not begin", number)
			}
			end = here
		}
		at = next
	}
	switch {
	case begin.number == 0:
		return text, made{}, false, nil
	case end.number == 0:
		return nil, made{}, false, damaged("line %d begins a block of banger's that does not end", begin.number)
	}
	m.dir = strings.HasSuffix(begin.line, andDir)
	m.file = strings.HasSuffix(strings.TrimSuffix(begin.line, andDir), andFile)
	return append(bytes.Clone(text[:begin.from]), text[end.to:]...), m, true, nil
}

// A mark is a line of the file.
type mark struct {
	number   int // from 1; 0: there is none
	from, to int // where it stands in the text
	line     string
}

func damaged(format string, args ...any) error {
	return errkind.New(errkind.Conflict, format, args...)
}
