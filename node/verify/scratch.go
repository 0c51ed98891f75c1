package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/statedb"
)

// scratchFormat is that of the records. A store of another format is made anew.
const scratchFormat = "1"

// scratchSize is as much memory as the chainstate takes, but rather for what is
// written: facts are read in order, once, and large memory tables spare a good
// part of the compaction.
var scratchSize = kv.Size{Cache: 16 << 20, MemTable: 32 << 20}

// Names of meta records.
const (
	metaFormat = "format"
	metaLedger = "ledger" // what the caller says that the source is
	metaLap    = "lap"    // how often the tables were begun to be read
)

// ErrOtherLedger: the scratch folder holds the unfinished run on another ledger.
var ErrOtherLedger = errors.New("the scratch folder holds an unfinished run on another ledger")

// scratch is the store of facts. Writes are atomic but not synced: after a
// crash the last of them are missing, and what they cover is checked again.
type scratch struct {
	*kv.Store
	folder string
}

// openScratch opens or begins the store in a folder. resumed says that it holds
// an unfinished run.
func openScratch(folder, ledger string) (s *scratch, resumed bool, err error) {
	store, err := kv.Open(folder, scratchSize, nil)
	if err != nil {
		return nil, false, fmt.Errorf("the scratch store: %w", err)
	}
	s = &scratch{store, folder}
	if resumed, err = s.begin(ledger); err != nil {
		return nil, false, errors.Join(err, s.Close())
	}
	return s, resumed, nil
}

func (s *scratch) begin(ledger string) (resumed bool, err error) {
	format, err := s.get(key(metaPrefix, []byte(metaFormat)))
	if err != nil {
		return false, err
	}
	if string(format) != scratchFormat {
		b := s.NewBatch()
		err := errors.Join(
			b.DeleteRange([]byte{0}, []byte{0xff}, nil),
			b.Set(key(metaPrefix, []byte(metaFormat)), []byte(scratchFormat), nil),
			b.Set(key(metaPrefix, []byte(metaLedger)), []byte(ledger), nil))
		return false, errors.Join(err, s.Apply(b, pebble.NoSync))
	}
	there, err := s.get(key(metaPrefix, []byte(metaLedger)))
	if err == nil && string(there) != ledger {
		err = fmt.Errorf("%w, %s; name another folder, or delete %s", ErrOtherLedger, there, s.folder)
	}
	return true, err
}

// remove closes the store and deletes its folder.
func (s *scratch) remove() error { return errors.Join(s.Close(), os.RemoveAll(s.folder)) }

// get returns nil where there is no record.
func (s *scratch) get(k []byte) ([]byte, error) {
	value, err := s.Value(k)
	if err != nil {
		return nil, fmt.Errorf("the scratch store: %w", err)
	}
	return value, nil
}

// write applies what fill puts into a batch.
func (s *scratch) write(fill func(b *pebble.Batch) error) error {
	b := s.NewBatch()
	if err := fill(b); err != nil {
		return errors.Join(err, b.Close())
	}
	return s.Apply(b, pebble.NoSync)
}

// bulkBytes is about how much a bulk collects before it writes.
const bulkBytes = 256 << 10

// setter takes records: a batch or a bulk.
type setter interface {
	Set(k, v []byte, o *pebble.WriteOptions) error
}

// bulk writes any number of records, some at a time.
type bulk struct {
	s     *scratch
	batch *pebble.Batch
}

func (s *scratch) bulk() *bulk { return &bulk{s: s, batch: s.NewBatch()} }

// Set writes a record sooner or later.
func (w *bulk) Set(k, v []byte, _ *pebble.WriteOptions) error {
	if err := w.batch.Set(k, v, nil); err != nil || w.batch.Len() < bulkBytes {
		return err
	}
	return w.flush()
}

// flush writes what was collected.
func (w *bulk) flush() error {
	full := w.batch
	w.batch = w.s.NewBatch()
	return w.s.Apply(full, pebble.NoSync)
}

// end writes the rest, unless what filled it failed.
func (w *bulk) end(err *error) {
	if *err == nil {
		*err = w.flush()
	}
	*err = errors.Join(*err, w.batch.Close())
}

// nextLap counts the readings of the tables.
func (s *scratch) nextLap() (uint64, error) {
	value, err := s.get(key(metaPrefix, []byte(metaLap)))
	if err != nil {
		return 0, err
	}
	f := fields{rest: value}
	lap := f.uint() + 1
	return lap, s.Set(key(metaPrefix, []byte(metaLap)), binary.AppendUvarint(nil, lap), pebble.NoSync)
}

// scan is an iterator over the keys from lower to before upper.
func (s *scratch) scan(lower, upper []byte) (*pebble.Iterator, error) {
	it, err := s.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("the scratch store: %w", err)
	}
	return it, nil
}

// each calls do with every record under a prefix; both slices are only good
// until it returns.
func (s *scratch) each(ctx context.Context, prefix []byte, do func(k, v []byte) error) error {
	return s.Each(ctx, prefix, after(prefix), do)
}

// has reports whether there is a record under a prefix.
func (s *scratch) has(prefix []byte) (bool, error) {
	it, err := s.scan(prefix, after(prefix))
	if err != nil {
		return false, err
	}
	there := it.First()
	return there, it.Close()
}

// clear deletes all records under the prefixes.
func (s *scratch) clear(prefixes ...byte) error {
	return s.write(func(b *pebble.Batch) error {
		for _, p := range prefixes {
			if err := b.DeleteRange([]byte{p}, []byte{p + 1}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// class is where findings come from, which tells when they are made anew.
type class byte

const (
	classDocument class = '1' // single blocks and votes; kept with their facts
	classHistory  class = '2' // the genesis block and the federation
	classDerived  class = '3' // single documents of the table for queries
	classTogether class = '4' // the evaluation
)

// find writes a finding. The same one twice is one.
func find(w setter, c class, f Finding) error {
	value, err := json.Marshal(f)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(value)
	k := append(documentFindings(c, f.Table, f.ID), f.Rule...)
	return w.Set(append(append(k, 0), sum[:16]...), value, nil)
}

// documentFindings is the prefix of the findings about one document.
func documentFindings(c class, table, id string) []byte {
	return key(findingPrefix, []byte{byte(c)}, []byte(table), []byte{0}, []byte(id), []byte{0})
}

// clearFindings deletes the findings of a class.
func (s *scratch) clearFindings(c class) error {
	return s.DeleteRange([]byte{findingPrefix, byte(c)}, []byte{findingPrefix, byte(c) + 1}, pebble.NoSync)
}

// anyFinding reports whether there are findings of a class.
func (s *scratch) anyFinding(c class) (bool, error) { return s.has([]byte{findingPrefix, byte(c)}) }

// findings calls do with every finding, by class, document and rule.
func (s *scratch) findings(ctx context.Context, do func(Finding) error) error {
	return s.each(ctx, []byte{findingPrefix}, func(_, v []byte) error {
		var f Finding
		if err := json.Unmarshal(v, &f); err != nil {
			return errors.Join(errCorrupt, err)
		}
		return do(f)
	})
}

// seenRecord tells that a document was checked.
type seenRecord struct {
	lap   uint64 // in which it was read last
	sound bool   // it was what its table is for, and its facts are recorded
	hash  [sha256.Size]byte
}

func seenKey(table, id string) []byte {
	return key(seenPrefix, []byte(table), []byte{0}, []byte(id))
}

func (r seenRecord) append(dst []byte) []byte {
	return append(appendFlag(binary.AppendUvarint(dst, r.lap), r.sound), r.hash[:]...)
}

func readSeen(b []byte) (seenRecord, error) {
	f := fields{rest: b}
	r := seenRecord{lap: f.uint(), sound: f.flag(), hash: f.id()}
	return r, f.err()
}

// bigchainSeen reports whether a document was found in the bigchain table.
func (s *scratch) bigchainSeen(id string) (bool, error) {
	value, err := s.get(seenKey(statedb.Bigchain, id))
	return value != nil, err
}
