package simulator

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

// trace tells what happens in a schedule, with short names for ids.
type trace struct {
	mu    sync.Mutex
	out   io.Writer
	logs  bool // the nodes' logs, too
	names map[string]string
	keys  map[string]string // public key → member
	lines int
}

func newTrace(p *pool, out io.Writer, logs bool) *trace {
	t := &trace{out: out, logs: logs, names: map[string]string{}, keys: map[string]string{}}
	for i, k := range p.members {
		t.keys[k.Public] = fmt.Sprint("node ", i)
	}
	return t
}

func (t *trace) add(at time.Duration, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines++
	fmt.Fprintf(t.out, "%4d %9.3fs %s\n", t.lines, at.Seconds(), text)
}

// name gives short names in the order of first use.
func (t *trace) name(id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.short(id)
}

func (t *trace) short(id string) string {
	if who, ok := t.keys[id]; ok {
		return who
	}
	if block, voter, ok := strings.Cut(id, ":"); ok {
		if who, ok := t.keys[voter]; ok {
			return "vote of " + who + " on " + t.short(block)
		}
	}
	if !ledger.IsID(id) {
		return id
	}
	name := t.names[id]
	if name == "" {
		name = fmt.Sprintf("#%d", len(t.names)+1)
		t.names[id] = name
	}
	return name
}

func (t *trace) output(ref ledger.OutputRef) string {
	return fmt.Sprintf("%s.%d", t.name(ref.TxID), ref.Index)
}

var longNames = regexp.MustCompile(`[0-9a-f]{64}|[1-9A-HJ-NP-Za-km-z]{43,44}`)

// logger gives a node's log to the trace; nil where nobody reads it.
func (t *trace) logger(place int) *slog.Logger {
	if t == nil || !t.logs {
		return nil
	}
	return slog.New(&traceLog{t, place, ""})
}

// traceLog is a log in the trace.
type traceLog struct {
	t      *trace
	place  int
	fields string
}

func (l *traceLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *traceLog) Handle(_ context.Context, r slog.Record) error {
	text := r.Message + l.fields
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	fmt.Fprintf(l.t.out, "                   node %d: %s\n", l.place, longNames.ReplaceAllStringFunc(text, l.t.short))
	return nil
}

func (l *traceLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	fields := l.fields
	for _, a := range attrs {
		fields += " " + a.String()
	}
	return &traceLog{l.t, l.place, fields}
}

func (l *traceLog) WithGroup(string) slog.Handler { return l }
