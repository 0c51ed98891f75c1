package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
)

// OldState is what a node keeps under a state path while its ledger is replaced
// by an earlier copy of it. Nodes cannot start on it until it is closed.
type OldState struct {
	path  string
	state *chainstate.State // nil where there is none, or a damaged one
}

// HoldState takes the state path of a node whose ledger, with that genesis
// block, is to be replaced. A node that runs there is kv.ErrLocked; the state of
// another ledger is an error.
func HoldState(statePath, genesis string) (*OldState, error) {
	s := &OldState{path: statePath}
	folder := filepath.Join(statePath, chainstateFolder)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	state, err := chainstate.Open(folder, nil)
	if errors.Is(err, kv.ErrLocked) {
		return nil, fmt.Errorf("a node runs with the state in %s; stop it first: %w", statePath, err)
	}
	if err != nil {
		return s, nil // damaged: it will be made anew
	}
	if known := state.Genesis(); known != "" && known != genesis {
		err := fmt.Errorf("the state in %s belongs to another ledger: its genesis block is %s, the other one's is %s; set state.path to an empty folder", statePath, known, genesis)
		return nil, errors.Join(err, state.Close())
	}
	s.state = state
	return s, nil
}

// Journal calls vote and block with the votes that the node has given and with
// its blocks that may not have reached the database, in the order of block ids.
func (s *OldState) Journal(vote func(*ledger.Vote) error, block func(*ledger.Block) error) error {
	folder := filepath.Join(s.path, journalFolder)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return journal.Look(folder, vote, block)
}

// Renew deletes what is derived from the ledger, and with aside moves the
// journal away, to a folder beside it whose path it returns. Then it closes the
// state.
func (s *OldState) Renew(aside bool) (moved string, err error) {
	if err := s.Close(); err != nil {
		return "", err
	}
	if err := os.RemoveAll(filepath.Join(s.path, chainstateFolder)); err != nil || !aside {
		return "", err
	}
	moved = filepath.Join(s.path, journalFolder+"-before-restore-"+time.Now().UTC().Format("20060102T150405Z"))
	return moved, os.Rename(filepath.Join(s.path, journalFolder), moved)
}

// Close lets nodes start again.
func (s *OldState) Close() error {
	if s.state == nil {
		return nil
	}
	err := s.state.Close()
	s.state = nil
	return err
}
