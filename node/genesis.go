package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// genesisID is the fixed id of the document that claims the first block. As it
// is only ever created, of several nodes that start at once exactly one wins.
const genesisID = "genesis"

// ErrNotInitialized: the database has no genesis block.
var ErrNotInitialized = errors.New("the database has no genesis block; run `bigchaindb init`")

// RestoreMarker is the id of the document in the bigchain table that says that a
// restore into the database has begun and is not complete. It is written first
// and removed last, and stands beside the claim on the first block because it
// says that there is none: nobody may claim one, nor run on the one that is
// there. So no node ever reads it in a feed as a document of a ledger.
const RestoreMarker = "restore"

// ErrRestoring: the database holds a part of a ledger.
var ErrRestoring = errors.New("the database holds an unfinished restore; run the same `bigchaindb restore` again, or `bigchaindb drop`")

// Init creates the database, its tables and the genesis block, whatever of them
// is missing. It reports whether it made the database. What a crash left half
// done the next call completes. Indexes are DeployIndexes' part.
//
// The genesis block says by which rules the ledger's blocks are decided. nil takes
// those of the ledger that is there, else the documents'; others than the ledger's
// are an error.
func Init(ctx context.Context, db statedb.DB, key ledger.KeyPair, keyring []string, rules consensus.Rules) (created bool, err error) {
	if created, err = db.Create(ctx); err != nil {
		return false, fmt.Errorf("create the database: %w", err)
	}
	genesis, err := readGenesis(ctx, db, "")
	if errors.Is(err, ErrNotInitialized) {
		var peers bool
		switch peers, err = hasPeers(ctx, db); {
		case err == nil && peers:
			err = ErrAwaitsGenesis
		case err == nil:
			genesis, err = claimGenesis(ctx, db, key, membersOf(key.Public, keyring), rules)
		}
	}
	if err == nil && rules != nil {
		err = consensus.Check(rules, genesis)
	}
	if err != nil {
		return created, err
	}
	return created, ensureBlock(ctx, db, genesis)
}

func claimGenesis(ctx context.Context, db statedb.DB, key ledger.KeyPair, members []string, rules consensus.Rules) (*ledger.Block, error) {
	name := ""
	if rules != nil && rules.Name() != consensus.Default {
		name = rules.Name()
	}
	t, err := ledger.NewGenesis(key, name)
	if err != nil {
		return nil, err
	}
	block := ledger.NewBlock(key, time.Now().Unix(), members, []*ledger.Transaction{t})
	results, err := db.Write(ctx, statedb.Bigchain, []statedb.Write{{ID: genesisID, Body: genesisClaim(block)}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil && !errors.Is(err, statedb.ErrConflict) {
		return nil, fmt.Errorf("write the genesis block: %w", err)
	}
	return readGenesis(ctx, db, "")
}

// genesisClaim is the body of the document that claims the first block.
func genesisClaim(b *ledger.Block) []byte {
	return append(append([]byte(`{"genesis":`), b.Bytes()...), '}')
}

// readGenesis returns the claimed first block, ErrNotInitialized, or
// ErrRestoring. Where replication has brought several claims it takes the known
// one; "" knows none, and then they are an *OtherGenesisError.
func readGenesis(ctx context.Context, db statedb.DB, known string) (*ledger.Block, error) {
	var read [2]statedb.Document
	err := statedb.Each(ctx, db, statedb.Bigchain, []string{genesisID, RestoreMarker}, func(i int, d statedb.Document) error {
		read[i] = d
		return nil
	})
	claim, marker := read[0], read[1]
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the genesis block: %w", err)
	case marker.Rev != "":
		return nil, ErrRestoring
	case claim.Rev == "":
		return nil, ErrNotInitialized
	}
	var first *ledger.Block
	var ids []string // of all that are sound, some at most: nobody's claims fill the memory
	var fault error
	for r, err := range revisions(ctx, db, statedb.Bigchain, claim) {
		if err != nil {
			return nil, fmt.Errorf("read the genesis block: %w", err)
		}
		block, err := parseGenesis(r.Body)
		switch {
		case err != nil:
			fault = cmp.Or(fault, err)
		case block.ID == known:
			return block, nil
		case len(ids) < maxClaims && !slices.Contains(ids, block.ID):
			first = cmp.Or(first, block)
			ids = append(ids, block.ID)
		}
	}
	switch len(ids) {
	case 0:
		return nil, fault
	case 1:
		return first, nil
	}
	slices.Sort(ids)
	return nil, &OtherGenesisError{IDs: ids}
}

// maxClaims is how many first blocks are told apart.
const maxClaims = 5

// parseGenesis reads the document that claims the first block.
func parseGenesis(body []byte) (*ledger.Block, error) {
	fault := func(err error) (*ledger.Block, error) {
		return nil, fmt.Errorf("the document %q in the bigchain table does not hold a genesis block: %w", genesisID, err)
	}
	tree, err := canonical.Parse(body)
	if err != nil {
		return fault(err)
	}
	inner, _ := tree.Get("genesis")
	block, err := ledger.ParseBlock(inner.Bytes())
	if err != nil {
		return fault(err)
	}
	if err := block.Verify(); err != nil {
		return fault(err)
	}
	if !block.IsGenesis() {
		return fault(errors.New("its transaction is not a GENESIS"))
	}
	return block, nil
}

// ensureBlock writes a block under its id unless it is there.
func ensureBlock(ctx context.Context, db statedb.DB, b *ledger.Block) error {
	return ensureDocument(ctx, db, statedb.Bigchain, b.ID, b.Bytes())
}

// ensureDocument makes a document at a fixed id be body. What stands there
// already is kept when it is the same; anything else is a stranger's garbage,
// as the caller alone may write there, and is overwritten.
func ensureDocument(ctx context.Context, db statedb.DB, table, id string, body []byte) error {
	faults, err := ensureDocuments(ctx, db, table, []statedb.Write{{ID: id, Body: body}})
	if err != nil {
		return err
	}
	return faults[0]
}

// ensureDocuments makes several documents exactly what they should be, in one
// round trip when none of them is there. faults has one element for each: why
// the database does not take it, or nil.
func ensureDocuments(ctx context.Context, db statedb.DB, table string, writes []statedb.Write) (faults []error, err error) {
	faults = make([]error, len(writes))
	places := make([]int, len(writes))
	for i := range places {
		places[i] = i
	}
	for writes = slices.Clone(writes); len(writes) > 0; {
		results, err := db.Write(ctx, table, writes)
		if err != nil {
			return nil, err
		}
		var conflicts []statedb.Write
		var at []int
		var ids []string
		for i, r := range results {
			if errors.Is(r.Err, statedb.ErrConflict) {
				conflicts, at, ids = append(conflicts, writes[i]), append(at, places[i]), append(ids, writes[i].ID)
			} else {
				faults[places[i]] = r.Err
			}
		}
		if len(ids) == 0 {
			break
		}
		writes, places = nil, nil
		var garbage []string
		err = statedb.Each(ctx, db, table, ids, func(i int, d statedb.Document) error {
			for r, err := range revisions(ctx, db, table, d) {
				if err != nil || sameJSON(r.Body, conflicts[i].Body) {
					return err
				}
			}
			if table == statedb.Transactions {
				conflicts[i].Rev = d.Rev
			} else if d.Rev != "" {
				garbage = append(garbage, d.ID)
			}
			writes, places = append(writes, conflicts[i]), append(places, at[i])
			return nil
		})
		if err != nil {
			return nil, err
		}
		// Peers that copy a table take nothing in place of what they have, but they
		// take something new.
		if len(garbage) > 0 {
			if err := db.Remove(ctx, table, garbage); err != nil {
				return nil, err
			}
		}
	}
	return faults, nil
}

// sameJSON compares a document as a database gave it back with canonical bytes.
func sameJSON(document, body []byte) bool {
	if string(document) == string(body) {
		return true
	}
	tree, err := canonical.Parse(document)
	return err == nil && string(tree.Bytes()) == string(body)
}

// adoptGenesis makes the genesis block the first in the chainstate, or checks
// that it is.
func (f *follower) adoptGenesis() error {
	if err := otherLedger(f.state.Genesis(), f.genesis.ID); err != nil {
		return err
	}
	if f.state.Genesis() != "" {
		return nil
	}
	if _, err := f.rules.CheckTransaction(f.genesis.Transactions[0]); err != nil {
		return fmt.Errorf("the genesis block: %w", err)
	}
	u := f.state.Begin()
	err := errors.Join(
		u.SetGenesis(f.genesis.ID),
		u.AddEpoch(chainstate.Epoch{From: f.genesis.Timestamp, Members: membersOf(f.genesis.NodePubkey, f.genesis.Voters)}),
	)
	if err == nil {
		_, err = u.AddBlock(f.genesis, 0, consensus.Valid)
	}
	if err != nil {
		u.Discard()
		return err
	}
	return u.Commit()
}
