package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// BackupOptions say what goes into a file. The zero value works.
type BackupOptions struct {
	// Since are earlier files of the same ledger: what they hold is left out.
	// Their Check is the caller's part.
	Since *Chain
	// Backlog has what waits for a decision in the file, too.
	Backlog bool
	// Scratch is the folder in which what is kept on disk meanwhile has a
	// temporary one; "" for that of the system. It takes about as much as the
	// votes, and 200 bytes for each transaction of a federation of several.
	Scratch string
	// Progress, unless nil, is told often how far it is.
	Progress func(verify.Progress)
	// Left, unless nil, is told of each document that is not the ledger's and
	// so not in the file.
	Left func(table, id string, why error)
}

// Backup writes a file with the ledger of a source that may be written to
// meanwhile.
func Backup(ctx context.Context, source verify.Source, out io.Writer, o BackupOptions) (summary Summary, err error) {
	folder, err := os.MkdirTemp(o.Scratch, "couchledger-backup-")
	if err != nil {
		return summary, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	facts, err := openFacts(folder)
	if err != nil {
		return summary, err
	}
	defer func() { err = errors.Join(err, facts.close()) }()
	told := map[string]bool{}
	c := &cut{
		pages: verify.PagesOf(source), facts: facts, backlog: o.Backlog,
		progress: verify.NewMeter(o.Progress, stepWriteVotes),
		left: func(table, id string, why error) {
			if name := table + "/" + id; o.Left != nil && !told[name] {
				told[name] = true
				o.Left(table, id, why)
			}
		},
	}
	if err := c.choose(ctx); err != nil {
		return summary, err
	}
	since := ""
	if o.Since != nil {
		if since = o.Since.Identity(); o.Since.Genesis() != c.genesis {
			return summary, fmt.Errorf("%s is of another ledger: its genesis block is %s, the database's is %s", o.Since, o.Since.Genesis(), c.genesis)
		}
	}
	w, err := NewWriter(out, since)
	if err != nil {
		return summary, err
	}
	s := &selection{cut: c, w: w, base: o.Since}
	for _, write := range []func(context.Context) error{s.writeBacklog, s.writeBlocks, s.writeVotes} {
		if err := write(ctx); err != nil {
			return summary, err
		}
	}
	return w.Close(c.genesis, o.Backlog)
}

// selection writes what a cut has chosen, less what an earlier file holds.
type selection struct {
	*cut
	w    *Writer
	base *Chain
	held *merge // the earlier files' documents of the table that is written
}

func (s *selection) begin(table string) (err error) {
	if s.base != nil {
		s.held, err = s.base.merge(table, "")
	}
	return err
}

// add writes a document unless the earlier files hold it.
func (s *selection) add(table, id string, body []byte) error {
	if s.held != nil {
		d, err := s.held.peek()
		switch {
		case err != nil:
			return err
		case d != nil && d.ID < id:
			return s.lost(table, d.ID)
		case d != nil && d.ID == id && !bytes.Equal(d.Body, body):
			return fmt.Errorf("%s/%s is not what %s holds, though blocks and votes never change; `bigchaindb verify` tells which is sound", table, id, s.base)
		case d != nil && d.ID == id:
			return s.held.next()
		}
	}
	return s.w.Add(table, id, body)
}

// end makes sure that the earlier files hold nothing that the ledger does not.
func (s *selection) end(table string) error {
	if s.held == nil {
		return nil
	}
	d, err := s.held.peek()
	if err == nil && d != nil {
		err = s.lost(table, d.ID)
	}
	return err
}

func (s *selection) lost(table, id string) error {
	return fmt.Errorf("%s holds %s/%s, which the ledger does not have any more; make a full backup, without --since", s.base, table, id)
}

func (s *selection) writeBacklog(ctx context.Context) error {
	return s.facts.under(ctx, []byte{entryPrefix}, func(id string, body []byte) error {
		return s.w.Add(statedb.Backlog, id, body)
	})
}

func (s *selection) writeBlocks(ctx context.Context) error {
	s.progress.Begin(stepWriteBlocks, "writing blocks", "blocks")
	if err := s.begin(statedb.Bigchain); err != nil {
		return err
	}
	seen := 0
	err := s.pages.Each(ctx, statedb.Bigchain, func(documents []statedb.Document) error {
		n, err := s.writeSome(documents)
		seen += n
		s.progress.Add(len(documents), lastID(documents))
		return err
	})
	if err != nil {
		return err
	}
	chosen := 0
	for _, prefix := range []byte{blockPrefix, historyPrefix} {
		if err := s.facts.under(ctx, []byte{prefix}, func(string, []byte) error { chosen++; return nil }); err != nil {
			return err
		}
	}
	if seen != chosen {
		return fmt.Errorf("%d blocks were there when they were first read and are gone: the ledger was changed from outside", chosen-seen)
	}
	return s.end(statedb.Bigchain)
}

// writeSome writes those of a page's documents that were chosen, and returns
// how many of them were.
func (s *selection) writeSome(documents []statedb.Document) (chosen int, err error) {
	bodies, faults, in := make([][]byte, len(documents)), make([]error, len(documents)), make([]bool, len(documents))
	inParallel(len(documents), func(i int) { bodies[i], in[i], faults[i] = s.chosenBody(documents[i]) })
	for i, d := range documents {
		var left *leftError
		switch {
		case errors.As(faults[i], &left):
			s.left(statedb.Bigchain, d.ID, left.why)
		case faults[i] != nil:
			return chosen, faults[i]
		case bodies[i] != nil:
			if err := s.add(statedb.Bigchain, d.ID, bodies[i]); err != nil {
				return chosen, err
			}
		}
		if in[i] {
			chosen++
		}
	}
	return chosen, nil
}

// leftError is why a document is not the ledger's.
type leftError struct{ why error }

func (e *leftError) Error() string { return e.why.Error() }

// chosenBody is what to write of a document of the bigchain table, nil for
// nothing; in tells whether the readings have found it.
func (s *selection) chosenBody(d statedb.Document) (body []byte, in bool, err error) {
	if isHistory(d.ID) {
		body, err = s.facts.Value(key(historyPrefix, d.ID))
		return body, body != nil, err
	}
	in, err = s.facts.has(key(blockPrefix, d.ID))
	if err != nil || !in && !s.contested && ledger.IsID(d.ID) {
		return nil, in, err
	}
	b, err := soundBlock(d)
	if err != nil {
		return nil, in, &leftError{err}
	}
	if !in {
		if speaks, err := s.speaks(b); err != nil || !speaks {
			return nil, false, err
		}
	}
	return b.Bytes(), in, nil
}

func (s *selection) writeVotes(ctx context.Context) error {
	s.progress.Begin(stepWriteVotes, "writing votes", "votes")
	if err := s.begin(statedb.Votes); err != nil {
		return err
	}
	err := s.facts.under(ctx, []byte{votePrefix}, func(id string, body []byte) error {
		s.progress.Add(1, id)
		return s.add(statedb.Votes, id, body)
	})
	if err != nil {
		return err
	}
	return s.end(statedb.Votes)
}

// inParallel calls do with 0 to n-1 on all cores.
func inParallel(n int, do func(i int)) {
	var group sync.WaitGroup
	workers := min(n, runtime.GOMAXPROCS(0))
	for w := range workers {
		group.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	group.Wait()
}

// sameJSON compares a document as a database gave it back with canonical bytes.
func sameJSON(document, body []byte) bool {
	if bytes.Equal(document, body) {
		return true
	}
	tree, err := canonical.Parse(document)
	return err == nil && bytes.Equal(tree.Bytes(), body)
}
