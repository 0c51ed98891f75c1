package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

// Limits on the transactions that make histories. A transaction has at most
// two megabytes, an output takes about 300 bytes.
const (
	outputsPerCreate = 1000
	unspentLeft      = 10
	fanOut           = 4000 // outputs of the asset with many transfers
	historyPage      = 100
	historyReads     = 200 // of each of two pages compared
)

// outputs compares what the unspent outputs cost of an owner with a long
// history, all of it spent but ten, with those of an owner who has ten alone.
func (r *run) outputs(ctx context.Context, report *Report) error {
	rich, poor, sink := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	pay := func(owner string, n int) []ledger.Payment {
		list := make([]ledger.Payment, n)
		for i := range list {
			list[i] = ledger.PayTo(owner, 1)
		}
		return list
	}
	total := max(r.opts.Outputs, unspentLeft+1)
	made := (total + outputsPerCreate - 1) / outputsPerCreate
	creates := make([]*ledger.Transaction, made+1)
	res, err := r.load(ctx, "an owner's outputs", len(creates), func(i int) (t *ledger.Transaction, err error) {
		if i == made {
			t, err = r.create("poor", i, pay(poor.Public, unspentLeft)...)
		} else {
			t, err = r.create("rich", i, pay(rich.Public, min(outputsPerCreate, total-i*outputsPerCreate))...)
		}
		creates[i] = t
		return t, err
	})
	if err != nil || !r.whole(res, len(creates), "outputs") {
		return err
	}
	res, err = r.load(ctx, "spending them", made, func(i int) (*ledger.Transaction, error) {
		spend := len(creates[i].Outputs)
		if i == 0 {
			spend -= unspentLeft
		}
		sources := make([]ledger.Source, spend)
		first := ledger.SourceOf(creates[i], 0)
		for n := range sources {
			sources[n] = first
			sources[n].Ref.Index = n
		}
		return transferOf(creates[i].ID, rich, sink.Public, int64(spend), sources...)
	})
	if err != nil || !r.whole(res, made, "outputs") {
		return err
	}
	list := func(owner ledger.KeyPair) question {
		return getting("/api/v1/outputs?unspent=true&public_key=" + owner.Public)
	}
	long, short, err := r.compare(ctx, "unspent outputs", list(rich), list(poor), unspentLeft)
	if err != nil {
		return err
	}
	report.add(Figure{Name: fmt.Sprintf("Unspent outputs, 10 of %d, median", total), Value: milliseconds(long), Unit: "ms"})
	report.add(Figure{Name: "Unspent outputs, 10 alone, median", Value: milliseconds(short), Unit: "ms"})
	report.add(atMost("Unspent outputs, with history / alone", quotient(long, short), "×", r.goals.outputs))
	return nil
}

// whole reports whether every transaction of a load became valid. If not, what
// builds on them is left out, and the failures are in the report.
func (r *run) whole(res result, want int, what string) bool {
	if res.valid == want {
		return true
	}
	r.fail("left out for want of valid transactions: " + what)
	return false
}

// pages compares the first page of a long list of transfers with its last.
func (r *run) pages(ctx context.Context, report *Report) error {
	// The last page must be a full one to compare.
	total := max(2, (r.opts.Transfers+historyPage-1)/historyPage) * historyPage
	width := min(total, fanOut)
	owner := r.owner(0)
	payments := make([]ledger.Payment, width)
	for i := range payments {
		payments[i] = ledger.PayTo(owner.Public, 1)
	}
	create, err := r.create("pages", 0, payments...)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	res, err := r.load(ctx, "an asset with many outputs", 1, func(int) (*ledger.Transaction, error) { return create, nil })
	if err != nil || !r.whole(res, 1, "pages") {
		return err
	}
	// A transfer needs a valid input, so the history is made in waves, each
	// spending the outputs of the one before.
	refs := make([]ledger.OutputRef, width)
	for i := range refs {
		refs[i] = ledger.OutputRef{TxID: create.ID, Index: i}
	}
	source := ledger.SourceOf(create, 0)
	for left := total; left > 0; left -= width {
		wave := min(width, left)
		res, err := r.load(ctx, "its transfers", wave, func(i int) (*ledger.Transaction, error) {
			from := source
			from.Ref = refs[i]
			t, err := transferOf(create.ID, owner, owner.Public, 1, from)
			if err == nil {
				refs[i] = ledger.OutputRef{TxID: t.ID}
			}
			return t, err
		})
		if err != nil || !r.whole(res, wave, "pages") {
			return err
		}
	}
	first := "/api/v1/transactions?operation=TRANSFER&asset_id=" + create.ID + "&limit=" + strconv.Itoa(historyPage)
	last, rows, err := r.lastPage(ctx, first)
	if err != nil {
		return err
	}
	if rows != total {
		r.fail(fmt.Sprintf("pages hold %d transfers instead of %d", rows, total))
	}
	end, begin, err := r.compare(ctx, "pages", getting(last), getting(first), historyPage)
	if err != nil {
		return err
	}
	report.add(Figure{Name: fmt.Sprintf("Page of %d, first of %d, median", historyPage, total/historyPage), Value: milliseconds(begin), Unit: "ms"})
	report.add(Figure{Name: "Page of " + strconv.Itoa(historyPage) + ", last, median", Value: milliseconds(end), Unit: "ms"})
	report.add(atMost("Page, last / first", quotient(end, begin), "×", r.goals.pages))
	return nil
}

// lastPage follows the links of a list to its end and counts the rows.
func (r *run) lastPage(ctx context.Context, path string) (last string, rows int, err error) {
	w, err := r.dial()
	if err != nil {
		return "", 0, err
	}
	defer w.close()
	for next := path; next != ""; {
		resp, _, err := r.ask(ctx, w, http.MethodGet, next, nil)
		if err != nil || resp.status != http.StatusOK {
			return "", 0, errors.New("bench: reading pages: " + failure(resp, err))
		}
		last = next
		rows += bytes.Count(resp.body, []byte(`"operation":"TRANSFER"`))
		next = resp.nextPage()
		if ctx.Err() != nil {
			return "", 0, fmt.Errorf("bench: %w", ctx.Err())
		}
	}
	return last, rows, nil
}

// question is a request for a list.
type question struct {
	method, path string
	body         []byte
}

func getting(path string) question { return question{method: http.MethodGet, path: path} }

// compare asks for two lists in turn and gives the median time of each. Both
// must have as many rows as said.
func (r *run) compare(ctx context.Context, label string, long, short question, rows int) (ofLong, ofShort time.Duration, err error) {
	w, err := r.dial()
	if err != nil {
		return 0, 0, err
	}
	defer w.close()
	r.progress.start(label, historyReads)
	var took [2][]time.Duration
	for i := range historyReads {
		for which, q := range []question{long, short} {
			resp, lasted, err := r.ask(ctx, w, q.method, q.path, q.body)
			took[which] = append(took[which], lasted)
			if err != nil || resp.status != http.StatusOK {
				return 0, 0, errors.New("bench: " + label + ": " + failure(resp, err))
			}
			if got := countRows(resp.body); got != rows {
				r.fail(fmt.Sprintf("%s: %d rows instead of %d", label, got, rows))
			}
		}
		r.progress.at(i + 1)
		if ctx.Err() != nil {
			return 0, 0, fmt.Errorf("bench: %w", ctx.Err())
		}
	}
	r.progress.finish(historyReads)
	return percentile(took[0], .5), percentile(took[1], .5), nil
}

// countRows counts the rows of a list of outputs or transactions.
func countRows(body []byte) int {
	return bytes.Count(body, []byte(`"../transactions/`)) + bytes.Count(body, []byte(`"operation":"`))
}

func quotient(a, b time.Duration) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}
