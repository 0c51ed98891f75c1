// Package logging writes the node's log as the log settings ask: to the
// console, to a file and to a file of errors, in the forms of Python's logging
// module, with a level for each and levels by component.
//
// The slog attribute "component" is the %(name)s of a line; the others follow
// the message as key=value. One record is one line, whatever is in it:
// characters that do not print are escaped, so that nothing a client sent can
// look like a line of its own.
package logging

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/logging/layout"
)

// Component is the key of the attribute that names a part of the node.
const Component = "component"

// HTTP is the component of the HTTP server's own lines, and of those below
// it, http.*: they need server.loglevel too.
const HTTP = "http"

// LevelCritical is above slog's own levels, for what ends the node.
const LevelCritical = slog.LevelError + 4

// levelAll is notset: everything.
const levelAll = slog.Level(math.MinInt32)

// rootName is the name of lines without a component.
const rootName = "bigchaindb"

var levels = map[string]slog.Level{
	"critical": LevelCritical,
	"error":    slog.LevelError,
	"warning":  slog.LevelWarn,
	"info":     slog.LevelInfo,
	"debug":    slog.LevelDebug,
	"notset":   levelAll,
}

// New makes the logger that the settings ask for; its console is stderr. The
// closer closes the files. The error names the setting that cannot be followed.
func New(settings configs.Settings) (*slog.Logger, io.Closer, error) {
	return newLogger(settings, os.Stderr)
}

func newLogger(settings configs.Settings, console io.Writer) (*slog.Logger, io.Closer, error) {
	log := settings.Log
	core := &core{
		http:       levels[settings.Server.LogLevel],
		components: map[string]slog.Level{},
		process:    os.Getpid(),
		start:      time.Now(),
	}
	for name, level := range log.GranularLevels {
		if level != "notset" { // as in Python: what is above it in the tree decides
			core.components[name] = levels[level]
		}
	}
	var files closers
	err := func() error {
		if err := core.add("console", console, log.FmtConsole, log.DatefmtConsole, levels[log.LevelConsole]); err != nil {
			return err
		}
		if log.File != "" {
			file, err := openRotated(log.File, maxFileBytes, keptFiles)
			if err != nil {
				return fmt.Errorf("log.file: %w", err)
			}
			files = append(files, file)
			if err := core.add("logfile", file, log.FmtLogfile, log.DatefmtLogfile, levels[log.LevelLogfile]); err != nil {
				return err
			}
		}
		// Where both are one file its errors are there already, and two
		// writers would rotate it under each other.
		if log.ErrorFile == "" || log.ErrorFile == log.File {
			return nil
		}
		file, err := openRotated(log.ErrorFile, maxFileBytes, keptFiles)
		if err != nil {
			return fmt.Errorf("log.error_file: %w", err)
		}
		files = append(files, file)
		if err := core.add("logfile", file, log.FmtLogfile, log.DatefmtLogfile, slog.LevelError); err != nil {
			return err
		}
		core.sinks[len(core.sinks)-1].errorsOnly = true
		return nil
	}()
	if err != nil {
		return nil, nil, errors.Join(err, files.Close())
	}
	return slog.New(&handler{core: core, name: rootName}), files, nil
}

// add makes a sink; where is what follows log.fmt_ and log.datefmt_ in the
// names of the settings of its form.
func (c *core) add(where string, out io.Writer, fmtText, datefmt string, level slog.Level) error {
	line, err := layout.Compile(fmtText)
	if err != nil {
		return fmt.Errorf("log.fmt_%s: %w", where, err)
	}
	date, err := layout.CompileDate(datefmt)
	if err != nil {
		return fmt.Errorf("log.datefmt_%s: %w", where, err)
	}
	c.sinks = append(c.sinks, &sink{level: level, line: line, date: date, out: out})
	return nil
}

// closers closes all of them.
type closers []io.Closer

func (c closers) Close() error {
	var all []error
	for _, one := range c {
		all = append(all, one.Close())
	}
	return errors.Join(all...)
}

// core is what all handlers made from one New share.
type core struct {
	sinks      []*sink
	components map[string]slog.Level
	http       slog.Level
	process    int
	start      time.Time
}

// sink is one place that lines go to.
type sink struct {
	level      slog.Level
	errorsOnly bool // a component's own level does not make it take more
	line       *layout.Layout
	date       *layout.Date

	mu  sync.Mutex
	out io.Writer
}

// takes reports whether a sink takes lines of a component at a level. The
// level of the component, or of the nearest one above it, is in place of the
// sink's: "node" stands above "node.vote".
func (c *core) takes(s *sink, name string, level slog.Level) bool {
	if s.errorsOnly && level < s.level || isUnder(name, HTTP) && level < c.http {
		return false
	}
	for above := name; above != ""; {
		if own, ok := c.components[above]; ok {
			return level >= own
		}
		dot := strings.LastIndexByte(above, '.')
		above = above[:max(dot, 0)]
	}
	return level >= s.level
}

// mayTake reports whether lines of some component at the level may be taken.
func (c *core) mayTake(level slog.Level) bool {
	for _, s := range c.sinks {
		if level >= s.level {
			return true
		}
	}
	for _, own := range c.components {
		if level >= own {
			return true
		}
	}
	return false
}

func isUnder(name, component string) bool {
	rest, found := strings.CutPrefix(name, component)
	return found && (rest == "" || rest[0] == '.')
}

func (s *sink) write(r layout.Record) error {
	r.Asctime = s.date.Format(r.Time)
	line := append(s.line.Append(nil, r), '\n')
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.out.Write(line)
	return err
}

// pythonLevel gives a level's name and number in Python.
func pythonLevel(level slog.Level) (string, int) {
	switch {
	case level >= LevelCritical:
		return "CRITICAL", 50
	case level >= slog.LevelError:
		return "ERROR", 40
	case level >= slog.LevelWarn:
		return "WARNING", 30
	case level >= slog.LevelInfo:
		return "INFO", 20
	}
	return "DEBUG", 10
}
