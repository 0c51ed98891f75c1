package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// soakFigures are what a soak is judged by.
var soakFigures = []struct {
	name string
	of   func(window) float64
}{
	{"valid per second", func(w window) float64 { return w.valid }},
	{"POST to 202, median ms", func(w window) float64 { return milliseconds(w.post50) }},
	{"POST to 202, 99 % ms", func(w window) float64 { return milliseconds(w.post99) }},
	{"POST to valid, median ms", func(w window) float64 { return milliseconds(w.final50) }},
	{"POST to valid, 99 % ms", func(w window) float64 { return milliseconds(w.final99) }},
	{"resident MB", func(w window) float64 { return w.memory }},
	{"heap MB", func(w window) float64 { return w.heap }},
	{"goroutines", func(w window) float64 { return w.goroutines }},
	{"open files", func(w window) float64 { return w.files }},
	{"backlog", func(w window) float64 { return w.backlog }},
}

// reportSoak logs a plot of each figure, with its median over the first and the
// last third of the windows in which nothing was restarted.
func reportSoak(t *testing.T, list []window) {
	calm := slices.DeleteFunc(slices.Clone(list), func(w window) bool { return w.struck })
	if len(calm) < 3 {
		t.Fatalf("of %d windows %d were without a restart: too few to show anything", len(list), len(calm))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d windows of %v, %d of them without a restart; first third, last third (without restarts):\n", len(list), soakWindow, len(calm))
	third := len(calm) / 3
	for _, f := range soakFigures {
		first, last := median(calm[:third], f.of), median(calm[len(calm)-third:], f.of)
		fmt.Fprintf(&b, "%-26s %9.1f %9.1f  %s\n", f.name, first, last, plot(list, f.of))
	}
	t.Log("\n" + b.String())
	if path := os.Getenv("E2E_SOAK_CSV"); path != "" {
		if err := os.WriteFile(path, []byte(soakCSV(list)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

func median(list []window, of func(window) float64) float64 {
	values := make([]float64, len(list))
	for i, w := range list {
		values[i] = of(w)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// plot draws at most 60 columns, each the median of its windows, from nothing
// to the highest.
func plot(list []window, of func(window) float64) string {
	const columns = 60
	levels := []rune("▁▂▃▄▅▆▇█")
	width := (len(list) + columns - 1) / columns
	var values []float64
	for part := range slices.Chunk(list, width) {
		values = append(values, median(part, of))
	}
	top := slices.Max(values)
	var b strings.Builder
	for _, v := range values {
		level := 0
		if top > 0 {
			level = min(len(levels)-1, int(v/top*float64(len(levels))))
		}
		b.WriteRune(levels[level])
	}
	return fmt.Sprintf("%s max %.1f", b.String(), top)
}

func soakCSV(list []window) string {
	var b strings.Builder
	b.WriteString("seconds,restart")
	for _, f := range soakFigures {
		b.WriteString("," + strings.ReplaceAll(f.name, ",", ""))
	}
	for _, w := range list {
		fmt.Fprintf(&b, "\n%.0f,%t", w.at.Seconds(), w.struck)
		for _, f := range soakFigures {
			fmt.Fprintf(&b, ",%.2f", f.of(w))
		}
	}
	return b.String() + "\n"
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
