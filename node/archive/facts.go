package archive

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
)

// First bytes of keys of what a cut keeps on disk. Ids stand as text.
const (
	entryPrefix     = 'e' // backlog entry → its document
	historyPrefix   = 'h' // claim or statement → its document
	votePrefix      = 'v' // vote → its document
	blockPrefix     = 'b' // block → when it was found: foundFirst or foundLater
	votersPrefix    = 'n' // block → how many may vote on it; where there are several members
	holdsPrefix     = 'o' // transaction, block → nothing; a block holds it
	spendsPrefix    = 's' // transaction, block → nothing; a block that was voted on late spends of it
	madePrefix      = 'm' // such a block → blockFacts
	contestedPrefix = 'c' // transaction, or output of one, of a block that was late voted against
)

const (
	foundFirst = '1' // by the reading of the blocks
	foundLater = '2' // as somebody voted on it
)

// factsSize is modest: most of it is written once and read once.
var factsSize = kv.Size{Cache: 16 << 20, MemTable: 16 << 20}

// facts is the store of a cut.
type facts struct {
	*kv.Store
	batch *pebble.Batch
}

func openFacts(folder string) (*facts, error) {
	store, err := kv.Open(folder, factsSize, nil)
	if err != nil {
		return nil, err
	}
	return &facts{store, store.NewBatch()}, nil
}

func key(prefix byte, parts ...string) []byte {
	k := []byte{prefix}
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

// set writes a record, visible after flush.
func (f *facts) set(k, v []byte) error {
	if err := f.batch.Set(k, v, nil); err != nil || f.batch.Len() < 1<<20 {
		return err
	}
	return f.flush()
}

func (f *facts) flush() error {
	full := f.batch
	f.batch = f.NewBatch()
	return f.Apply(full, pebble.NoSync)
}

func (f *facts) has(k []byte) (bool, error) {
	v, err := f.Value(k)
	return v != nil, err
}

// under calls do with what follows the prefix of each key, and its value.
func (f *facts) under(ctx context.Context, prefix []byte, do func(rest string, v []byte) error) error {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++ // prefixes end in ASCII
	return f.Each(ctx, prefix, end, func(k, v []byte) error { return do(string(k[len(prefix):]), v) })
}

func (f *facts) close() error { return errors.Join(f.batch.Close(), f.Close()) }

// blockFacts is what a late vote on a block depends on.
type blockFacts struct {
	Transactions []string
	Inputs       []string // transactions that it spends outputs of, of other blocks
}

func factsOf(b *ledger.Block) (made blockFacts) {
	own := map[string]bool{}
	for _, t := range b.Transactions {
		made.Transactions = append(made.Transactions, t.ID)
		own[t.ID] = true
	}
	seen := map[string]bool{}
	for _, t := range b.Transactions {
		for _, ref := range t.Spends() {
			if !own[ref.TxID] && !seen[ref.TxID] {
				seen[ref.TxID] = true
				made.Inputs = append(made.Inputs, ref.TxID)
			}
		}
	}
	return made
}

func (f *facts) made(block string) (made blockFacts, err error) {
	value, err := f.Value(key(madePrefix, block))
	if err == nil && value != nil {
		err = json.Unmarshal(value, &made)
	}
	return made, err
}
