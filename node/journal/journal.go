// Package journal is what a node must not forget: the votes it gave, the
// locks that keep it from giving contradictory ones, the blocks it signed
// until the database has them, why it refused transactions it had accepted, and
// the faults it met.
//
// Unlike the chainstate it is not derived and cannot be rebuilt. What is
// recorded here is synced before anybody else can see it. A node whose journal
// is lost reads its own votes back from the database before it votes again.
package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
)

// First bytes of keys. Ids stand as text.
const (
	metaPrefix    = 'm'
	votePrefix    = 'v' // block → own vote
	lockPrefix    = 'k' // block → what a valid vote on it, undecided, locks
	unsentPrefix  = 'q' // block → nothing; its vote is not known to be in the database
	outboxPrefix  = 'o' // block → own block that is not known to be in the database
	refusalPrefix = 'r' // transaction → time and reason
	refusedAt     = 't' // time, transaction → nothing
	faultPrefix   = 'x' // number, big-endian → Fault
)

const (
	metaFormat   = "format"   // see steps
	metaOwner    = "owner"    // the node's public key
	metaLast     = "last"     // the block voted on last
	metaRestored = "restored" // there once Restored was called
)

// steps bring a folder of an earlier format to that of the records, 1. Those
// before had no note of their format, and the same records.
var steps = []kv.Step{{Name: "note the journal's format"}}

// RefusalAge is how long the reason for a refusal is kept.
const RefusalAge = 24 * time.Hour

// Journal is an open journal. Its methods may be called from any goroutine.
type Journal struct {
	db    *kv.Store
	fresh bool
	// refused is whether there may be refusals, which most nodes never have.
	refused atomic.Bool

	mu      sync.RWMutex
	last    string
	txLocks lockTable[string]           // by transaction
	locks   lockTable[ledger.OutputRef] // by spent output
	held    map[string]Locks            // block → what it locks

	refusing sync.Mutex
	faults   faults
	upgraded []string
}

// Open opens the journal of the node with that public key, or begins an empty
// one. A journal of another key is begun anew: its votes bind another voter.
// fs is nil for the machine's own file system.
func Open(folder, publicKey string, fs vfs.FS) (*Journal, error) {
	db, err := kv.Open(folder, kv.Small, fs)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{
		db: db, txLocks: lockTable[string]{},
		locks: lockTable[ledger.OutputRef]{}, held: map[string]Locks{},
	}
	if err := j.load(publicKey); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), db.Close())
	}
	return j, nil
}

// Upgraded names what Open did to bring a folder of an earlier format up to
// date; nil for nothing.
func (j *Journal) Upgraded() []string { return j.upgraded }

func (j *Journal) load(publicKey string) (err error) {
	if j.upgraded, err = j.db.Upgrade(key(metaPrefix, metaFormat), steps); err != nil {
		return err
	}
	owner, err := j.get(metaPrefix, metaOwner)
	if err != nil {
		return err
	}
	if string(owner) != publicKey {
		j.fresh = true
		if err := j.begin(publicKey); err != nil {
			return err
		}
	}
	if err := j.loadFaults(); err != nil || string(owner) != publicKey {
		return err
	}
	if err := j.each(refusalPrefix, func(string, []byte) error { j.refused.Store(true); return nil }); err != nil {
		return err
	}
	last, err := j.get(metaPrefix, metaLast)
	if err != nil {
		return err
	}
	j.last = string(last)
	restored, err := j.get(metaPrefix, metaRestored)
	if err != nil {
		return err
	}
	if j.fresh = restored == nil && last == nil; j.fresh {
		// What an interrupted restoration adopted comes again, from the start.
		return j.db.DeleteRange([]byte{votePrefix}, []byte{votePrefix + 1}, pebble.Sync)
	}
	return j.each(lockPrefix, func(block string, value []byte) error {
		l, err := readLocks(value)
		if err != nil {
			return fmt.Errorf("locks of block %s: %w", block, err)
		}
		j.hold(block, l)
		return nil
	})
}

// Space returns nil when the disk has room, else what is lacking, as
// disk.Guard has it.
func (j *Journal) Space() error { return j.db.Space() }

// GiveUp has writes fail that wait for space, for good.
func (j *Journal) GiveUp() { j.db.GiveUp() }

// begin empties the journal for the node with that public key.
func (j *Journal) begin(publicKey string) error {
	b := j.db.NewBatch()
	format := key(metaPrefix, metaFormat)
	err := errors.Join(
		b.DeleteRange([]byte{0}, format, nil),
		b.DeleteRange(append(format, 0), []byte{0xff}, nil),
		b.Set(key(metaPrefix, metaOwner), []byte(publicKey), nil))
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return j.db.Apply(b, pebble.Sync)
}

// Close closes the folder.
func (j *Journal) Close() error { return j.db.Close() }

// Fresh reports whether the journal, when it was opened, was empty or not yet
// Restored: the node may have given votes that it does not hold.
func (j *Journal) Fresh() bool { return j.fresh }

// Restored says that all of the node's earlier votes have been adopted, so
// that the journal is not Fresh when it is opened next. A vote that is recorded
// says so too, since a node does not vote before.
func (j *Journal) Restored() error {
	return j.db.Set(key(metaPrefix, metaRestored), nil, pebble.Sync)
}

func key(prefix byte, name string) []byte { return append([]byte{prefix}, name...) }

func (j *Journal) get(prefix byte, name string) ([]byte, error) { return j.db.Value(key(prefix, name)) }

func (j *Journal) each(prefix byte, visit func(name string, value []byte) error) error {
	return each(j.db, prefix, visit)
}

func each(db *kv.Store, prefix byte, visit func(name string, value []byte) error) error {
	return db.Each(context.Background(), []byte{prefix}, []byte{prefix + 1}, func(k, value []byte) error {
		return visit(string(k[1:]), value)
	})
}

// Vote returns the vote this node gave on a block, nil when there is none.
func (j *Journal) Vote(block string) (*ledger.Vote, error) {
	value, err := j.get(votePrefix, block)
	if err != nil || value == nil {
		return nil, err
	}
	v, err := ledger.ParseVote(value)
	if err != nil {
		return nil, fmt.Errorf("journal: own vote on block %s: %w", block, err)
	}
	return v, nil
}

// Votes calls visit with every vote that this node gave, in the order of the
// blocks' ids.
func (j *Journal) Votes(visit func(*ledger.Vote) error) error {
	return j.each(votePrefix, func(block string, value []byte) error {
		v, err := ledger.ParseVote(value)
		if err != nil {
			return fmt.Errorf("journal: own vote on block %s: %w", block, err)
		}
		return visit(v)
	})
}

// LastVoted returns the block that this node voted on last, "" before the first.
func (j *Journal) LastVoted() string {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.last
}

// SetLastVoted restores the end of the chain of votes after a lost journal.
func (j *Journal) SetLastVoted(block string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.db.Set(key(metaPrefix, metaLast), []byte(block), pebble.Sync); err != nil {
		return err
	}
	j.last = block
	return nil
}

// Rewind ends the chain of votes at a block, "" for the genesis block, after the
// database was set back: blocks and votes that were not sent go, and all locks,
// which the node renews for undecided blocks that it voted for. adopted votes
// are recorded as Adopt does. The votes given remain, so that the node never
// gives a block that comes back another one.
func (j *Journal) Rewind(last string, adopted []*ledger.Vote) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.db.NewBatch()
	var err error
	for _, prefix := range []byte{lockPrefix, unsentPrefix, outboxPrefix} {
		err = errors.Join(err, b.DeleteRange([]byte{prefix}, []byte{prefix + 1}, nil))
	}
	for _, v := range adopted {
		err = errors.Join(err, b.Set(key(votePrefix, v.BlockID), v.Bytes(), nil))
	}
	err = errors.Join(err, b.Set(key(metaPrefix, metaLast), []byte(last), nil), b.Set(key(metaPrefix, metaRestored), nil, nil))
	if err != nil {
		return errors.Join(err, b.Close())
	}
	if err := j.db.Apply(b, pebble.Sync); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.last = last
	j.txLocks, j.locks, j.held = lockTable[string]{}, lockTable[ledger.OutputRef]{}, map[string]Locks{}
	return nil
}

// Record writes a vote down, with what it locks if it is a valid one, before
// it is sent. When it returns nil the vote is durable and binding. It refuses
// a second vote on a block with the other verdict.
func (j *Journal) Record(v *ledger.Vote, locks Locks) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	known, err := j.Vote(v.BlockID)
	if err != nil {
		return err
	}
	if known != nil && known.Valid != v.Valid {
		return fmt.Errorf("journal: block %s has a vote of this node with the other verdict", v.BlockID)
	}
	batch := j.db.NewBatch()
	sets := []struct{ k, v []byte }{
		{key(votePrefix, v.BlockID), v.Bytes()},
		{key(unsentPrefix, v.BlockID), nil},
		{key(metaPrefix, metaLast), []byte(v.BlockID)},
	}
	if v.Valid {
		sets = append(sets, struct{ k, v []byte }{key(lockPrefix, v.BlockID), locks.append(nil)})
	}
	for _, s := range sets {
		if err := batch.Set(s.k, s.v, nil); err != nil {
			return errors.Join(err, batch.Close())
		}
	}
	if err := j.db.Apply(batch, pebble.Sync); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.last = v.BlockID
	if v.Valid {
		j.hold(v.BlockID, locks)
	}
	return nil
}

// Adopt records a vote of this node's that was found in the database and is
// not in the journal, as happens after a lost journal.
func (j *Journal) Adopt(v *ledger.Vote) error {
	return j.db.Set(key(votePrefix, v.BlockID), v.Bytes(), pebble.NoSync)
}

// Lock adds the locks of an adopted valid vote, once its block is known.
func (j *Journal) Lock(block string, locks Locks) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.held[block]; ok {
		return nil
	}
	j.hold(block, locks)
	return j.db.Set(key(lockPrefix, block), locks.append(nil), pebble.Sync)
}

func (j *Journal) hold(block string, l Locks) {
	if _, ok := j.held[block]; ok {
		return
	}
	j.held[block] = l
	for _, tx := range l.Transactions {
		j.txLocks.lock(tx, block)
	}
	for _, ref := range l.Outputs {
		j.locks.lock(ref, block)
	}
}

// Held lists the blocks that have locks. One that is decided should have been
// released; a crash may have come between.
func (j *Journal) Held() []string {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return slices.Sorted(maps.Keys(j.held))
}

// Release drops the locks of a block that is decided: from then on the
// decision binds, and it is derived from votes that do not change.
func (j *Journal) Release(block string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	l, ok := j.held[block]
	if !ok {
		return nil
	}
	delete(j.held, block)
	for _, tx := range l.Transactions {
		j.txLocks.release(tx, block)
	}
	for _, ref := range l.Outputs {
		j.locks.release(ref, block)
	}
	return j.db.Delete(key(lockPrefix, block), pebble.NoSync)
}

// LockedTransaction returns the undecided block that this node voted valid
// with that transaction in it, "" when there is none.
func (j *Journal) LockedTransaction(tx string) string {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.txLocks.first(tx)
}

// LockedOutput returns the undecided block that this node voted valid and that
// spends an output, "" when there is none.
func (j *Journal) LockedOutput(ref ledger.OutputRef) string {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.locks.first(ref)
}

// Unsent lists the votes that are not known to be in the database.
func (j *Journal) Unsent() ([]*ledger.Vote, error) {
	var list []*ledger.Vote
	err := j.each(unsentPrefix, func(block string, _ []byte) error {
		v, err := j.Vote(block)
		if v != nil {
			list = append(list, v)
		}
		return err
	})
	return list, err
}

// Sent says that the vote on a block is in the database.
func (j *Journal) Sent(block string) error {
	return j.db.Delete(key(unsentPrefix, block), pebble.NoSync)
}

// PutBlock keeps a signed block until the database has it.
func (j *Journal) PutBlock(b *ledger.Block) error {
	return j.db.Set(key(outboxPrefix, b.ID), b.Bytes(), pebble.Sync)
}

// Outbox lists the blocks that are not known to be in the database.
func (j *Journal) Outbox() ([]*ledger.Block, error) {
	var list []*ledger.Block
	err := j.each(outboxPrefix, func(id string, value []byte) error {
		b, err := readOwn(id, value)
		list = append(list, b)
		return err
	})
	return list, err
}

// DropBlock says that a block is in the database.
func (j *Journal) DropBlock(id string) error {
	return j.db.Delete(key(outboxPrefix, id), pebble.NoSync)
}

// Refusal says why a transaction was refused.
type Refusal struct {
	TxID   string
	Reason string
}

// Refuse keeps the reasons why transactions were refused after they had been
// accepted, and drops those older than RefusalAge.
func (j *Journal) Refuse(now time.Time, refusals []Refusal) error {
	j.refused.Store(true)
	j.refusing.Lock() // what is dropped depends on what is there
	defer j.refusing.Unlock()
	batch := j.db.NewBatch()
	err := j.dropRefusals(batch, now.Add(-RefusalAge))
	stamp := binary.BigEndian.AppendUint64(nil, uint64(max(now.Unix(), 0)))
	for _, r := range refusals {
		err = errors.Join(err,
			batch.Set(key(refusalPrefix, r.TxID), append(stamp[:8:8], r.Reason...), nil),
			batch.Set(key(refusedAt, string(stamp)+r.TxID), nil, nil))
	}
	if err != nil {
		return errors.Join(err, batch.Close())
	}
	return j.db.Apply(batch, pebble.Sync)
}

// dropRefusals drops the refusals before a time, but for transactions that
// were refused again since.
func (j *Journal) dropRefusals(batch *pebble.Batch, before time.Time) error {
	end := binary.BigEndian.AppendUint64([]byte{refusedAt}, uint64(max(before.Unix(), 0)))
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: []byte{refusedAt}, UpperBound: end})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := batch.Delete(it.Key(), nil); err != nil {
			return err
		}
		if len(it.Key()) < 9 {
			continue
		}
		stamp, tx := it.Key()[1:9], string(it.Key()[9:])
		value, err := j.get(refusalPrefix, tx)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(value, stamp) {
			if err := batch.Delete(key(refusalPrefix, tx), nil); err != nil {
				return err
			}
		}
	}
	return it.Error()
}

// Unrefuse forgets why a transaction was refused: it is accepted anew.
func (j *Journal) Unrefuse(tx string) error {
	if !j.refused.Load() {
		return nil
	}
	reason, err := j.get(refusalPrefix, tx)
	if err != nil || reason == nil {
		return err
	}
	return j.db.Delete(key(refusalPrefix, tx), pebble.NoSync)
}

// Refusal returns why a transaction was refused, "" when it was not or when
// that is longer ago than RefusalAge.
func (j *Journal) Refusal(now time.Time, tx string) (string, error) {
	value, err := j.get(refusalPrefix, tx)
	if err != nil || len(value) < 8 {
		return "", err
	}
	if at := int64(binary.BigEndian.Uint64(value)); now.Unix()-at > int64(RefusalAge/time.Second) {
		return "", nil
	}
	return string(value[8:]), nil
}
