package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// Errors of Restore that callers tell apart.
var (
	// ErrNotEmpty: the target holds documents.
	ErrNotEmpty = errors.New("the database is not empty")
	// ErrJournalAhead: the node has given votes, or made blocks, that the
	// backup does not hold.
	ErrJournalAhead = errors.New("the journal knows more than the backup")
)

// RestoreOptions say how a ledger is restored.
type RestoreOptions struct {
	// StatePath is where the node that will run on the target keeps its state.
	StatePath string
	// SetJournalAside: a journal that knows of votes which the backup does not
	// hold is moved away, rather than refused.
	SetJournalAside bool
	// Progress, unless nil, is told often how far it is.
	Progress func(verify.Progress)
}

// Restored says what a restore did.
type Restored struct {
	Resumed bool `json:"resumed"` // an unfinished one
	// JournalAside is where the node's journal was moved, "" when it was not.
	JournalAside string `json:"journal_aside,omitempty"`
}

// Steps of a restore, as progress counts them.
const (
	stepCheck = 1 + iota
	stepWrite
	stepCompare
)

// restorer is one restore.
type restorer struct {
	db       statedb.DB
	chain    *Chain
	progress *verify.Meter
	claim    statedb.Write // on the first block
	resumed  bool
	created  bool // by this run
	marked   bool
}

// Restore makes a ledger of files that were checked and verified, in a database
// that must hold no documents. Until it is complete, no node can run on it. What
// an interruption left the same call completes. When it fails for another reason
// than that the database is away, a database that it made is dropped again.
func Restore(ctx context.Context, db statedb.DB, chain *Chain, o RestoreOptions) (done Restored, err error) {
	r := &restorer{db: db, chain: chain, progress: verify.NewMeter(o.Progress, stepCompare)}
	state, err := node.HoldState(o.StatePath, chain.Genesis())
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	if r.claim, err = r.readClaim(ctx); err != nil {
		return done, err
	}
	ahead, err := r.journalAhead(ctx, state)
	if err != nil {
		return done, err
	}
	if ahead.any() && !o.SetJournalAside {
		return done, fmt.Errorf("%w: %s in %s has %s", ErrJournalAhead, "the journal", o.StatePath, ahead)
	}
	if err := verify.Insist(ctx, func() error { return r.checkTarget(ctx) }); err != nil {
		return done, err
	}
	if err := r.checkDocuments(ctx); err != nil {
		return done, err
	}
	if err := r.fill(ctx); err != nil {
		return done, errors.Join(err, r.takeBack(ctx, err))
	}
	if done.JournalAside, err = state.Renew(ahead.any()); err != nil {
		return done, err
	}
	done.Resumed = r.resumed
	return done, r.complete(ctx)
}

// ahead counts what a journal holds and the files do not.
type ahead struct{ votes, blocks int }

func (a ahead) any() bool { return a.votes+a.blocks > 0 }

func (a ahead) String() string {
	return fmt.Sprintf("%d votes and %d unsent blocks of this node that the backup does not hold", a.votes, a.blocks)
}

func (r *restorer) journalAhead(ctx context.Context, state *node.OldState) (a ahead, err error) {
	holds := func(table, id string) (bool, error) {
		page, err := r.chain.Range(ctx, table, statedb.Range{Start: id, End: id + "\x01", Limit: 1})
		return len(page.Documents) == 1, err
	}
	err = state.Journal(func(v *ledger.Vote) error {
		there, err := holds(statedb.Votes, ledger.VoteID(v.BlockID, v.NodePubkey))
		if !there {
			a.votes++
		}
		return err
	}, func(b *ledger.Block) error {
		there, err := holds(statedb.Bigchain, b.ID)
		if !there {
			a.blocks++
		}
		return err
	})
	return a, err
}

// marker is the document of a restore that is not complete.
func (r *restorer) marker() []byte {
	return canonical.ObjectOf(
		canonical.Member{Key: "backup", Value: canonical.StringOf(r.chain.Identity())},
		canonical.Member{Key: "says", Value: canonical.StringOf("an unfinished restore; this is no ledger yet")},
	).Bytes()
}

// checkTarget makes sure that the database holds nothing, or what a restore of
// the same files has left.
func (r *restorer) checkTarget(ctx context.Context) error {
	documents, err := r.db.Get(ctx, statedb.Bigchain, []string{node.RestoreMarker})
	if errors.Is(err, statedb.ErrNoDatabase) {
		return nil
	}
	if err != nil {
		return err
	}
	if marker := documents[0]; marker.Rev != "" {
		if !sameJSON(marker.Body, r.marker()) {
			return fmt.Errorf("%w: it holds an unfinished restore of another backup; run that one again, or `bigchaindb drop`", ErrNotEmpty)
		}
		r.resumed, r.marked = true, true
		return nil
	}
	for _, table := range statedb.Tables {
		page, err := r.db.Range(ctx, table, statedb.Range{Limit: 1})
		if errors.Is(err, statedb.ErrNoDatabase) {
			continue
		}
		if err != nil {
			return err
		}
		if len(page.Documents) > 0 {
			return fmt.Errorf("%w: the table %s has documents, the first is %.100q; `bigchaindb drop` deletes the database, or name another one", ErrNotEmpty, table, page.Documents[0].ID)
		}
	}
	return nil
}

// checkDocuments asks of every document whether the database can hold it.
func (r *restorer) checkDocuments(ctx context.Context) error {
	r.progress.Begin(stepCheck, "checking for the database", "documents")
	most := r.db.Limits().MaxDocumentBytes
	for _, table := range tables {
		err := verify.PagesOf(r.chain).Each(ctx, table, func(documents []statedb.Document) error {
			faults := make([]error, len(documents))
			inParallel(len(documents), func(i int) {
				tree, err := canonical.Parse(documents[i].Body)
				if err == nil && table == statedb.Backlog {
					_, err = soundEntry(documents[i])
				}
				switch {
				case err != nil:
				case !bytes.Equal(tree.Bytes(), documents[i].Body):
					err = damaged("it is not in canonical form")
				case len(documents[i].Body) > most:
					err = fmt.Errorf("it has %d bytes, more than %d", len(documents[i].Body), most)
				default:
					err = r.db.Check(tree)
				}
				faults[i] = err
			})
			for i, err := range faults {
				if err != nil {
					return fmt.Errorf("the database cannot hold %s/%s of the backup: %w", table, documents[i].ID, err)
				}
			}
			r.progress.Add(len(documents), lastID(documents))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fill writes all but the claim on the first block, and compares what it wrote.
func (r *restorer) fill(ctx context.Context) (err error) {
	err = verify.Insist(ctx, func() error {
		created, err := r.db.Create(ctx)
		r.created = r.created || created
		return err
	})
	if err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	if !r.marked {
		if err := r.put(ctx, statedb.Bigchain, []statedb.Document{{ID: node.RestoreMarker, Body: r.marker()}}); err != nil {
			return err
		}
		r.marked = true
	}
	r.progress.Begin(stepWrite, "writing", "documents")
	for _, table := range tables {
		if err := r.write(ctx, table); err != nil {
			return fmt.Errorf("writing the table %s: %w", table, err)
		}
	}
	r.progress.Begin(stepCompare, "comparing", "documents")
	for _, table := range statedb.Tables {
		if err := r.compare(ctx, table); err != nil {
			return err
		}
	}
	return nil
}

// batchBytes is about how much one Write takes, unless a document is larger.
const batchBytes = 2 << 20

func (r *restorer) write(ctx context.Context, table string) error {
	group, ctx := errgroup.WithContext(ctx)
	limits := r.db.Limits()
	group.SetLimit(max(1, limits.Writers))
	err := verify.PagesOf(r.chain).Each(ctx, table, func(documents []statedb.Document) error {
		for len(documents) > 0 {
			n, size := 0, 0
			for n < min(len(documents), limits.MaxBatch) && (n == 0 || size+len(documents[n].Body) <= batchBytes) {
				size += len(documents[n].Body)
				n++
			}
			batch := documents[:n]
			documents = documents[n:]
			group.Go(func() error {
				err := r.put(ctx, table, batch)
				r.progress.Add(len(batch), lastID(batch))
				return err
			})
		}
		return ctx.Err()
	})
	return errors.Join(group.Wait(), err)
}

// put creates documents. What is there already must be the same. The claim on
// the first block is left out.
func (r *restorer) put(ctx context.Context, table string, documents []statedb.Document) error {
	var writes []statedb.Write
	for _, d := range documents {
		if table != statedb.Bigchain || d.ID != genesisID {
			writes = append(writes, statedb.Write{ID: d.ID, Body: d.Body})
		}
	}
	if len(writes) == 0 {
		return nil
	}
	return verify.Insist(ctx, func() error { return r.create(ctx, table, writes) })
}

func (r *restorer) create(ctx context.Context, table string, writes []statedb.Write) error {
	results, err := r.db.Write(ctx, table, writes)
	if err != nil {
		return err
	}
	var ids []string
	var bodies [][]byte
	for i, result := range results {
		switch {
		case errors.Is(result.Err, statedb.ErrConflict):
			ids, bodies = append(ids, writes[i].ID), append(bodies, writes[i].Body)
		case result.Err != nil:
			return fmt.Errorf("%s/%s: %w", table, writes[i].ID, result.Err)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return statedb.Each(ctx, r.db, table, ids, func(i int, d statedb.Document) error {
		if !sameJSON(d.Body, bodies[i]) {
			return foreign(table, d.ID)
		}
		return nil
	})
}

// foreign says that somebody else writes into the database.
func foreign(table, id string) error {
	return fmt.Errorf("%s/%s in the database is not what the backup holds: somebody else writes there, or it does not keep what it is given", table, id)
}

// compare reads a table back: it must hold what the files do and nothing else.
func (r *restorer) compare(ctx context.Context, table string) error {
	next := &pager{pages: verify.PagesOf(r.chain), table: table}
	err := verify.PagesOf(r.db).Each(ctx, table, func(documents []statedb.Document) error {
		for _, d := range documents {
			if table == statedb.Bigchain && (d.ID == node.RestoreMarker || d.ID == genesisID) {
				continue // complete compares the claim
			}
			want, err := next.document(ctx)
			switch {
			case err != nil:
				return err
			case want == nil || want.ID != d.ID || !sameJSON(d.Body, want.Body):
				return foreign(table, d.ID)
			}
		}
		r.progress.Add(len(documents), lastID(documents))
		return nil
	})
	if err != nil {
		return err
	}
	switch want, err := next.document(ctx); {
	case err != nil:
		return err
	case want != nil:
		return fmt.Errorf("%s/%s was written and is not in the database", table, want.ID)
	}
	return nil
}

// pager goes over a table of the files document by document, less the claim on
// the first block.
type pager struct {
	pages verify.Pages
	table string
	rest  []statedb.Document
	mark  string
	ended bool
}

func (p *pager) document(ctx context.Context) (*statedb.Document, error) {
	for {
		for len(p.rest) == 0 {
			if p.ended {
				return nil, nil
			}
			page, err := p.pages.Page(ctx, p.table, statedb.Range{Limit: pagerRows, Bookmark: p.mark})
			if err != nil {
				return nil, err
			}
			p.rest, p.mark, p.ended = page.Documents, page.Bookmark, page.Bookmark == ""
		}
		d := &p.rest[0]
		p.rest = p.rest[1:]
		if p.table != statedb.Bigchain || d.ID != genesisID {
			return d, nil
		}
	}
}

// pagerRows is how many documents a pager has in memory at most; they are parts
// of frames that are.
const pagerRows = 256

// readClaim returns the document that claims the first block.
func (r *restorer) readClaim(ctx context.Context) (statedb.Write, error) {
	page, err := r.chain.Range(ctx, statedb.Bigchain, statedb.Range{Start: genesisID, End: genesisID + "\x01", Limit: 1})
	if err != nil {
		return statedb.Write{}, err
	}
	if len(page.Documents) != 1 {
		return statedb.Write{}, damaged("%s has no claim on the first block", r.chain)
	}
	b, err := claimedBlock(page.Documents[0])
	if err != nil {
		return statedb.Write{}, damaged("%s has no sound first block: %v", r.chain, err)
	}
	if b.ID != r.chain.Genesis() {
		return statedb.Write{}, damaged("%s claims another first block than its manifest names", r.chain)
	}
	return statedb.Write{ID: genesisID, Body: bytes.Clone(page.Documents[0].Body)}, nil
}

// complete makes a ledger of what was written: the claim on the first block
// comes last, then the marker goes.
func (r *restorer) complete(ctx context.Context) error {
	claim := []statedb.Write{r.claim}
	if err := verify.Insist(ctx, func() error { return r.create(ctx, statedb.Bigchain, claim) }); err != nil {
		return err
	}
	return verify.Insist(ctx, func() error { return r.db.Remove(ctx, statedb.Bigchain, []string{node.RestoreMarker}) })
}

// takeBack undoes what a failed restore did, unless calling it again may help.
func (r *restorer) takeBack(ctx context.Context, why error) error {
	if !r.created || ctx.Err() != nil || errors.Is(why, statedb.ErrUnavailable) {
		return nil
	}
	return r.db.Drop(ctx)
}
