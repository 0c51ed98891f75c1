package logging

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/couchledger/couchledger/logging/layout"
)

// handler is the slog.Handler over a core, with the attributes and the group
// that a logger was given.
type handler struct {
	core   *core
	name   string
	attrs  string // " key=value" of each attribute
	prefix string // the open groups, each with a dot
}

// Enabled reports whether any sink takes the level. While no component is
// named, the record may still name one: then Handle decides.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	if h.name == rootName {
		return h.core.mayTake(level)
	}
	for _, s := range h.core.sinks {
		if h.core.takes(s, h.name, level) {
			return true
		}
	}
	return false
}

// Handle writes the record to the sinks that take it.
func (h *handler) Handle(_ context.Context, record slog.Record) error {
	own := *h
	record.Attrs(func(a slog.Attr) bool {
		own.add(a)
		return true
	})
	when := record.Time
	if when.IsZero() {
		when = time.Now()
	}
	level, number := pythonLevel(record.Level)
	entry := layout.Record{
		Time: when, Number: number, Level: level, Name: own.name,
		Message: escaped(record.Message) + own.attrs,
		PC:      record.PC, Process: h.core.process, Start: h.core.start,
	}
	var failed []error
	for _, s := range h.core.sinks {
		if h.core.takes(s, own.name, record.Level) {
			failed = append(failed, s.write(entry))
		}
	}
	return errors.Join(failed...)
}

// WithAttrs gives a handler that writes these attributes with every record.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	for _, a := range attrs {
		more.add(a)
	}
	return &more
}

// WithGroup gives a handler that puts name and a dot before the keys that follow.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	more := *h
	more.prefix += name + "."
	return &more
}

func (h *handler) add(a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		outer := h.prefix
		if a.Key != "" {
			h.prefix += a.Key + "."
		}
		for _, member := range value.Group() {
			h.add(member)
		}
		h.prefix = outer
		return
	}
	switch {
	case a.Equal(slog.Attr{}):
	case a.Key == Component && h.prefix == "":
		h.name = escaped(value.String())
	default:
		h.attrs += " " + token(h.prefix+a.Key) + "=" + token(value.String())
	}
}

// token writes a key or a value so that it reads as one: quoted when it is
// empty or holds spaces, quotes, equals signs or what does not print.
func token(text string) string {
	if text == "" || strings.ContainsAny(text, " \"=") || escaped(text) != text {
		return strconv.Quote(text)
	}
	return text
}

// escaped writes what does not print, line breaks first of all, as Go does in
// a quoted text.
func escaped(text string) string {
	plain := utf8.ValidString(text)
	for _, r := range text {
		plain = plain && strconv.IsPrint(r)
	}
	if plain {
		return text
	}
	out := make([]byte, 0, len(text)+8)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		piece := text[i : i+size]
		if strconv.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			out = append(out, piece...)
		} else {
			quotedPiece := strconv.Quote(piece)
			out = append(out, quotedPiece[1:len(quotedPiece)-1]...)
		}
		i += size
	}
	return string(out)
}
