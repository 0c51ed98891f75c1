package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// eventQueue is how many events from the feeds wait for the ledger loop. Each
// may hold a block, so it is short; the feeds wait meanwhile.
const eventQueue = 8

// event is one checked object from a feed, or a checkpoint in it.
type event struct {
	block     *ledger.Block
	unsound   error // why the block can never be valid, whatever the votes
	vote      *ledger.Vote
	statement *ledger.Statement

	table    string
	token    string // checkpoint that this event completes; "" for none
	caughtUp bool   // the feed has nothing more to tell for now
}

// emit hands an event to the ledger loop.
func (f *follower) emit(ctx context.Context, e event) error {
	select {
	case f.events <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow reads a table's feed from a token on, for ever, and hands over its
// batches. A feed that breaks is opened again where it was.
func (f *follower) follow(ctx context.Context, table, token string, handle func(statedb.Batch) error) error {
	var feed statedb.Feed
	defer func() {
		if feed != nil {
			feed.Close()
		}
	}()
	for {
		var batch statedb.Batch
		err := f.retry(ctx, f.task+table+" feed", func() (err error) {
			if feed == nil {
				if feed, err = f.db.Changes(ctx, table, token); err != nil {
					feed = nil
					if errors.Is(err, statedb.ErrBadToken) {
						token = "" // what is known comes again
						f.log.Warn("the table was made anew since this node read it; if it was restored from a dump, stop all nodes and call `bigchaindb reindex --after-restore`",
							"component", f.task+table+" feed")
					}
					return err
				}
			}
			if batch, err = feed.Next(ctx); err != nil {
				feed.Close()
				feed = nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := handle(batch); err != nil {
			return err
		}
		token = batch.Token
	}
}

// followBlocks reads blocks, and statements about the federation.
func (f *follower) followBlocks(ctx context.Context) error {
	token, err := f.state.Token(statedb.Bigchain)
	if err != nil {
		return err
	}
	return f.follow(ctx, statedb.Bigchain, token, func(batch statedb.Batch) error {
		ids := make([]string, 0, len(batch.Changes))
		for _, c := range batch.Changes {
			if !c.Deleted && (ledger.IsID(c.ID) || strings.HasPrefix(c.ID, ledger.StatementPrefix)) {
				ids = append(ids, c.ID)
			}
		}
		if err := f.readBlocks(ctx, ids); err != nil {
			return err
		}
		return f.emit(ctx, event{table: statedb.Bigchain, token: batch.Token, caughtUp: batch.CaughtUp})
	})
}

// readBytes is about how much one read of documents may bring.
const readBytes = 16 << 20

// readBlocks fetches, checks and emits documents of the bigchain table.
func (f *follower) readBlocks(ctx context.Context, ids []string) error {
	size := ledger.MaxBlockBytes // of one document, as far as is known
	for len(ids) > 0 {
		if b := f.observer.own(ids[0]); b != nil {
			// Signed here a moment ago; the block writer saw to it that the
			// database has exactly this.
			if err := f.emit(ctx, event{block: b}); err != nil {
				return err
			}
			ids = ids[1:]
			continue
		}
		documents, err := f.fetch(ctx, statedb.Bigchain, ids[:min(len(ids), max(1, readBytes/size))])
		if err != nil {
			return err
		}
		ids = ids[len(documents):]
		total := 0
		for _, d := range documents {
			total += len(d.Body)
			if err := f.readBigchainDocument(ctx, d); err != nil {
				return err
			}
		}
		size = max(total/len(documents), 1000)
	}
	return nil
}

// fetch reads as many documents as the database gives at a time, the first of ids.
func (f *follower) fetch(ctx context.Context, table string, ids []string) (documents []statedb.Document, err error) {
	err = f.retry(ctx, f.task+table+" read", func() error {
		documents, err = f.db.Get(ctx, table, ids)
		return err
	})
	return documents, err
}

// each reads all documents by id and calls do with each, in order; i is the place of
// its id.
func (f *follower) each(ctx context.Context, table string, ids []string, do func(i int, d statedb.Document) error) error {
	return statedb.EachBy(ids, func(left []string) ([]statedb.Document, error) { return f.fetch(ctx, table, left) }, do)
}

// fetchBlock reads a block; *lostBlockError when it is not there.
func (f *follower) fetchBlock(ctx context.Context, id string) (*ledger.Block, error) {
	documents, err := f.fetch(ctx, statedb.Bigchain, []string{id})
	if err != nil {
		return nil, err
	}
	return f.soundBlock(ctx, documents[0])
}

func (f *follower) soundBlock(ctx context.Context, d statedb.Document) (*ledger.Block, error) {
	return soundBlock(d.ID, f.revisions(ctx, statedb.Bigchain, d))
}

// revisions gives all that stands under an id, trying until it can be read.
func (f *follower) revisions(ctx context.Context, table string, d statedb.Document) iter.Seq2[statedb.Revision, error] {
	return d.Revisions(func(revs []string) (read []statedb.Revision, err error) {
		err = f.retry(ctx, f.task+table+" read", func() error {
			read, err = statedb.ReadRevisions(ctx, f.db, table, d.ID, revs)
			return err
		})
		return read, err
	})
}

func (f *follower) readBigchainDocument(ctx context.Context, d statedb.Document) error {
	if d.Rev == "" {
		return nil // deleted since
	}
	if strings.HasPrefix(d.ID, ledger.StatementPrefix) {
		return f.readStatements(ctx, d)
	}
	if len(d.Others) > 0 {
		if err := f.settleRevisions(ctx, statedb.Bigchain, d, isBlock(d.ID)); err != nil {
			return err
		}
	}
	if status, err := f.state.BlockStatus(d.ID); err != nil || status != consensus.Unknown {
		return err // feeds repeat
	}
	b, err := f.soundBlock(ctx, d)
	if lost := (*lostBlockError)(nil); errors.As(err, &lost) {
		if len(d.Others) > 0 {
			return nil // told already
		}
		return f.unsound(statedb.Bigchain, d.ID, d.Body, err)
	}
	if err != nil {
		return err
	}
	return f.emit(ctx, event{block: b, unsound: f.soundness(b)})
}

// readStatements emits what stands under a statement's id.
func (f *follower) readStatements(ctx context.Context, d statedb.Document) error {
	var emitted error
	err := f.settleRevisions(ctx, statedb.Bigchain, d, func(body []byte) error {
		st, err := ledger.ParseStatement(body)
		if err == nil && (st.DocumentID() != d.ID || !st.Verify()) {
			err = errors.New("it is not signed by its member")
		}
		if err == nil && emitted == nil {
			emitted = f.emit(ctx, event{statement: st})
		}
		return err
	})
	return cmp.Or(emitted, err)
}

// soundness checks what a block's transactions show by themselves, on all
// cores. An error means that the block can never be valid.
func (f *follower) soundness(b *ledger.Block) error {
	seen := make(map[string]bool, len(b.Transactions))
	for _, t := range b.Transactions {
		if seen[t.ID] {
			return fmt.Errorf("transaction %s is in it twice", t.ID)
		}
		seen[t.ID] = true
		if t.Operation == ledger.Genesis && b.ID != f.genesis.ID {
			return errors.New("it holds a GENESIS and is not the first block")
		}
	}
	faults := make([]error, len(b.Transactions))
	inParallel(len(b.Transactions), func(i int) {
		if _, err := f.check(b.Transactions[i]); err != nil {
			faults[i] = fmt.Errorf("transaction %s: %w", b.Transactions[i].ID, err)
		}
		b.Transactions[i].Compact()
	})
	for _, err := range faults {
		if err != nil {
			return err
		}
	}
	return nil
}

// followVotes reads votes.
func (f *follower) followVotes(ctx context.Context) error {
	token, err := f.state.Token(statedb.Votes)
	if err != nil {
		return err
	}
	if f.allVotes {
		token = ""
	}
	return f.follow(ctx, statedb.Votes, token, func(batch statedb.Batch) error {
		ids := make([]string, 0, len(batch.Changes))
		for _, c := range batch.Changes {
			if !c.Deleted {
				ids = append(ids, c.ID)
			}
		}
		for len(ids) > 0 {
			documents, err := f.fetch(ctx, statedb.Votes, ids)
			if err != nil {
				return err
			}
			if err := f.readVotes(ctx, documents); err != nil {
				return err
			}
			ids = ids[len(documents):]
		}
		return f.emit(ctx, event{table: statedb.Votes, token: batch.Token, caughtUp: batch.CaughtUp})
	})
}

func (f *follower) readVotes(ctx context.Context, documents []statedb.Document) error {
	votes := make([]*ledger.Vote, len(documents)) // of what the database shows
	faults := make([]error, len(documents))
	inParallel(len(documents), func(i int) {
		if d := documents[i]; d.Rev != "" {
			votes[i], faults[i] = readVote(d.ID, d.Body)
		}
	})
	for i, d := range documents {
		shown := true
		var emitted error
		err := f.settleRevisions(ctx, statedb.Votes, d, func(body []byte) error {
			v, fault := votes[i], faults[i]
			if !shown { // nobody but a liar makes more of them
				v, fault = readVote(d.ID, body)
			}
			shown = false
			if fault == nil && emitted == nil {
				emitted = f.emit(ctx, event{vote: v})
			}
			return fault
		})
		if err := cmp.Or(emitted, err); err != nil {
			return err
		}
		if faults[i] != nil {
			f.observer.damagedVote(d.ID)
		}
	}
	return nil
}

// readVote reads what stands under a vote's id.
func readVote(id string, body []byte) (*ledger.Vote, error) {
	v, err := ledger.ParseVote(body)
	if err == nil && !v.StandsAt(id) {
		err = errors.New("its id is not that of its block and voter")
	}
	if err == nil && !v.Verify() {
		err = errors.New("the signature is not its voter's")
	}
	return v, err
}

// followBacklog tracks the backlog: what other nodes posted, what they
// assigned to this one, and what lay there at the start.
func (n *Node) followBacklog(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.caughtUp:
	}
	return n.follow(ctx, statedb.Backlog, "", func(batch statedb.Batch) error {
		var ids []string
		for _, c := range batch.Changes {
			if !c.Deleted && !n.backlog.knows(c.ID, c.Rev) {
				ids = append(ids, c.ID)
			}
		}
		return n.trackEntries(ctx, ids)
	})
}

// trackEntries reads entries of the backlog and begins to track those that
// are sound.
func (n *Node) trackEntries(ctx context.Context, ids []string) error {
	for len(ids) > 0 {
		documents, err := n.fetch(ctx, statedb.Backlog, ids[:min(len(ids), backlogRead)])
		if err != nil {
			return err
		}
		if err := n.trackDocuments(ctx, documents); err != nil {
			return err
		}
		ids = ids[len(documents):]
	}
	return nil
}

// backlogRead is how many entries of the backlog are read at once.
const backlogRead = 200

func (n *Node) trackDocuments(ctx context.Context, documents []statedb.Document) error {
	if err := n.settleConflicts(ctx, documents); err != nil {
		return err
	}
	faults := make([]error, len(documents))
	assignees := make([]string, len(documents))
	txs := make([]*ledger.Transaction, len(documents))
	inParallel(len(documents), func(i int) {
		if documents[i].Rev == "" {
			return
		}
		if txs[i], assignees[i], faults[i] = readBacklogDocument(documents[i]); faults[i] == nil {
			_, faults[i] = n.check(txs[i])
		}
	})
	var refused []journal.Refusal
	var faulty []statedb.Document
	for i, d := range documents {
		if d.Rev == "" {
			continue
		}
		if faults[i] != nil {
			refused, faulty = append(refused, journal.Refusal{TxID: d.ID, Reason: faults[i].Error()}), append(faulty, d)
			continue
		}
		status, _, err := n.state.TransactionStatus(d.ID)
		if err != nil {
			return err
		}
		if status == consensus.Valid {
			n.effects.clear(d.ID)
			continue
		}
		if n.backlog.track(d.ID, d.Rev, assignees[i]) && status == consensus.Undecided {
			n.backlog.entered([]string{d.ID})
		}
		if n.replicated.Load() {
			lost, err := n.lost(txs[i])
			if err != nil {
				return err
			}
			n.backlog.watchSpends(txs[i], lost)
		}
	}
	return n.refuseDocuments(ctx, refused, faulty)
}
