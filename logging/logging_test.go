package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
)

// settings are the defaults with lines that hold no time.
func settings(t *testing.T) configs.Settings {
	t.Helper()
	s, _, err := configs.Load("", []string{"HOME=" + t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s.Log.FmtConsole = "%(levelname)s %(name)s %(message)s"
	s.Log.FmtLogfile = "file %(levelname)s %(name)s %(message)s"
	return s
}

// logged is what the console shows of what emit logs.
func logged(t *testing.T, s configs.Settings, emit func(*slog.Logger)) string {
	t.Helper()
	var console bytes.Buffer
	logger, files, err := newLogger(s, &console)
	if err != nil {
		t.Fatal(err)
	}
	emit(logger)
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	return console.String()
}

func everyLevel(logger *slog.Logger) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, LevelCritical} {
		logger.Log(context.Background(), level, "m")
	}
}

func TestLevels(t *testing.T) {
	lines := []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
	for level, from := range map[string]int{"notset": 0, "debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4} {
		s := settings(t)
		s.Log.LevelConsole = level
		var want strings.Builder
		for _, name := range lines[from:] {
			fmt.Fprintf(&want, "%s bigchaindb m\n", name)
		}
		if got := logged(t, s, everyLevel); got != want.String() {
			t.Errorf("level %s: got %q, want %q", level, got, want.String())
		}
	}
}

func TestDefaultLine(t *testing.T) {
	s := settings(t)
	s.Log.FmtConsole = configs.DefaultFmt
	before := time.Now().Format("2006-01-02 15:04")
	got := logged(t, s, func(l *slog.Logger) { l.Info("hello", "block", 5) })
	want := fmt.Sprintf("] [INFO] (bigchaindb) hello block=5 (MainProcess - pid: %d)\n", os.Getpid())
	if !strings.HasPrefix(got, "["+before[:10]) || !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want it to end in %q", got, want)
	}
}

func TestGranularLevels(t *testing.T) {
	s := settings(t)
	s.Log.GranularLevels = map[string]string{"node": "debug", "node.vote": "error", "node.vote.sign": "notset"}
	for component, want := range map[string]string{
		"node":           "DEBUG INFO",
		"node.block":     "DEBUG INFO",
		"node.vote":      "",
		"node.vote.sign": "",
		"nodes":          "INFO",
		"Node":           "INFO",
		"":               "INFO",
	} {
		emit := func(l *slog.Logger) { l.Debug("m"); l.Info("m") }
		with := logged(t, s, func(l *slog.Logger) {
			if component != "" {
				l = l.With(Component, component)
			}
			emit(l)
		})
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(with), "\n") {
			level, _, _ := strings.Cut(line, " ")
			got = append(got, level)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("component %q shows %q, want %q", component, got, want)
		}
		if component == "" {
			continue
		}
		inRecord := logged(t, s, func(l *slog.Logger) {
			l.Debug("m", Component, component)
			l.Info("m", Component, component)
		})
		if inRecord != with {
			t.Errorf("component %q in the record: got %q, want %q", component, inRecord, with)
		}
	}
}

func TestHTTPLevel(t *testing.T) {
	s := settings(t)
	s.Server.LogLevel = "error"
	got := logged(t, s, func(l *slog.Logger) {
		l.With(Component, HTTP).Warn("dropped")
		l.With(Component, HTTP+".streams").Warn("dropped")
		l.With(Component, HTTP).Error("kept")
		l.Warn("kept")
	})
	if strings.Contains(got, "dropped") || strings.Count(got, "kept") != 2 {
		t.Errorf("got %q", got)
	}
}

// What a client sent must not look like a line of the log, or move the
// cursor of a terminal that shows it.
func TestNoForgedLines(t *testing.T) {
	const evil = "x\n[INFO] forged\r\x1b[2J\u2028\u202e\x00\xff"
	got := logged(t, settings(t), func(l *slog.Logger) {
		l.Info(evil, "key\n"+evil, evil, "ok", "a b", "e", "", "q", `a"=b`)
		l.With(Component, evil).WithGroup(evil).Info("m", "error", fmt.Errorf("%s", evil))
		l.Info("m", slog.Group("g", "a", 1, slog.Group("h", "b", 2)), slog.Any("any", struct{ Text string }{evil}))
		l.WithGroup("g").Info("m", Component, "inside", "d", 1500*time.Millisecond)
	})
	if lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n"); len(lines) != 4 {
		t.Errorf("got %d lines, want 4: %q", len(lines), lines)
	}
	for _, r := range strings.ReplaceAll(got, "\n", "") {
		if r < ' ' || r == '\u2028' || r == '\u202e' || r == '\ufffd' {
			t.Errorf("%q is in the log: %q", r, got)
		}
	}
	for _, want := range []string{`ok="a b" e="" q="a\"=b"`, `INFO x\n[INFO] forged\r\x1b[2J\u2028`, "m g.a=1 g.h.b=2", "bigchaindb m g.component=inside g.d=1.5s"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
}

func TestFiles(t *testing.T) {
	s := settings(t)
	folder := t.TempDir()
	s.Log.File, s.Log.ErrorFile = filepath.Join(folder, "log"), filepath.Join(folder, "errors")
	s.Log.LevelConsole, s.Log.LevelLogfile = "critical", "warning"
	s.Log.GranularLevels = map[string]string{"node": "debug"}
	emit := func(l *slog.Logger) {
		everyLevel(l)
		l.With(Component, "node").Debug("m")
	}
	for range 2 { // a second start goes on in the same files
		logged(t, s, emit)
	}
	once := "file WARNING bigchaindb m\nfile ERROR bigchaindb m\nfile CRITICAL bigchaindb m\nfile DEBUG node m\n"
	for path, want := range map[string]string{
		s.Log.File:      once + once,
		s.Log.ErrorFile: strings.Repeat("file ERROR bigchaindb m\nfile CRITICAL bigchaindb m\n", 2),
	} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}

	s.Log.ErrorFile = s.Log.File
	logged(t, s, func(l *slog.Logger) { l.Error("once") })
	if got, _ := os.ReadFile(s.Log.File); strings.Count(string(got), "once") != 1 {
		t.Errorf("one file for both: got %q", got)
	}
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing", "log")
	for setting, change := range map[string]func(*configs.Log){
		"log.file":            func(l *configs.Log) { l.File = missing },
		"log.error_file":      func(l *configs.Log) { l.ErrorFile = missing },
		"log.fmt_console":     func(l *configs.Log) { l.FmtConsole = "%" },
		"log.datefmt_logfile": func(l *configs.Log) { l.File, l.DatefmtLogfile = filepath.Join(t.TempDir(), "log"), "%" },
	} {
		s := settings(t)
		change(&s.Log)
		if _, _, err := New(s); err == nil || !strings.Contains(err.Error(), setting+":") {
			t.Errorf("got %v, want an error of %s", err, setting)
		}
	}
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	file, err := openRotated(path, 10, 5)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 { // two lines fill a file
		if _, err := fmt.Fprintf(file, "%04d\n", n); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	for suffix, want := range map[string]string{
		"": "0018\n0019\n", ".1": "0016\n0017\n", ".2": "0014\n0015\n", ".3": "0012\n0013\n", ".4": "0010\n0011\n", ".5": "0008\n0009\n",
	} {
		if got, err := os.ReadFile(path + suffix); err != nil || string(got) != want {
			t.Errorf("log%s: got %q, %v, want %q", suffix, got, err, want)
		}
	}
	if all, _ := filepath.Glob(path + "*"); len(all) != 6 {
		t.Errorf("got %q, want the log and five", all)
	}
	if _, err := file.Write([]byte("x")); err == nil {
		t.Error("a line was written to a closed file")
	}

	// A line longer than a file is written whole; what is there counts.
	if file, err = openRotated(path, 10, 5); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 50) + "\n"
	if _, err := file.Write([]byte(long)); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != long {
		t.Errorf("got %q", got)
	}
	if got, _ := os.ReadFile(path + ".1"); string(got) != "0018\n0019\n" {
		t.Errorf("got %q", got)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// A log that cannot be rotated goes on in the full file.
func TestRotationFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := openRotated(path, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 3 {
		if n, _ := file.Write([]byte("12345678\n")); n != 9 {
			t.Errorf("wrote %d bytes, want 9", n)
		}
	}
	if got, _ := os.ReadFile(path); len(got) != 27 {
		t.Errorf("got %q, want three lines", got)
	}
}

func TestManyWriters(t *testing.T) {
	s := settings(t)
	s.Log.File = filepath.Join(t.TempDir(), "log")
	logged(t, s, func(l *slog.Logger) {
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				for range 100 {
					l.With(Component, fmt.Sprint("c", n)).Info(strings.Repeat("m", 100))
				}
			})
		}
		all.Wait()
	})
	text, err := os.ReadFile(s.Log.File)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "file INFO c") || !strings.HasSuffix(line, " "+strings.Repeat("m", 100)) {
			t.Fatalf("a torn line: %q", line)
		}
	}
	if len(lines) != 800 {
		t.Errorf("got %d lines, want 800", len(lines))
	}
}
