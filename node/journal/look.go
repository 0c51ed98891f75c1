package journal

import (
	"errors"
	"fmt"

	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
)

// Look calls vote with the votes that a journal holds, and block with the blocks
// of its outbox, in the order of block ids. It changes nothing, whoever's the
// journal is.
func Look(folder string, vote func(*ledger.Vote) error, block func(*ledger.Block) error) (err error) {
	db, err := kv.Open(folder, kv.Small, nil)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = each(db, votePrefix, func(id string, value []byte) error {
		v, err := ledger.ParseVote(value)
		if err != nil {
			return fmt.Errorf("journal: own vote on block %s: %w", id, err)
		}
		return vote(v)
	})
	if err != nil {
		return err
	}
	return each(db, outboxPrefix, func(id string, value []byte) error {
		b, err := readOwn(id, value)
		if err != nil {
			return err
		}
		return block(b)
	})
}

func readOwn(id string, value []byte) (*ledger.Block, error) {
	b, err := ledger.ParseBlock(value)
	if err != nil {
		return nil, fmt.Errorf("journal: own block %s: %w", id, err)
	}
	return b, nil
}
