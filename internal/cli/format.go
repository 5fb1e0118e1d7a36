package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/config"
)

const (
	gap = 2 // columns of a terminal between two of a table
	// leastLast is how far the last column gives way while another could.
	leastLast = 24
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

// text lays the table out in lines of at most width columns (0: as many as it
// takes); what does not fit is cut and ends with mark. The last column is not
// padded.
func (t *table) text(width int, mark string, colored bool) string {
	rows := append([][]string{t.head}, t.rows...)
	for _, row := range rows {
		for i := range row {
			row[i] = strings.ReplaceAll(clean(row[i]), "\n", " ")
		}
	}
	widths := t.widths(rows, width)
	var b strings.Builder
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = cutWith(cell, widths[i], mark)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap)
			if sgr := t.sgr(n, i, cell); colored && sgr != "" {
				cell = "\x1b[" + sgr + "m" + cell + "\x1b[0m"
			}
			line.WriteString(cell + pad)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// widths returns how wide columns are: as their cells, if that fits. Else the
// last gives way first, and then whichever is widest.
func (t *table) widths(rows [][]string, limit int) []int {
	widths := make([]int, len(t.head))
	total := gap * (len(t.head) - 1)
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		total += widths[i]
	}
	if limit <= 0 || total <= limit {
		return widths
	}
	last := len(widths) - 1
	kept := max(min(widths[last], leastLast), widths[last]-(total-limit))
	total -= widths[last] - kept
	widths[last] = kept
	for ; total > limit; total-- {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		widths[widest] = max(0, widths[widest]-1)
	}
	return widths
}

// cutWith shortens s to n runes, the last of them mark.
func cutWith(s string, n int, mark string) string {
	if utf8.RuneCountInString(s) <= n || n == 0 {
		return cut(s, n)
	}
	return cut(s, n-1) + mark
}

func (t *table) sgr(row, column int, cell string) string {
	if row == 0 || t.color == nil {
		return ""
	}
	return t.color(column, cell)
}

// layOut makes a table fit for w: on a terminal as wide as that, and coloured.
func (a *app) layOut(t *table, w io.Writer) string {
	f, ok := terminal(w)
	if !ok {
		return t.text(0, "", false)
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 1 {
		width = 80
	}
	mark := "~"
	if a.utf8() {
		mark = "…"
	}
	return t.text(width, mark, a.colorful())
}

// colorful reports whether a terminal may show colours.
func (a *app) colorful() bool { return a.env.get("NO_COLOR") == "" && a.env.get("TERM") != "dumb" }

// printTable writes a table to standard output.
func (a *app) printTable(t *table) error { return a.print([]byte(a.layOut(t, a.Out))) }

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

// age writes how long ago something was, briefly.
func age(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	return briefly(now.Sub(t.AsTime()))
}

// briefly writes a length of time in its largest unit; less than none is none.
func briefly(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// moment writes a time for people, in their own zone.
func moment(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05") + " (" + age(t, now) + " ago)"
}
