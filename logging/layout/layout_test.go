package layout

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestLayout(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	pc, _, _, _ := runtime.Caller(0)
	when := time.Date(2017, 5, 4, 3, 2, 1, 78_500_000, zone)
	record := Record{
		Time: when, Number: 30, Level: "WARNING", Name: "node.vote", Message: "hé llo",
		PC: pc + 1, Asctime: "2017", Process: 42, Start: when.Add(-1500 * time.Millisecond),
	}
	for format, want := range map[string]string{
		"":            "",
		"plain 100%%": "plain 100%",
		"%(message)s": "hé llo",
		"[%(asctime)s] [%(levelname)s] (%(name)s) %(message)s (%(processName)-10s - pid: %(process)d)": "[2017] [WARNING] (node.vote) hé llo (MainProcess - pid: 42)",
		"%(levelname)-8s|":                     "WARNING |",
		"%(levelname)10s|":                     "   WARNING|",
		"%(levelname).4s|":                     "WARN|",
		"%(message)8s|":                        "  hé llo|",
		"%(message).2s|":                       "hé|",
		"%(process)05d":                        "00042",
		"%(process)+d":                         "+42",
		"%(process)-6d|":                       "42    |",
		"%(process)s":                          "42",
		"%(msecs)03d":                          "078",
		"%(msecs)s":                            "78.5",
		"%(msecs).1f":                          "78.5",
		"%(relativeCreated)d":                  "1500",
		"%(created)f":                          "1493863321.078500",
		"%(levelno)s":                          "30",
		"%(thread)d %(threadName)s":            "42 MainThread",
		"%(filename)s %(module)s %(funcName)s": "layout_test.go layout_test TestLayout",
	} {
		l, err := Compile(format)
		if err != nil {
			t.Errorf("%q: %v", format, err)
			continue
		}
		if got := string(l.Append(nil, record)); got != want {
			t.Errorf("%q: got %q, want %q", format, got, want)
		}
	}
	l, err := Compile("%(pathname)s:%(lineno)d")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(l.Append(nil, record)); !strings.HasSuffix(got, "layout/layout_test.go:12") {
		t.Errorf("got %q", got)
	}
	if got := string(l.Append(nil, Record{})); got != ":0" {
		t.Errorf("without a place: got %q", got)
	}
}

func TestMalformedLayouts(t *testing.T) {
	for _, format := range []string{
		"%", "100%", "%s", "%(", "%(message", "%(message)", "%(nope)s", "%()s", "%(message)d", "%(message)x",
		"%(message)99999s", "%(message)99999999999999999999s", "%(message).5000s", "%(name)-", "{message}%", strings.Repeat("%(", 10000),
	} {
		if _, err := Compile(format); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.60q: got %v, want a short error", format, err)
		}
	}
}

func TestDate(t *testing.T) {
	when := time.Date(2017, 1, 1, 15, 4, 5, 0, time.FixedZone("CET", 3600)) // a Sunday
	for format, want := range map[string]string{
		"":                        "",
		"%Y-%m-%d %H:%M:%S":       "2017-01-01 15:04:05",
		"%x %X %Z":                "01/01/17 15:04:05 CET",
		"%c %z":                   "Sun Jan  1 15:04:05 2017 +0100",
		"%a %A %b %B %h":          "Sun Sunday Jan January Jan",
		"%I:%M %p %r":             "03:04 PM 03:04:05 PM",
		"%j %U %W %V %G %g %u %w": "001 01 00 52 2016 16 7 0",
		"%D %F %T %R %y %C %e":    "01/01/17 2017-01-01 15:04:05 15:04 17 20  1",
		"%s%%%n%t.":               "1483279445%\n\t.",
	} {
		d, err := CompileDate(format)
		if err != nil {
			t.Errorf("%q: %v", format, err)
			continue
		}
		if got := d.Format(when); got != want {
			t.Errorf("%q: got %q, want %q", format, got, want)
		}
	}
	for _, format := range []string{"%", "%Q", "%Y%", "%é", "%-d"} {
		if _, err := CompileDate(format); err == nil {
			t.Errorf("%q: no error", format)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add("%(asctime)s %(levelname)-8.3s %(process)05d %%")
	f.Add("%Y-%m-%d %H:%M:%S")
	f.Fuzz(func(t *testing.T, format string) {
		if l, err := Compile(format); err == nil {
			l.Append(nil, Record{Message: "m"})
		}
		if d, err := CompileDate(format); err == nil {
			d.Format(time.Unix(0, 0))
		}
	})
}
