package cli

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/config"
)

// table is rows of cells under a heading, in aligned columns.
type table struct {
	head []string
	rows [][]string
	// color, if not nil, returns the SGR parameters (ECMA-48) of a cell's
	// text, or "".
	color func(column int, cell string) string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// text lays the table out. The last column is not padded.
func (t *table) text(colored bool) string {
	width := make([]int, len(t.head))
	rows := append([][]string{t.head}, t.rows...)
	for _, row := range rows {
		for i := range row {
			row[i] = strings.ReplaceAll(clean(row[i]), "\n", " ")
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+3)
			if sgr := t.sgr(n, i, cell); colored && sgr != "" {
				cell = "\x1b[" + sgr + "m" + cell + "\x1b[0m"
			}
			line.WriteString(cell + pad)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

func (t *table) sgr(row, column int, cell string) string {
	if row == 0 || t.color == nil {
		return ""
	}
	return t.color(column, cell)
}

// printTable writes a table to standard output.
func (a *app) printTable(t *table) error {
	_, tty := terminal(a.Out)
	return a.print([]byte(t.text(tty && a.env.get("NO_COLOR") == "" && a.env.get("TERM") != "dumb")))
}

// facts is a list of names and values, one to a line. Those without a value
// are left out.
type facts [][2]string

func (f *facts) add(name, value string) {
	if value != "" {
		*f = append(*f, [2]string{name, value})
	}
}

func (a *app) printFacts(f facts) error {
	width := 0
	for _, nv := range f {
		width = max(width, len(nv[0]))
	}
	var b strings.Builder
	for _, nv := range f {
		value := strings.ReplaceAll(clean(nv[1]), "\n", "\n"+strings.Repeat(" ", width+2))
		fmt.Fprintf(&b, "%-*s  %s\n", width, nv[0], value)
	}
	return a.print([]byte(b.String()))
}

// size writes a number of bytes for people: exactly if it is a whole number of
// some unit, else with one decimal.
func size(n int64) string {
	if n <= 0 {
		return ""
	}
	s := config.Size(n)
	if text := s.String(); n < 1<<10 || text[len(text)-1] > '9' && len(text) <= 5 {
		return text
	}
	unit, f := 0, float64(n)
	for f >= 1024 && unit < len("KMGT") {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f%c", f, "KMGT"[unit-1])
}

// age writes how long ago something was.
func age(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	d := max(0, now.Sub(t.AsTime()))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// moment writes a time for people, in their own zone.
func moment(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05") + " (" + age(t, now) + ")"
}
