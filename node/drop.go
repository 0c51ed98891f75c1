package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/statedb"
)

// Drop deletes a ledger's database, and what a node keeps of that ledger under
// a state path: that would bind it to nothing any more. What it keeps of another
// ledger stays, and so it does when the database holds an unfinished restore. A
// node that runs there is kv.ErrLocked, and nothing is deleted;
// statedb.ErrNoDatabase if there is no database.
func Drop(ctx context.Context, db statedb.DB, statePath string) error {
	own, unlock, err := claimState(ctx, db, statePath)
	if err != nil {
		return err
	}
	// What the node keeps may be of the ledger that is being restored.
	if _, err := readGenesis(ctx, db, ""); errors.Is(err, ErrRestoring) {
		own = false
	}
	if err := errors.Join(db.Drop(ctx), unlock()); err != nil || !own {
		return err
	}
	for _, name := range []string{chainstateFolder, nextFolder, switchedFile, journalFolder} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(statePath, name)))
	}
	return err
}

// claimState keeps nodes from starting on a chainstate until unlock is called,
// and tells whether it is of the database's ledger.
func claimState(ctx context.Context, db statedb.DB, statePath string) (own bool, unlock func() error, err error) {
	folders := foldersIn(statePath, nil)
	name, err := folders.counting()
	if err != nil {
		return false, nil, err
	}
	folder := folders.in(name)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return true, func() error { return nil }, nil
	}
	state, err := chainstate.Open(folder, nil)
	if errors.Is(err, kv.ErrLocked) {
		return false, nil, fmt.Errorf("a node runs with the state in %s; stop it first: %w", filepath.Dir(folder), err)
	}
	if err != nil {
		return true, func() error { return nil }, nil // it is damaged, and nothing can run on it
	}
	known := state.Genesis()
	if known == "" {
		return true, state.Close, nil
	}
	genesis, err := readGenesis(ctx, db, known)
	if errors.Is(err, statedb.ErrUnavailable) || errors.Is(err, statedb.ErrNoDatabase) || ctx.Err() != nil {
		return false, nil, errors.Join(err, state.Close())
	}
	return err != nil || genesis.ID == known, state.Close, nil
}
