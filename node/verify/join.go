package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/statedb"
)

// shards is how many parts the transactions are joined in, by their first bits.
const shards = 64

// joinTransactions brings together, for every transaction id, the blocks that
// hold it, what spends its outputs, and its document for queries.
func (v *verifier) joinTransactions(ctx context.Context) error {
	v.progress.Begin(stepTransactions, "following what is spent", "transactions")
	anyDerived, err := v.scratch.has([]byte{derivedPrefix})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	group.Go(func() error {
		defer close(next)
		for shard := range shards {
			select {
			case next <- shard:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range v.workers {
		group.Go(func() error {
			decisions := map[id]decision{}
			for shard := range next {
				j := &join{v: v, decisions: decisions, anyDerived: anyDerived, out: v.scratch.bulk()}
				if err := j.run(ctx, shard); err != nil {
					return err
				}
				v.mu.Lock()
				v.report.Transactions += j.valid
				v.report.Derived += j.derivedCount
				v.mu.Unlock()
				v.progress.Add(j.valid, fmt.Sprintf("%02x000000", shard*(256/shards)))
			}
			return nil
		})
	}
	return group.Wait()
}

// join goes through one part of the transactions.
type join struct {
	v          *verifier
	decisions  map[id]decision // of blocks, cached
	anyDerived bool
	out        *bulk

	holds, outputs, spends, derived, waits *pebble.Iterator

	valid, derivedCount int
}

// maxDecisions bounds the cache, which takes about 150 bytes for each.
const maxDecisions = 50_000

func (j *join) run(ctx context.Context, shard int) (err error) {
	defer j.out.end(&err)
	lower, upper := byte(shard*(256/shards)), (shard+1)*(256/shards)
	for prefix, it := range map[byte]**pebble.Iterator{
		holdPrefix: &j.holds, outputPrefix: &j.outputs, spendPrefix: &j.spends, derivedPrefix: &j.derived, waitPrefix: &j.waits,
	} {
		end := []byte{prefix + 1}
		if upper < 256 {
			end = []byte{prefix, byte(upper)}
		}
		if *it, err = j.v.scratch.scan([]byte{prefix, lower}, end); err != nil {
			return err
		}
		defer (*it).Close()
		(*it).First()
	}
	for {
		tx, found := lowest(j.holds, j.spends, j.derived)
		if !found {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := j.transaction(tx); err != nil {
			return err
		}
	}
	for _, it := range []*pebble.Iterator{j.holds, j.outputs, j.spends, j.derived, j.waits} {
		if err := it.Error(); err != nil {
			return err
		}
	}
	return nil
}

// lowest returns the lowest id at which an iterator stands.
func lowest(its ...*pebble.Iterator) (tx id, found bool) {
	for _, it := range its {
		if it.Valid() && (!found || bytes.Compare(it.Key()[1:1+idSize], tx[:]) < 0) {
			tx, found = id(it.Key()[1:]), true
		}
	}
	return tx, found
}

// at reports whether an iterator stands at a record of the transaction.
func at(it *pebble.Iterator, tx id) bool {
	return it.Valid() && bytes.Equal(it.Key()[1:1+idSize], tx[:])
}

// upTo moves an iterator that may lag behind to the transaction, and reports
// whether it has a record of it.
func upTo(it *pebble.Iterator, tx id) bool {
	for it.Valid() && bytes.Compare(it.Key()[1:1+idSize], tx[:]) < 0 {
		it.Next()
	}
	return at(it, tx)
}

func (j *join) decision(block id) (decision, error) {
	if d, ok := j.decisions[block]; ok {
		return d, nil
	}
	value, err := j.v.scratch.get(key(statusPrefix, block[:]))
	if err != nil {
		return decision{}, err
	}
	d, err := readDecision(value)
	if len(j.decisions) >= maxDecisions {
		clear(j.decisions)
	}
	j.decisions[block] = d
	return d, err
}

func (j *join) find(table, id string, rule Rule, tx, format string, args ...any) error {
	return find(j.out, classTogether, Finding{Table: table, ID: id, Rule: rule, Transaction: tx, Seen: fmt.Sprintf(format, args...)})
}

// excuse notes what speaks against a block that members voted against.
func (j *join) excuse(block id, what byte) error {
	return j.out.Set(key(excusePrefix, block[:], []byte{what}), nil, nil)
}

// holder is a block that holds the transaction.
type holder struct {
	block id
	decision
	digest [32]byte
}

// held is a transaction with the blocks that hold it. Of those that nobody voted
// for or against, which strangers can make any number of, only the number is
// kept.
type held struct {
	tx      id
	blocks  int
	against []id
	// valid are those that are valid by now. There should be one at most.
	valid []holder
}

func (j *join) transaction(tx id) error {
	h := held{tx: tx}
	for ; at(j.holds, tx); j.holds.Next() {
		h.blocks++
		block := id(j.holds.Key()[1+idSize:])
		d, err := j.decision(block)
		if err != nil {
			return err
		}
		if d.against {
			h.against = append(h.against, block)
		}
		if d.now == consensus.Valid {
			h.valid = append(h.valid, holder{block, d, id(j.holds.Value())})
		}
	}
	if err := j.twice(h); err != nil {
		return err
	}
	if err := j.spent(h); err != nil {
		return err
	}
	return j.document(h)
}

// twice looks for a transaction in several blocks.
func (j *join) twice(h held) error {
	if len(h.valid) > 0 {
		j.valid++
		for _, other := range h.valid[1:] {
			err := j.find(statedb.Bigchain, other.block.String(), ValidTwice, h.tx.String(), "it is in the valid block %s, too", h.valid[0].block)
			if err != nil {
				return err
			}
		}
	}
	if h.blocks < 2 {
		return nil
	}
	for _, block := range h.against {
		if err := j.excuse(block, excuseTwice); err != nil {
			return err
		}
	}
	return nil
}

// document compares the transaction with its document for queries.
func (j *join) document(h held) error {
	name := h.tx.String()
	if !at(j.derived, h.tx) {
		for _, entry := range h.valid {
			genesis := entry.block.String() == j.v.history.genesis
			switch {
			case !j.v.Derived || entry.first != consensus.Valid:
			case upTo(j.waits, h.tx): // its document is written first, then the backlog is cleared
			case genesis && !j.anyDerived: // no node has run yet
			default:
				return j.find(statedb.Transactions, name, DerivedMissing, "", "it is not there; the transaction is in the valid block %s", entry.block)
			}
		}
		return nil
	}
	facts, err := readDerived(j.derived.Value())
	if err != nil {
		return err
	}
	j.derived.Next()
	j.derivedCount++
	if len(h.valid) == 0 {
		where := "in no block"
		if h.blocks > 0 {
			where = "in no valid block"
		}
		return j.find(statedb.Transactions, name, DerivedExtra, "", "such a transaction is %s", where)
	}
	by := h.valid[0]
	for _, entry := range h.valid {
		if entry.block.String() == facts.block {
			by = entry
		}
	}
	if by.digest != facts.digest {
		if err := j.find(statedb.Transactions, name, DerivedChanged, "", "it is not what stands in block %s", by.block); err != nil {
			return err
		}
	}
	if by.block.String() != facts.block {
		return j.find(statedb.Transactions, name, DerivedBlock, "", "block_id is %q, the valid block is %s", facts.block, by.block)
	}
	return nil
}

// spent judges all that spends an output of the transaction.
func (j *join) spent(h held) error {
	for at(j.spends, h.tx) {
		index := binary.BigEndian.Uint32(j.spends.Key()[1+idSize:])
		var all rivals
		for ; at(j.spends, h.tx) && binary.BigEndian.Uint32(j.spends.Key()[1+idSize:]) == index; j.spends.Next() {
			k := j.spends.Key()[1+idSize+4:]
			facts, err := readSpend(j.spends.Value())
			if err != nil {
				return err
			}
			s := spender{tx: id(k), block: id(k[idSize:]), spendFacts: facts}
			if s.decision, err = j.decision(s.block); err != nil {
				return err
			}
			all.add(s)
		}
		output, err := j.output(h.tx, index)
		if err != nil {
			return err
		}
		for _, s := range all.judged {
			if err := j.spend(h, index, output, s); err != nil {
				return err
			}
			if err := j.rival(h, index, s, all); err != nil {
				return err
			}
		}
	}
	return nil
}

// output reads an output of the transaction, nil when there is none. Indexes
// are asked for in ascending order.
func (j *join) output(tx id, index uint32) (*outputFacts, error) {
	k := outputKey(outputPrefix, tx, int(index))
	for j.outputs.Valid() && bytes.Compare(j.outputs.Key(), k) < 0 {
		j.outputs.Next()
	}
	if !j.outputs.Valid() || !bytes.Equal(j.outputs.Key(), k) {
		return nil, nil
	}
	output, err := readOutput(j.outputs.Value())
	return &output, err
}
