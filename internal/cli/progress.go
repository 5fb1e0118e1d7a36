package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"banger/internal/api"
)

const (
	// quietFor is how long nothing is shown: what is done by then needs no
	// progress.
	quietFor = 300 * time.Millisecond
	// longFor is how long a stage that mostly takes no time goes without a
	// line where progress is lines.
	longFor = time.Second
	// redrawEvery is how often a terminal's line is drawn anew.
	redrawEvery = 100 * time.Millisecond
)

// progress tells on standard error what is being done: on a terminal one line
// that is drawn anew and goes before anything else is printed, elsewhere a
// line for each stage. Its methods may be called concurrently.
type progress struct {
	app  *app
	tty  *os.File // nil: not a terminal
	off  bool
	utf8 bool

	mu      sync.Mutex
	began   time.Time
	current *api.Progress   // nil: nothing to tell
	since   time.Time       // when current's stage began
	told    map[string]bool // stages and notices that have their line
	waiting []dueLine       // in the order in which they are due
	drawn   bool            // the terminal's line is there
	frame   int
	done    chan struct{}
	stopped sync.WaitGroup
	ended   bool
}

// dueLine is a stage that gets its line if it still goes on then.
type dueLine struct {
	stage string
	at    time.Time
	brief bool // no line if it is over by then
}

// progress begins to tell. Call stop before anything else is written.
func (a *app) progress() *progress {
	p := &progress{app: a, began: time.Now(), told: make(map[string]bool), done: make(chan struct{})}
	if f, ok := terminal(a.Err); ok && a.env.get("TERM") != "dumb" {
		p.tty = f
	}
	p.off = a.quiet || a.json && p.tty == nil
	p.utf8 = a.utf8()
	if !p.off {
		p.stopped.Go(p.loop)
	}
	return p
}

// utf8 reports whether the locale has more than ASCII, as setlocale(3) reads
// the variables.
func (a *app) utf8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.env.get(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

func (p *progress) loop() {
	every := quietFor
	if p.tty != nil {
		every = redrawEvery
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-t.C:
			p.mu.Lock()
			p.show()
			p.mu.Unlock()
		}
	}
}

// stage begins a stage of our own.
func (p *progress) stage(name string) { p.update("", &api.Progress{Stage: name}) }

// brief begins a stage that mostly takes no time.
func (p *progress) brief(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin(&api.Progress{Stage: name}, dueLine{name, time.Now().Add(longFor), true})
}

// update tells what the daemon does; machine names which one it is done for,
// if there are several.
func (p *progress) update(machine string, u *api.Progress) {
	if u.Notice != "" {
		p.notice(u.Notice)
		return
	}
	stage := strings.ReplaceAll(clean(u.Stage), "\n", " ")
	if machine != "" {
		stage = machine + ": " + stage
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	detail := strings.ReplaceAll(clean(u.Detail), "\n", " ")
	p.begin(&api.Progress{Stage: stage, Detail: detail, Done: u.Done, Total: u.Total}, dueLine{stage, p.began.Add(quietFor), false})
}

// notice warns of something, once however many machines it is told for.
func (p *progress) notice(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told[line] {
		p.told[line] = true
		p.erase()
		p.app.warn("%s", line)
	}
}

// begin makes u what is told. Preconditions: p.mu is held.
func (p *progress) begin(u *api.Progress, line dueLine) {
	if p.current == nil || p.current.Stage != u.Stage {
		p.since = time.Now()
		p.dropBrief()
	}
	p.current = u
	if p.tty == nil && !p.off && !p.told[u.Stage] {
		p.told[u.Stage] = true
		p.waiting = append(p.waiting, line)
		p.show()
	}
}

// dropBrief takes back lines of stages that took no time. Preconditions: p.mu
// is held.
func (p *progress) dropBrief() {
	p.waiting = slices.DeleteFunc(p.waiting, func(l dueLine) bool { return l.brief })
}

// idle takes the terminal's line away until the next stage.
func (p *progress) idle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = nil
	p.dropBrief()
	p.erase()
}

// stop ends telling. It may be called twice.
func (p *progress) stop() {
	p.mu.Lock()
	if !p.ended {
		p.ended = true
		close(p.done)
		p.current = nil
		p.erase()
	}
	p.mu.Unlock()
	p.stopped.Wait()
}

// Preconditions: p.mu is held.
func (p *progress) erase() {
	if p.drawn {
		fmt.Fprint(p.tty, "\r\x1b[K")
		p.drawn = false
	}
}

// show writes what is due. Preconditions: p.mu is held.
func (p *progress) show() {
	now := time.Now()
	if p.ended || now.Sub(p.began) < quietFor {
		return
	}
	if p.tty == nil {
		for len(p.waiting) > 0 && !p.waiting[0].at.After(now) {
			fmt.Fprintf(p.app.Err, "banger: %s\n", p.waiting[0].stage)
			p.waiting = p.waiting[1:]
		}
		return
	}
	if p.current == nil {
		return
	}
	width, _, err := term.GetSize(int(p.tty.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	p.frame++
	// One write, and erasing only behind the new text: no flicker.
	fmt.Fprintf(p.tty, "\r%s\x1b[K", p.line(now, width-1))
	p.drawn = true
}

// line is what a terminal shows, in at most width columns. Preconditions: p.mu
// is held.
func (p *progress) line(now time.Time, width int) string {
	spinner, full, empty := []rune(`|/-\`), "#", "-"
	if p.utf8 {
		spinner, full, empty = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"), "█", "░"
	}
	c := p.current
	head := string(spinner[p.frame%len(spinner)]) + " " + c.Stage
	tail := fmt.Sprintf("  %s", now.Sub(p.since).Truncate(time.Second))
	if c.Total > 0 {
		share := float64(min(max(c.Done, 0), c.Total)) / float64(c.Total)
		n := int(share * 20)
		tail = fmt.Sprintf("  %s%s %3.0f%%", strings.Repeat(full, n), strings.Repeat(empty, 20-n), share*100) + tail
	}
	if c.Detail != "" {
		room := width - utf8.RuneCountInString(head) - utf8.RuneCountInString(tail) - 2
		if room >= 8 {
			head += "  " + cut(c.Detail, room)
		}
	}
	return cut(head, max(0, width-utf8.RuneCountInString(tail))) + tail
}

// cut shortens s to n runes.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n])
}
