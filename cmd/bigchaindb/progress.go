package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/couchledger/couchledger/statedb"
)

// How often the console tells how far something is. What is done sooner than
// quietFor is not worth a line.
const (
	quietFor      = time.Second
	everyOnScreen = 200 * time.Millisecond // where one line changes
	everyInFile   = 10 * time.Second       // where lines add up
)

// progressLine shows on the console how far something is: on a terminal one
// line that changes, else a line now and then.
type progressLine struct {
	out   io.Writer
	width int // of the terminal; 0 when out is none
	now   func() time.Time

	began time.Time
	shown time.Time // when the last line was written; zero before the first
}

// progressLine writes to stderr.
func (a *app) progressLine() progressLine {
	p := progressLine{out: a.stderr, now: time.Now}
	if file, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil {
			p.width = width
		}
	}
	return p
}

// due reports whether it is time for a line, and takes that as written.
func (p *progressLine) due() bool {
	every := everyInFile
	if p.width > 0 {
		every = everyOnScreen
	}
	now := p.now()
	if now.Sub(p.began) < quietFor || now.Sub(p.shown) < every {
		return false
	}
	p.shown = now
	return true
}

func (p *progressLine) line(text string) {
	if p.width == 0 {
		fmt.Fprintln(p.out, text)
		return
	}
	if len(text) >= p.width { // a line that wraps could not be written over
		text = text[:p.width-1]
	}
	fmt.Fprint(p.out, "\r"+text+"\x1b[K") // and clears what is left of the longer one before
}

// leave leaves the line that changes, for something else to follow.
func (p *progressLine) leave() {
	if p.width > 0 && !p.shown.IsZero() {
		fmt.Fprintln(p.out)
	}
}

// buildProgress shows how far the building of indexes is. Its tell is the
// progress of node.DeployIndexes.
type buildProgress struct {
	progressLine
	table   string // that is being built, "" for none
	names   string
	first   int // documents that were done when it began
	pending int
	total   int
}

func (a *app) buildProgress() *buildProgress { return &buildProgress{progressLine: a.progressLine()} }

func (p *buildProgress) tell(table string, building []statedb.IndexState) {
	if table != p.table {
		p.end()
	}
	names, pending, total := statedb.Building(building)
	if len(names) == 0 {
		return
	}
	now := p.now()
	if p.table == "" {
		p.table, p.began, p.shown, p.first = table, now, time.Time{}, total-pending
	}
	p.names, p.pending, p.total = strings.Join(names, " "), pending, total
	if p.due() {
		p.line(p.sentence(now))
	}
}

// sentence tells the indexes, the documents done of all, the rate and how long
// it will take.
func (p *buildProgress) sentence(now time.Time) string {
	done := p.total - p.pending
	text := fmt.Sprintf("Building %s %s: %d of %d documents", p.table, p.names, done, p.total)
	rate := float64(done-p.first) / now.Sub(p.began).Seconds()
	if rate <= 0 {
		return text
	}
	left := time.Duration(float64(p.pending) / rate * float64(time.Second))
	return fmt.Sprintf("%s, %.0f/s, %s to go", text, rate, max(left.Round(time.Second), time.Second))
}

// end tells that the indexes are built, if their building was shown.
func (p *buildProgress) end() {
	if p.table != "" && !p.shown.IsZero() {
		p.line(fmt.Sprintf("Built %s %s: %d documents in %s", p.table, p.names, p.total, p.now().Sub(p.began).Round(time.Second)))
		p.leave()
	}
	p.table = ""
}

// broken leaves the line that changes, for an error to follow.
func (p *buildProgress) broken() {
	if p.table != "" {
		p.leave()
	}
}
