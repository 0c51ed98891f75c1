package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/statedb"
)

// Source is a ledger to verify. A statedb.DB is one, and an httpapi/client.
type Source interface {
	// Range reads documents by id, as statedb.DB does. An error that wraps
	// statedb.ErrUnavailable is worth another try.
	Range(ctx context.Context, table string, r statedb.Range) (statedb.Page, error)
}

// Options say what is verified, and how. The zero value works.
type Options struct {
	// Ledger says in a few words what the source is: a run is resumed on the
	// same only.
	Ledger string
	// Derived: the source has the tables beside blocks and votes, too.
	Derived bool
	// Scratch is the folder for what a run keeps on disk. It is made, resumed
	// from after an interruption, and deleted when a run is complete. "" takes
	// a temporary one, which is deleted in any case.
	Scratch string
	// Progress, unless nil, is told often how far the run is, by one goroutine
	// at a time.
	Progress func(Progress)
	// Finding gets each finding, sorted, when the run is complete. An error
	// ends it.
	Finding func(Finding) error
}

// Report says what a complete run checked.
type Report struct {
	Genesis      string `json:"genesis"` // the first block's id, "" when it is not there
	Rules        string `json:"rules"`   // by which it decides, as the first block says
	Epochs       int    `json:"epochs"`  // of the federation's history
	Members      int    `json:"members"` // of the latest
	Blocks       Blocks `json:"blocks"`
	Transactions int    `json:"transactions"` // in valid blocks
	Votes        int    `json:"votes"`        // with a sound signature
	Derived      int    `json:"derived"`      // documents of the table for queries
	Findings     int    `json:"findings"`
	Resumed      bool   `json:"resumed"` // after an interruption

	Took time.Duration `json:"-"`
}

// Blocks counts sound blocks by what became of them.
type Blocks struct {
	Valid     int `json:"valid"`
	Undecided int `json:"undecided"`
	Disputed  int `json:"disputed"`
	Invalid   int `json:"invalid"`
}

// verifier is one run.
type verifier struct {
	Options
	source   Source
	rules    consensus.Rules // of the ledger
	workers  int
	patience time.Duration // with the source
	scratch  *scratch
	progress *Meter

	lap uint64 // counts the readings of the tables
	// subject is the reading that what is missing is judged by: the first of
	// this run. What came with the second supports it only.
	subject uint64

	history history
	voters  map[string]uint64 // numbers of all who were ever members
	names   []string          // their keys, by number

	mu     sync.Mutex
	report Report
}

// Run verifies a ledger. A finding is no error: an error means that the run is
// not complete. It can be resumed when it had a scratch folder.
func Run(ctx context.Context, source Source, o Options) (*Report, error) {
	v := &verifier{Options: o, source: source, workers: runtime.GOMAXPROCS(0), patience: patience}
	return v.run(ctx)
}

func (v *verifier) run(ctx context.Context) (report *Report, err error) {
	begin := time.Now()
	folder, keep := v.Scratch, v.Scratch != ""
	if !keep {
		if folder, err = os.MkdirTemp("", "couchledger-verify-"); err != nil {
			return nil, err
		}
	}
	if v.scratch, v.report.Resumed, err = openScratch(folder, v.Ledger); err != nil {
		if !keep {
			err = errors.Join(err, os.RemoveAll(folder))
		}
		return nil, err
	}
	defer func() {
		end := v.scratch.remove
		if keep && err != nil {
			end = v.scratch.Close
		}
		err = errors.Join(err, end())
	}()
	v.progress = NewMeter(v.Progress, stepTransactions)
	if v.rules, err = v.chooseRules(ctx); err != nil {
		return nil, err
	}
	if err := v.read(ctx, true); err != nil {
		return nil, err
	}
	suspect, err := v.evaluate(ctx)
	if err != nil {
		return nil, err
	}
	if suspect {
		if err := v.read(ctx, false); err != nil {
			return nil, err
		}
		if _, err = v.evaluate(ctx); err != nil {
			return nil, err
		}
	}
	err = v.scratch.findings(ctx, func(f Finding) error {
		v.report.Findings++
		if v.Finding == nil {
			return nil
		}
		return v.Finding(f)
	})
	if err != nil {
		return nil, err
	}
	v.report.Took = time.Since(begin)
	return &v.report, nil
}

// The steps of a run, as progress counts them.
const (
	stepBlocks = 1 + iota
	stepVotes
	stepDerived
	stepDecisions
	stepTransactions
)

// read reads the tables. The derived ones are read once, after blocks and
// votes: what they lack then is missing.
func (v *verifier) read(ctx context.Context, first bool) (err error) {
	if v.lap, err = v.scratch.nextLap(); err != nil {
		return err
	}
	names := [...]string{"checking blocks", "checking votes"}
	if first {
		v.subject = v.lap
	} else {
		names = [...]string{"reading blocks again", "reading votes again"}
	}
	v.progress.Begin(stepBlocks, names[0], "transactions")
	if err := v.readTruth(ctx, statedb.Bigchain, v.checkBlock); err != nil {
		return reading(statedb.Bigchain, err)
	}
	v.progress.Begin(stepVotes, names[1], "votes")
	err = v.readTruth(ctx, statedb.Votes, func(d statedb.Document, b *pebble.Batch) (bool, int, error) {
		sound, err := v.checkVote(d, b)
		return sound, 1, err
	})
	if err != nil {
		return reading(statedb.Votes, err)
	}
	if !first || !v.Derived {
		return nil
	}
	v.progress.Begin(stepDerived, "reading the table for queries", "documents")
	if err := errors.Join(v.scratch.clear(waitPrefix, derivedPrefix), v.scratch.clearFindings(classDerived)); err != nil {
		return err
	}
	err = v.readTable(ctx, statedb.Backlog, func(documents []statedb.Document) (int, error) {
		return 0, v.scratch.write(func(b *pebble.Batch) error { return recordWaiting(documents, b) })
	})
	if err != nil {
		return reading(statedb.Backlog, err)
	}
	v.progress.Begin(stepDerived, "reading the table for queries", "documents")
	err = v.readTable(ctx, statedb.Transactions, func(documents []statedb.Document) (int, error) {
		return len(documents), v.scratch.write(func(b *pebble.Batch) error { return v.recordDerived(documents, b) })
	})
	return reading(statedb.Transactions, err)
}

func reading(table string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("reading the table %s: %w", table, err)
}

// evaluate judges the facts together. suspect says that there is a finding that
// something which came meanwhile may explain.
func (v *verifier) evaluate(ctx context.Context) (suspect bool, err error) {
	err = errors.Join(
		v.scratch.clear(branchPrefix, rankPrefix, statusPrefix, againstPrefix, excusePrefix, amountPrefix),
		v.scratch.clearFindings(classHistory), v.scratch.clearFindings(classTogether))
	if err != nil {
		return false, err
	}
	v.report = Report{Rules: v.rules.Name(), Resumed: v.report.Resumed}
	for _, step := range []func(context.Context) error{
		v.readHistory, v.rankVotes, v.decideBlocks, v.joinTransactions, v.addAmounts, v.judgeVerdicts,
	} {
		if err := step(ctx); err != nil {
			return false, err
		}
	}
	history, err := v.scratch.anyFinding(classHistory)
	if err != nil || history {
		return history, err
	}
	return v.scratch.anyFinding(classTogether)
}
