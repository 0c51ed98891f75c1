package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Figure is one measured value.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// PerVerification is Value in proportion to the Ed25519 verifications per
	// second of all cores, for rates that have a target in it.
	PerVerification float64 `json:"per_verification,omitempty"`
	// PerRaw is Value in proportion to the documents per second that CouchDB
	// takes alone, likewise.
	PerRaw float64 `json:"per_raw,omitempty"`
	// Target is the issue's, such as "≥ 0.12", "" where there is none, and OK
	// whether it is met.
	Target string `json:"target,omitempty"`
	OK     *bool  `json:"ok,omitempty"`
}

// Report is what a run measured.
type Report struct {
	Started time.Time `json:"started"`
	Took    float64   `json:"took_seconds"`
	URL     string    `json:"url"`
	Cores   int       `json:"cores"`
	Go      string    `json:"go"`
	Options Options   `json:"options"`
	Figures []Figure  `json:"figures"`
	// Errors counts failed requests and lost transactions by kind.
	Errors map[string]int `json:"errors"`
	// Retries counts answers of 429 and 503 after which a request was repeated.
	Retries int `json:"retries_after_429_or_503"`
}

// OK reports whether every target was met and nothing failed.
func (r Report) OK() bool {
	return len(r.Errors) == 0 && !slices.ContainsFunc(r.Figures, func(f Figure) bool { return f.OK != nil && !*f.OK })
}

func (r *Report) add(f Figure) { r.Figures = append(r.Figures, f) }

// judged sets a target; 0 is none.
func judged(f Figure, sign string, target float64, ok bool) Figure {
	if target > 0 {
		f.Target, f.OK = sign+" "+number(target), &ok
	}
	return f
}

func atLeast(name string, value float64, unit string, target float64) Figure {
	return judged(Figure{Name: name, Value: value, Unit: unit}, "≥", target, value >= target)
}

func atMost(name string, value float64, unit string, target float64) Figure {
	return judged(Figure{Name: name, Value: value, Unit: unit}, "≤", target, value > 0 && value <= target)
}

// edge is how many transactions at each end of a load are compared: what the
// issue says, less for short runs.
const edge = 10_000

// reference is what rates are put in proportion to, per second.
type reference struct {
	verifications float64
	raw           float64 // documents that CouchDB takes alone; 0 without CouchDB
}

func (r *Report) addLoad(name string, res result, ref reference, target, lastFirst float64) {
	f := Figure{Name: name + ", final", Value: res.rate(), Unit: "/s"}
	if ref.verifications > 0 {
		f.PerVerification = f.Value / ref.verifications
	}
	ratio := f.PerVerification
	if ref.raw > 0 {
		f.PerRaw = f.Value / ref.raw
		ratio = f.PerRaw
	}
	r.add(judged(f, "≥", target, ratio >= target))
	for _, p := range []float64{.5, .95, .99} {
		r.add(Figure{
			Name: fmt.Sprintf("%s, POST, p%.0f", name, 100*p), Value: milliseconds(percentile(res.latencies, p)), Unit: "ms",
		})
	}
	n := min(edge, len(res.finals)/2)
	first, last := res.edges(n)
	if first == 0 {
		return
	}
	r.add(Figure{Name: fmt.Sprintf("%s, first %d", name, n), Value: first, Unit: "/s"})
	r.add(Figure{Name: fmt.Sprintf("%s, last %d", name, n), Value: last, Unit: "/s"})
	r.add(atLeast(name+", last / first", last/first, "×", lastFirst))
}

// WriteJSON prints the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// WriteTable prints the report for people.
func (r Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	connections := strings.ReplaceAll(strings.Trim(fmt.Sprint(r.Options.Connections), "[]"), " ", " and ")
	fmt.Fprintf(&b, "%s, %d cores, %s, %s connections, %d transactions of a kind, %.0f s\n\n",
		r.URL, r.Cores, r.Go, connections, r.Options.Count, r.Took)
	const row = "%-48s %12s %-4s %8s  %-9s %s\n"
	column := "per ver."
	if slices.ContainsFunc(r.Figures, func(f Figure) bool { return f.PerRaw > 0 }) {
		column = "per raw"
	}
	fmt.Fprintf(&b, row, "", "measured", "", column, "target", "")
	for _, f := range r.Figures {
		ratio, verdict := "", ""
		if share := cmp.Or(f.PerRaw, f.PerVerification); share > 0 {
			ratio = strconv.FormatFloat(share, 'f', 3, 64)
		}
		if f.OK != nil {
			verdict = "MISS"
			if *f.OK {
				verdict = "ok"
			}
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf(row, f.Name, number(f.Value), f.Unit, ratio, f.Target, verdict), " \n") + "\n")
	}
	fmt.Fprintf(&b, "\n429 or 503 answered and retried: %d\n", r.Retries)
	if len(r.Errors) == 0 {
		b.WriteString("errors: none\n")
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&b, "error, %d times: %s\n", r.Errors[kind], kind)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// number prints three significant digits, or all before the point.
func number(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
