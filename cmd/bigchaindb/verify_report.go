package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/couchledger/couchledger/node/verify"
)

// verifyReport writes what verify found.
type verifyReport interface {
	// finding takes up one finding.
	finding(verify.Finding) error
	// end completes the report.
	end(verify.Options, *verify.Report) error
}

// shownFindings is how many findings of one rule the report for people shows.
const shownFindings = 10

// verifyText is the report for people.
type verifyText struct {
	out    io.Writer
	counts map[verify.Rule]int
	shown  map[verify.Rule][]verify.Finding
}

func (r *verifyText) finding(f verify.Finding) error {
	if r.counts == nil {
		r.counts, r.shown = map[verify.Rule]int{}, map[verify.Rule][]verify.Finding{}
	}
	if r.counts[f.Rule]++; r.counts[f.Rule] <= shownFindings {
		r.shown[f.Rule] = append(r.shown[f.Rule], f)
	}
	return nil
}

// countsOf lists blocks by status; disputed ones are so rare that they are
// left out where there are none.
func countsOf(b verify.Blocks) string {
	text := fmt.Sprintf("%d valid, %d undecided, %d invalid", b.Valid, b.Undecided, b.Invalid)
	if b.Disputed > 0 {
		text += fmt.Sprintf(", %d disputed", b.Disputed)
	}
	return text
}

func (r *verifyText) end(o verify.Options, report *verify.Report) error {
	w := &lines{out: r.out}
	w.add("ledger        %s", o.Ledger)
	w.add("first block   %s", report.Genesis)
	w.add("federation    members: %d, epochs: %d; decides by %s", report.Members, report.Epochs, report.Rules)
	b := report.Blocks
	w.add("blocks        %d: %s", b.Valid+b.Undecided+b.Invalid+b.Disputed, countsOf(b))
	w.add("transactions  %d in valid blocks", report.Transactions)
	w.add("votes         %d", report.Votes)
	if o.Derived {
		w.add("for queries   %d documents", report.Derived)
	} else {
		w.add("for queries   not looked at: only blocks and votes can be had from here")
	}
	w.add("took          %s, %.0f transactions per second", report.Took.Round(100*time.Millisecond), float64(report.Transactions)/report.Took.Seconds())
	for _, rule := range verify.Rules {
		if r.counts[rule.Rule] == 0 {
			continue
		}
		w.add("\n%s: %d (%s)", rule.Rule, r.counts[rule.Rule], rule.Text)
		for _, f := range r.shown[rule.Rule] {
			about := ""
			if f.Transaction != "" {
				about = " transaction " + f.Transaction + ":"
			}
			w.add("  %s/%s:%s %s", f.Table, f.ID, about, f.Seen)
		}
		if more := r.counts[rule.Rule] - len(r.shown[rule.Rule]); more > 0 {
			w.add("  and %d more; --json lists them", more)
		}
	}
	if report.Findings == 0 {
		w.add("\nThe ledger is sound.")
	} else {
		w.add("\n%d findings.", report.Findings)
	}
	return w.err
}

// lines writes lines until one cannot be written.
type lines struct {
	out io.Writer
	err error
}

func (w *lines) add(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.out, format+"\n", args...)
	}
}

// verifyJSON is the report for programs: findings are written as they come,
// since there may be many.
type verifyJSON struct {
	out io.Writer
	any bool
}

func (r *verifyJSON) finding(f verify.Finding) error {
	before := ",\n"
	if !r.any {
		before = `{"findings":[` + "\n"
	}
	r.any = true
	return r.write(before, f)
}

func (r *verifyJSON) write(before string, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = io.WriteString(r.out, before+string(text))
	}
	return err
}

func (r *verifyJSON) end(o verify.Options, report *verify.Report) error {
	before := "\n],\n"
	if !r.any {
		before = `{"findings":[],` + "\n"
	}
	if err := r.write(before+`"ledger":`, o.Ledger); err != nil {
		return err
	}
	if err := r.write(",\n"+`"checked":`, report); err != nil {
		return err
	}
	if err := r.write(",\n"+`"sound":`, report.Findings == 0); err != nil {
		return err
	}
	_, err := io.WriteString(r.out, "}\n")
	return err
}
