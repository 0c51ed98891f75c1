package layout

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Date is a compiled strftime form, in the C locale.
type Date struct{ parts []datePart }

type datePart struct {
	literal string
	print   func(time.Time) string // nil for literal text
}

// goLayout prints what Go's own layouts have.
func goLayout(layout string) func(time.Time) string {
	return func(t time.Time) string { return t.Format(layout) }
}

// digitsOf prints a number with leading zeros.
func digitsOf(width int, number func(time.Time) int) func(time.Time) string {
	return func(t time.Time) string { return fmt.Sprintf("%0*d", width, number(t)) }
}

// week is the number of the week when weeks begin on the weekday; days before
// the year's first one are in week 0.
func week(first time.Weekday) func(time.Time) int {
	return func(t time.Time) int {
		sinceFirst := (int(t.Weekday()) - int(first) + 7) % 7
		return (t.YearDay() + 6 - sinceFirst) / 7
	}
}

func isoYear(t time.Time) int { year, _ := t.ISOWeek(); return year }
func isoWeek(t time.Time) int { _, week := t.ISOWeek(); return week }

// isoDay counts from Monday, 1, to Sunday, 7.
func isoDay(t time.Time) int { return (int(t.Weekday())+6)%7 + 1 }

var dateDirectives = map[byte]func(time.Time) string{
	'a': goLayout("Mon"),
	'A': goLayout("Monday"),
	'b': goLayout("Jan"),
	'B': goLayout("January"),
	'c': goLayout("Mon Jan _2 15:04:05 2006"),
	'C': digitsOf(2, func(t time.Time) int { return t.Year() / 100 }),
	'd': goLayout("02"),
	'D': goLayout("01/02/06"),
	'e': goLayout("_2"),
	'F': goLayout("2006-01-02"),
	'g': digitsOf(2, func(t time.Time) int { return isoYear(t) % 100 }),
	'G': digitsOf(4, isoYear),
	'h': goLayout("Jan"),
	'H': goLayout("15"),
	'I': goLayout("03"),
	'j': goLayout("002"),
	'm': goLayout("01"),
	'M': goLayout("04"),
	'n': goLayout("\n"),
	'p': goLayout("PM"),
	'r': goLayout("03:04:05 PM"),
	'R': goLayout("15:04"),
	's': func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) },
	'S': goLayout("05"),
	't': goLayout("\t"),
	'T': goLayout("15:04:05"),
	'u': digitsOf(1, isoDay),
	'U': digitsOf(2, week(time.Sunday)),
	'V': digitsOf(2, isoWeek),
	'w': digitsOf(1, func(t time.Time) int { return int(t.Weekday()) }),
	'W': digitsOf(2, week(time.Monday)),
	'x': goLayout("01/02/06"),
	'X': goLayout("15:04:05"),
	'y': goLayout("06"),
	'Y': goLayout("2006"),
	'z': goLayout("-0700"),
	'Z': goLayout("MST"),
	'%': func(time.Time) string { return "%" },
}

// CompileDate reads a strftime form such as "%Y-%m-%d %H:%M:%S". The error
// says which directive is not known.
func CompileDate(format string) (*Date, error) {
	d := &Date{}
	for rest := format; rest != ""; {
		text, after, found := strings.Cut(rest, "%")
		d.parts = append(d.parts, datePart{literal: text})
		if !found {
			break
		}
		if after == "" {
			return nil, fmt.Errorf("expected a directive such as %%Y after the last %%")
		}
		print := dateDirectives[after[0]]
		if print == nil {
			return nil, fmt.Errorf("expected strftime's directives, got %q", cut("%"+after, 2))
		}
		d.parts = append(d.parts, datePart{print: print})
		rest = after[1:]
	}
	return d, nil
}

// Format writes a time.
func (d *Date) Format(t time.Time) string {
	var out strings.Builder
	for _, p := range d.parts {
		out.WriteString(p.literal)
		if p.print != nil {
			out.WriteString(p.print(t))
		}
	}
	return out.String()
}
