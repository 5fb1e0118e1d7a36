package agent

import "bytes"

// Marks around the lines of a text file that belong to the daemon.
const (
	blockBegin = "# banger: begin (written at every boot)"
	blockEnd   = "# banger: end"
)

// withBlock returns text with lines between the marks, in the place where the
// marks stood or at the end. What stands outside them is left as it is.
func withBlock(text []byte, lines []string) []byte {
	before, after := cutBlock(text)
	var out bytes.Buffer
	out.Write(before)
	if len(before) > 0 && before[len(before)-1] != '\n' {
		out.WriteByte('\n')
	}
	out.WriteString(blockBegin + "\n")
	for _, line := range lines {
		out.WriteString(line + "\n")
	}
	out.WriteString(blockEnd + "\n")
	out.Write(after)
	return out.Bytes()
}

// withoutBlock returns text without the marks and what is between them.
func withoutBlock(text []byte) []byte {
	before, after := cutBlock(text)
	return append(bytes.Clone(before), after...)
}

// cutBlock returns what stands before and behind the marks, each a line of its
// own. Without both of them, all of text is before: a lone mark is left to
// whoever wrote it.
func cutBlock(text []byte) (before, after []byte) {
	begin, rest, ok := findLine(text, blockBegin)
	if !ok {
		return text, nil
	}
	_, after, ok = findLine(rest, blockEnd)
	if !ok {
		return text, nil
	}
	return begin, after
}

// findLine returns what is before and behind the first line that is want.
func findLine(text []byte, want string) (before, after []byte, ok bool) {
	for at := 0; at < len(text); {
		line, rest, _ := bytes.Cut(text[at:], []byte("\n"))
		if string(line) == want {
			return text[:at], rest, true
		}
		at = len(text) - len(rest)
		if len(rest) == 0 {
			break
		}
	}
	return text, nil, false
}
