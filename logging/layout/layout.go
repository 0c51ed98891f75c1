// Package layout writes log lines in the forms of Python's logging module,
// which BigchainDB's config files use: %(name)s for the parts of a line,
// strftime for dates.
package layout

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Record is what a line is made of.
type Record struct {
	Time    time.Time
	Number  int    // Python's number of the level, 50 for critical, 10 for debug
	Level   string // CRITICAL, ERROR, WARNING, INFO or DEBUG
	Name    string // of the component
	Message string
	PC      uintptr // where the line was logged, 0 when not known
	Asctime string  // Time in the form of the date layout
	Process int
	Start   time.Time // of the process
}

// Layout is a compiled form of a line.
type Layout struct{ parts []part }

// part is literal text, then an attribute of the record if it has one.
type part struct {
	literal   string
	attribute attribute
	flags     string
	width     int
	precision int // -1 for none
	verb      byte
}

// attribute is text, or a number where text is nil.
type attribute struct {
	text   func(Record) string
	number func(Record) float64
}

func frame(r Record) runtime.Frame {
	f, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	return f
}

// function is the name of the function that logged, without its package.
func function(r Record) string {
	name := filepath.Base(frame(r).Function)
	_, name, _ = strings.Cut(name, ".")
	return name
}

func module(r Record) string {
	return strings.TrimSuffix(file(r), ".go")
}

func file(r Record) string {
	if path := frame(r).File; path != "" {
		return filepath.Base(path)
	}
	return ""
}

// attributes are those of Python's LogRecord that a format may name. A Go
// process has one process and no numbered threads, so these are what Python
// shows for the main ones.
var attributes = map[string]attribute{
	"asctime":         {text: func(r Record) string { return r.Asctime }},
	"created":         {number: func(r Record) float64 { return float64(r.Time.UnixNano()) / 1e9 }},
	"filename":        {text: file},
	"funcName":        {text: function},
	"levelname":       {text: func(r Record) string { return r.Level }},
	"levelno":         {number: func(r Record) float64 { return float64(r.Number) }},
	"lineno":          {number: func(r Record) float64 { return float64(frame(r).Line) }},
	"message":         {text: func(r Record) string { return r.Message }},
	"module":          {text: module},
	"msecs":           {number: func(r Record) float64 { return float64(r.Time.Nanosecond()) / 1e6 }},
	"name":            {text: func(r Record) string { return r.Name }},
	"pathname":        {text: func(r Record) string { return frame(r).File }},
	"process":         {number: func(r Record) float64 { return float64(r.Process) }},
	"processName":     {text: func(Record) string { return "MainProcess" }},
	"relativeCreated": {number: func(r Record) float64 { return float64(r.Time.Sub(r.Start)) / float64(time.Millisecond) }},
	"thread":          {number: func(r Record) float64 { return float64(r.Process) }},
	"threadName":      {text: func(Record) string { return "MainThread" }},
}

// maxWidth bounds a line's padding.
const maxWidth = 1000

// Compile reads a format such as "%(asctime)s %(levelname)-8s %(message)s".
// The error says which part cannot be followed.
func Compile(format string) (*Layout, error) {
	l := &Layout{}
	var literal strings.Builder
	for rest := format; rest != ""; {
		text, after, found := strings.Cut(rest, "%")
		literal.WriteString(text)
		if !found {
			break
		}
		if strings.HasPrefix(after, "%") {
			literal.WriteByte('%')
			rest = after[1:]
			continue
		}
		p, left, err := directive(after)
		if err != nil {
			return nil, err
		}
		p.literal = literal.String()
		literal.Reset()
		l.parts = append(l.parts, p)
		rest = left
	}
	l.parts = append(l.parts, part{literal: literal.String()})
	return l, nil
}

// directive reads what follows a percent sign: (name), flags, width, .precision
// and one of the verbs s r a d i f.
func directive(text string) (part, string, error) {
	p := part{precision: -1}
	if !strings.HasPrefix(text, "(") {
		return p, "", fmt.Errorf("expected %%(attribute)s, or %%%% for a percent sign, at %q", start("%"+text))
	}
	name, rest, closed := strings.Cut(text[1:], ")")
	attribute, known := attributes[name]
	if !closed || !known {
		return p, "", fmt.Errorf("expected an attribute such as %%(message)s, got %q", start("%"+text))
	}
	p.attribute = attribute
	after := strings.TrimLeft(rest, "-+ 0#")
	p.flags = rest[:len(rest)-len(after)]
	var ok bool
	if p.width, after, ok = digits(after); !ok {
		return p, "", fmt.Errorf("expected a width up to %d at %q", maxWidth, start("%"+text))
	}
	if strings.HasPrefix(after, ".") {
		if p.precision, after, ok = digits(after[1:]); !ok {
			return p, "", fmt.Errorf("expected a precision up to %d at %q", maxWidth, start("%"+text))
		}
	}
	if after == "" || !strings.Contains("srdif", after[:1]) {
		return p, "", fmt.Errorf("expected s or d after %%(%s)", name)
	}
	p.verb = after[0]
	if p.attribute.number == nil && strings.Contains("dif", after[:1]) {
		return p, "", fmt.Errorf("expected %%(%s)s, which is a text, got %%(%s)%c", name, name, p.verb)
	}
	return p, after[1:], nil
}

// start is the beginning of a text, for messages.
func start(text string) string {
	const most = 30
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

func digits(text string) (n int, rest string, ok bool) {
	rest = strings.TrimLeft(text, "0123456789")
	if text == rest {
		return 0, rest, true
	}
	n, err := strconv.Atoi(text[:len(text)-len(rest)])
	return n, rest, err == nil && n <= maxWidth
}

// Append writes the line of a record, without a line break, to dst.
func (l *Layout) Append(dst []byte, r Record) []byte {
	for _, p := range l.parts {
		dst = append(dst, p.literal...)
		if p.attribute.text != nil || p.attribute.number != nil {
			dst = p.append(dst, r)
		}
	}
	return dst
}

func (p part) append(dst []byte, r Record) []byte {
	text, isNumber := "", false
	switch {
	case p.attribute.text != nil:
		text = p.attribute.text(r)
	case p.verb == 'f':
		isNumber = true
		text = strconv.FormatFloat(p.attribute.number(r), 'f', p.decimals(), 64)
	case p.verb == 'd' || p.verb == 'i':
		isNumber = true
		text = strconv.FormatInt(int64(p.attribute.number(r)), 10)
	default:
		text = strconv.FormatFloat(p.attribute.number(r), 'f', -1, 64)
	}
	if isNumber {
		switch {
		case strings.HasPrefix(text, "-"):
		case strings.Contains(p.flags, "+"):
			text = "+" + text
		case strings.Contains(p.flags, " "):
			text = " " + text
		}
	} else if p.precision >= 0 {
		text = cut(text, p.precision)
	}
	missing := p.width - utf8.RuneCountInString(text)
	switch {
	case missing <= 0:
		return append(dst, text...)
	case strings.Contains(p.flags, "-"):
		return append(append(dst, text...), strings.Repeat(" ", missing)...)
	case isNumber && strings.Contains(p.flags, "0"):
		sign := len(text) - len(strings.TrimLeft(text, "+- "))
		dst = append(dst, text[:sign]...)
		return append(append(dst, strings.Repeat("0", missing)...), text[sign:]...)
	}
	return append(append(dst, strings.Repeat(" ", missing)...), text...)
}

// decimals is Python's default of six where no precision is given.
func (p part) decimals() int {
	if p.precision < 0 {
		return 6
	}
	return p.precision
}

func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most])
	}
	return text
}
