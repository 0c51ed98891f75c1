package bench

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// How often progress is shown: on a terminal, and as lines.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 5 * time.Second
	barWidth  = 30
)

// progress shows how far a phase is. Its methods may be called from many
// goroutines.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool

	label string
	total int // 0 when it is a matter of time
	begin time.Time
	shown time.Time
	most  int
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) start(label string, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.label, p.total, p.most = label, total, 0
	p.begin = time.Now()
	p.shown = p.begin
}

// at shows that done are done, now and then.
func (p *progress) at(done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = max(p.most, done)
	every := lineEvery
	if p.terminal {
		every = barEvery
	}
	if time.Since(p.shown) < every {
		return
	}
	p.shown = time.Now()
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K"+p.line())
	} else {
		fmt.Fprintln(p.w, p.line())
	}
}

func (p *progress) finish(done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = done
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintln(p.w, p.line())
}

func (p *progress) line() string {
	took := time.Since(p.begin)
	rate := perSecond(p.most, took)
	if p.total == 0 {
		return fmt.Sprintf("%-28s %9d          %7.1fs %9.0f/s", p.label, p.most, took.Seconds(), rate)
	}
	share := min(1, float64(p.most)/float64(p.total))
	text := fmt.Sprintf("%-28s %9d %7.0f%% %7.1fs %9.0f/s", p.label, p.most, 100*share, took.Seconds(), rate)
	if !p.terminal {
		return text
	}
	full := int(share * barWidth)
	return text + " [" + strings.Repeat("#", full) + strings.Repeat(" ", barWidth-full) + "]"
}
