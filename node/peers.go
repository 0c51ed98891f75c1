package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Copied are the tables that operators with databases of their own copy from each
// other: never what is derived. The restore marker has no id of these, so nobody
// can stop another's node with it.
//
// Blocks and votes are guarded, as they prove something. guardBacklog has the
// backlog guarded, too: a peer with a server that lies could else delete or
// replace entries.
func Copied(guardBacklog bool) []statedb.CopiedTable {
	const id = "[0-9a-f]{64}"
	return []statedb.CopiedTable{
		{Table: statedb.Backlog, IDs: "^" + id + "$", Guarded: guardBacklog},
		{Table: statedb.Bigchain, IDs: "^(" + id + "|" + genesisID + "|" + ledger.StatementPrefix + "[0-9]{8}:[1-9A-Za-z]+)$", Guarded: true},
		{Table: statedb.Votes, IDs: "^" + id + ":[1-9A-Za-z]+(:[0-9a-f]+)?$", Guarded: true, MaxBytes: maxCopiedVote},
	}
}

// maxCopiedVote is more than ten times what a vote has: a thousand of them are read at
// once.
const maxCopiedVote = 10_000

// ErrAwaitsGenesis: the database has no genesis block yet, and is to get it from
// peers.
var ErrAwaitsGenesis = errors.New("no genesis block has come from the peers yet")

// hasPeers reports whether a database is copied from others.
func hasPeers(ctx context.Context, db statedb.DB) (bool, error) {
	r, ok := db.(statedb.Replicated)
	if !ok {
		return false, nil
	}
	peers, err := r.HasPeers(ctx)
	if err != nil {
		return false, fmt.Errorf("ask for peers: %w", err)
	}
	return peers, nil
}

// CheckPeer makes sure that a peer can be read and has the same ledger as the
// database, or none, or the database has none.
func CheckPeer(ctx context.Context, db statedb.DB, r statedb.Replicator, p statedb.Peer) error {
	body, err := r.ReadPeer(ctx, p, statedb.Bigchain, genesisID)
	if err != nil || body == nil {
		return err
	}
	theirs, err := parseGenesis(body)
	if err != nil {
		return err
	}
	own, err := readGenesis(ctx, db, "")
	if errors.Is(err, ErrNotInitialized) || errors.Is(err, statedb.ErrNoDatabase) {
		return nil
	}
	if err == nil && own.ID != theirs.ID {
		err = &OtherGenesisError{IDs: []string{own.ID, theirs.ID}}
	}
	return err
}

// OtherGenesisError: two ledgers met.
type OtherGenesisError struct{ IDs []string }

func (e *OtherGenesisError) Error() string {
	return fmt.Sprintf("there are several first blocks, %s: those are different ledgers, which cannot be joined. "+
		"Whoever wants to join one must not have made one: remove the peers with `bigchaindb remove-replicas`, then `bigchaindb drop`, `bigchaindb add-replicas` again", strings.Join(e.IDs, " and "))
}

// peersEvery is how often a node looks whether it has peers.
const peersEvery = 2 * time.Second

// watchPeers keeps n.replicated up to date, and has copying go on after a peer was
// away.
func (n *Node) watchPeers(ctx context.Context) error {
	r, ok := n.db.(statedb.Replicated)
	if !ok {
		return nil
	}
	for sleep(ctx, peersEvery) {
		err := n.retry(ctx, "peers", func() error {
			peers, err := r.TendPeers(ctx)
			if err == nil {
				n.replicated.Store(peers)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
