// Package chainstate keeps one node's own view of the ledger: which blocks a
// transaction is in, which outputs are spent, what is decided. The node
// derives it from signed blocks and votes it has checked, in local storage, so
// validating a transaction costs local reads and trusts nobody's index.
//
// All of it can be thrown away: with no folder it begins empty, and the node
// derives it again from the feeds' start. Writes are atomic but not synced;
// the checkpoints into the feeds stand in the same batch as what was derived
// up to them, so after a crash the feeds bring again what was lost.
package chainstate

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/disk"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
)

// steps bring a folder of an earlier format to that of the records, 3. It holds
// nothing that cannot be derived, so each empties it. Format 1 lacked metaEarly,
// format 2 kept a vote's verdict alone, and not which blocks are unsound.
var steps = []kv.Step{
	{Name: "derive the chainstate anew", Do: empty},
	{Name: "derive the chainstate anew, with early spends", Do: empty},
	{Name: "derive the chainstate anew, with votes that prove something", Do: empty},
}

func empty(_ *kv.Store, b *pebble.Batch) error { return b.DeleteRange([]byte{0}, []byte{0xff}, nil) }

// Names of meta records.
const (
	metaFormat    = "format"
	metaGenesis   = "genesis"
	metaArrivals  = "arrivals"
	metaDecisions = "decisions"
	metaEpochs    = "epochs"
	metaEarly     = "early"  // there if an output was ever spent while it was not there
	metaLiars     = "liars"  // there if a member ever voted both ways on a block
	metaRivals    = "rivals" // there if two live blocks ever held what contradicts
	metaToken     = "token/" // followed by the table's name
)

// State is an open chainstate. Reads may come from any goroutine; there is one
// Update at a time.
type State struct {
	writer    sync.Mutex // held from Begin to the Update's end
	arrivals  uint64     // blocks so far; guarded by writer
	decisions uint64     // decided blocks so far; guarded by writer
	// early is whether an output was ever spent while no live block had it, as
	// only a block that no honest node votes for does; guarded by writer.
	early bool

	mu      sync.RWMutex
	current *generation
	liars   bool // whether a member ever voted both ways on a block
	rivals  bool // whether there are records under rivalPrefix
	genesis string
	epochs  []Epoch
	// statuses caches what blockStatus answers.
	statuses map[id]consensus.Status
	disputes int // decided blocks that became disputed since Open

	tidier   *tidier
	short    shortlists
	upgraded []string
}

// Epoch is one stretch of the federation's history.
type Epoch struct {
	Number  int      `json:"number"`
	From    int64    `json:"from"`    // Unix seconds; blocks from this timestamp on
	Members []string `json:"members"` // base58, sorted
	// Hash identifies the statement that began the epoch; "" for the first,
	// which the genesis block began.
	Hash string `json:"hash"`
}

// Has reports whether a key is a member.
func (e Epoch) Has(key string) bool { return slices.Contains(e.Members, key) }

// Open opens the chainstate in a folder, or begins an empty one. on is nil for
// the machine's own file system.
func Open(folder string, on vfs.FS) (*State, error) {
	db, err := kv.Open(folder, kv.Large, on)
	if err != nil {
		return nil, damaged(err)
	}
	s := &State{current: &generation{Store: db}, short: shortlists{lists: map[string][]listed{}}, statuses: map[id]consensus.Status{}}
	if err := s.load(); err != nil {
		return nil, errors.Join(damaged(err), db.Close())
	}
	s.tidier = newTidier(s)
	return s, nil
}

// damaged says what to do where a folder cannot be opened.
func damaged(err error) error {
	if errors.Is(err, kv.ErrLocked) || errors.Is(err, kv.ErrNewer) || errors.Is(err, fs.ErrPermission) || disk.Lacks(err) {
		return fmt.Errorf("chainstate: %w", err)
	}
	return fmt.Errorf("chainstate: %w; if the disk is well, `bigchaindb reindex` makes it anew", err)
}

// Upgraded names what Open did to bring a folder of an earlier format up to
// date; nil for nothing.
func (s *State) Upgraded() []string { return s.upgraded }

func (s *State) load() (err error) {
	if s.upgraded, err = s.current.Upgrade(metaKey(metaFormat), steps); err != nil {
		return err
	}
	if s.genesis, err = s.meta(metaGenesis); err != nil {
		return err
	}
	for name, n := range map[string]*uint64{metaArrivals: &s.arrivals, metaDecisions: &s.decisions} {
		text, err := s.meta(name)
		if err != nil {
			return err
		}
		if len(text) == 8 {
			*n = binary.BigEndian.Uint64([]byte(text))
		}
	}
	for name, there := range map[string]*bool{metaEarly: &s.early, metaLiars: &s.liars, metaRivals: &s.rivals} {
		value, err := s.get(metaKey(name))
		if err != nil {
			return err
		}
		*there = value != nil
	}
	epochs, err := s.meta(metaEpochs)
	if err != nil || epochs == "" {
		return err
	}
	return json.Unmarshal([]byte(epochs), &s.epochs)
}

// Space returns nil when the disk has room, else what is lacking, as
// disk.Guard has it.
func (s *State) Space() error {
	current := s.use()
	defer current.users.Done()
	return current.Space()
}

// GiveUp has updates fail that wait for space, for good.
func (s *State) GiveUp() {
	current := s.use()
	defer current.users.Done()
	current.GiveUp()
}

// Close closes the folder.
func (s *State) Close() error {
	s.GiveUp()
	s.writer.Lock()
	defer s.writer.Unlock()
	s.tidier.stop()
	return s.current.Close()
}

func (s *State) meta(name string) (string, error) {
	value, err := s.get(metaKey(name))
	return string(value), err
}

// source is where records are read from: a View, or an Update, which sees its
// own changes. get returns nil where there is no record.
type source interface {
	get(k []byte) ([]byte, error)
	blockStatus(block id) (consensus.Status, error)
}

// Token returns the checkpoint into a table's feed, "" for its start.
func (s *State) Token(table string) (string, error) { return s.meta(metaToken + table) }

// Genesis returns the first block's id, "" as long as there is none.
func (s *State) Genesis() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.genesis
}

// Epochs returns the federation's history, oldest first.
func (s *State) Epochs() []Epoch {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epochs
}

// EpochAt returns the epoch that a block of that timestamp belongs to, and
// false before the first.
func (s *State) EpochAt(timestamp int64) (Epoch, bool) {
	epochs := s.Epochs()
	for i := len(epochs) - 1; i >= 0; i-- {
		if epochs[i].From <= timestamp {
			return epochs[i], true
		}
	}
	return Epoch{}, false
}

// maxStatuses bounds the cache of block statuses, which takes about 100 bytes
// for each.
const maxStatuses = 50_000

// blockStatus returns a block's status, Unknown when it has not arrived. Every
// look at an output or a transaction asks for one, so they are cached: all
// that are committed, and of those read only decided ones, as these seldom change.
func (s *State) blockStatus(block id) (consensus.Status, error) {
	s.mu.RLock()
	status, ok := s.statuses[block]
	disputes := s.disputes
	s.mu.RUnlock()
	if ok {
		return status, nil
	}
	value, err := s.get(idKey(statusPrefix, block))
	if err != nil || len(value) == 0 {
		return consensus.Unknown, err
	}
	if status = consensus.Status(value[0]); status != consensus.Undecided {
		s.mu.Lock()
		if s.disputes == disputes { // else it may be out of date
			s.cacheStatus(block, status)
		}
		s.mu.Unlock()
	}
	return status, nil
}

// cacheStatus is called with mu held.
func (s *State) cacheStatus(block id, status consensus.Status) {
	if len(s.statuses) >= maxStatuses {
		clear(s.statuses)
	}
	s.statuses[block] = status
}

// blockStatus sees what the update itself has changed.
func (u *Update) blockStatus(block id) (consensus.Status, error) {
	if status, ok := u.statuses[block]; ok {
		return status, nil
	}
	return u.s.blockStatus(block)
}

func (u *Update) setStatus(block id, status consensus.Status) error {
	u.statuses[block] = status
	return u.set(idKey(statusPrefix, block), []byte{byte(status)})
}

// txStatus tells a transaction's status, and which block gives it.
func txStatus(r source, tx id) (consensus.Status, id, error) {
	blocks, err := r.get(idKey(blocksOfPrefix, tx))
	if err != nil {
		return consensus.Unknown, id{}, err
	}
	best, in := consensus.Unknown, id{}
	for ; len(blocks) >= idSize; blocks = blocks[idSize:] {
		block := id(blocks[:idSize])
		status, err := r.blockStatus(block)
		if err != nil {
			return consensus.Unknown, id{}, err
		}
		switch {
		case status == consensus.Valid:
			return consensus.Valid, block, nil
		case status == consensus.Undecided && best != consensus.Undecided,
			status == consensus.Disputed && best == consensus.Unknown:
			best, in = status, block
		}
	}
	return best, in, nil
}

// spender is a transaction in a live block that spends an output.
type spender struct{ block, tx id }

func spenders(r source, ref ledger.OutputRef) ([]spender, error) {
	tx, ok := toID(ref.TxID)
	if !ok {
		return nil, nil
	}
	value, err := r.get(outputKey(spentPrefix, tx, ref.Index))
	if err != nil {
		return nil, err
	}
	list := make([]spender, 0, len(value)/(2*idSize))
	for ; len(value) >= 2*idSize; value = value[2*idSize:] {
		list = append(list, spender{block: id(value[:idSize]), tx: id(value[idSize : 2*idSize])})
	}
	return list, nil
}

func appendSpenders(dst []byte, list []spender) []byte {
	for _, s := range list {
		dst = append(append(dst, s.block[:]...), s.tx[:]...)
	}
	return dst
}

func output(r source, tx id, index int) (outputRecord, bool, error) {
	value, err := r.get(outputKey(outputPrefix, tx, index))
	if err != nil || value == nil {
		return outputRecord{}, false, err
	}
	o, err := readOutputRecord(value)
	return o, true, err
}

// distinct returns keys without repetitions.
func distinct(keys []string) []string {
	if len(keys) < 2 {
		return keys
	}
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, strings.Compare)
	return slices.Compact(sorted)
}
