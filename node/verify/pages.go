package verify

import (
	"context"
	"errors"
	"time"

	"github.com/couchledger/couchledger/statedb"
)

const (
	// A page brings about pageBytes, and pageRows at most. Its rows follow the
	// size of those before, and grow by pageGrowth at most, since blocks may
	// have thousand times the size of the last ones.
	pageBytes  = 4 << 20
	pageRows   = 1000
	blockRows  = 64 // of the bigchain table
	firstRows  = 4
	pageGrowth = 4
)

// patience is how long a source that is not available is asked again.
const (
	firstWait = 250 * time.Millisecond
	patience  = 30 * time.Second
)

// Pages reads tables of a source in pages that fit into memory.
type Pages struct {
	source   Source
	patience time.Duration
}

// PagesOf reads a source. One that is not available is asked again for half a
// minute.
func PagesOf(source Source) Pages { return Pages{source, patience} }

func (v *verifier) pages() Pages { return Pages{v.source, v.patience} }

// Page reads a page, again for a while when the source is not available.
func (p Pages) Page(ctx context.Context, table string, r statedb.Range) (page statedb.Page, err error) {
	err = insist(ctx, p.patience, func() error {
		page, err = p.source.Range(ctx, table, r)
		return err
	})
	return page, err
}

// Insist calls do again, for half a minute, while its error wraps
// statedb.ErrUnavailable.
func Insist(ctx context.Context, do func() error) error { return insist(ctx, patience, do) }

func insist(ctx context.Context, patience time.Duration, do func() error) error {
	for wait, waited := firstWait, time.Duration(0); ; wait *= 2 {
		err := do()
		if err == nil || !errors.Is(err, statedb.ErrUnavailable) || waited+wait > patience {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
			waited += wait
		}
	}
}

// Each calls do with all documents of a table, a page of them at a time.
func (p Pages) Each(ctx context.Context, table string, do func([]statedb.Document) error) error {
	most := pageRows
	if table == statedb.Bigchain {
		most = blockRows
	}
	for r := (statedb.Range{Limit: firstRows}); ; {
		page, err := p.Page(ctx, table, r)
		if err != nil {
			return err
		}
		size := 0
		for _, d := range page.Documents {
			size += len(d.Body)
		}
		if err := do(page.Documents); err != nil {
			return err
		}
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			return nil
		}
		fits := pageRows
		if len(page.Documents) > 0 {
			fits = 1 + pageBytes/(1+size/len(page.Documents))
		}
		r.Limit = min(most, fits, r.Limit*pageGrowth)
	}
}
