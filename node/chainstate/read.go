package chainstate

import (
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// ErrBadCursor: a cursor that no page of this list gave.
var ErrBadCursor = errors.New("chainstate: malformed cursor")

// BlockStatus returns a block's status, Unknown when it has not arrived.
func (s *State) BlockStatus(blockID string) (consensus.Status, error) {
	block, ok := toID(blockID)
	if !ok {
		return consensus.Unknown, nil
	}
	return s.blockStatus(block)
}

// TransactionDigest returns the digest of a live transaction's body, as it
// stood in the block that brought it first.
func (s *State) TransactionDigest(txID string) ([32]byte, error) {
	tx, ok := toID(txID)
	if !ok {
		return [32]byte{}, nil
	}
	value, err := s.get(idKey(txPrefix, tx))
	if err != nil || value == nil {
		return [32]byte{}, err
	}
	rec, err := readTxRecord(value)
	return rec.digest, err
}

// Statements returns what members have stated about an epoch, by signer.
func (s *State) Statements(number int) (map[string]*ledger.Statement, error) {
	g := s.use()
	defer g.users.Done()
	return statements(g, binary.BigEndian.AppendUint32([]byte{statementPrefix}, uint32(number)))
}

func statements(r pebble.Reader, prefix []byte) (map[string]*ledger.Statement, error) {
	it, err := r.NewIter(iterOptions(prefix))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	list := map[string]*ledger.Statement{}
	for ok := it.First(); ok; ok = it.Next() {
		st, err := ledger.ParseStatement(it.Value())
		if err != nil {
			return nil, err
		}
		list[st.NodePubkey] = st
	}
	return list, it.Error()
}

func iterOptions(prefix []byte) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)}
}

// BlockRef names a block and its status.
type BlockRef struct {
	ID     string
	Status consensus.Status
}

// Spend is a transaction that spends an output, in a live block.
type Spend struct {
	BlockID string
	TxID    string
}

// Listed is one transaction of a block.
type Listed struct {
	TxID      string
	Asset     string
	Operation ledger.Operation
}

// Decision is a block's status, once it has one, with the consequences.
type Decision struct {
	Number       uint64 // counts up from 1 in the order of decisions
	BlockID      string
	Maker        string
	Status       consensus.Status
	Transactions []Listed
}

var operations = map[byte]ledger.Operation{
	opCreate: ledger.Create, opTransfer: ledger.Transfer, opGenesis: ledger.Genesis,
}

func decisionOf(number uint64, block id, status consensus.Status, rec blockRecord) Decision {
	d := Decision{
		Number: number, BlockID: block.String(), Maker: rec.maker, Status: status,
		Transactions: make([]Listed, len(rec.transactions)),
	}
	for i, e := range rec.transactions {
		d.Transactions[i] = Listed{TxID: e.tx.String(), Asset: e.asset.String(), Operation: operations[e.operation]}
	}
	return d
}

// Pending returns the first decision after a number whose consequences are not
// carried out yet, and false when there is none.
func (s *State) Pending(after uint64) (Decision, bool, error) {
	g := s.use()
	defer g.users.Done()
	it, err := g.NewIter(&pebble.IterOptions{
		LowerBound: sequenceKey(effectPrefix, after+1), UpperBound: []byte{effectPrefix + 1},
	})
	if err != nil {
		return Decision{}, false, err
	}
	defer it.Close()
	if !it.First() {
		return Decision{}, false, it.Error()
	}
	number := binary.BigEndian.Uint64(it.Key()[1:])
	block := id(it.Value())
	status, err := s.blockStatus(block)
	if err != nil {
		return Decision{}, false, err
	}
	value, err := s.get(idKey(blockPrefix, block))
	if err != nil {
		return Decision{}, false, err
	}
	rec, err := readBlockRecord(value)
	return decisionOf(number, block, status, rec), err == nil, err
}

// Undecided lists the blocks that are not decided, in order of arrival.
func (s *State) Undecided() ([]string, error) {
	g := s.use()
	defer g.users.Done()
	it, err := g.NewIter(iterOptions([]byte{openPrefix}))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var list []string
	for it.First(); it.Valid(); it.Next() {
		list = append(list, id(it.Value()).String())
	}
	return list, it.Error()
}

// Outputs lists outputs that name a public key, in the order in which their
// transactions reached a block; only unspent ones when asked. next is the
// cursor of the page that follows, "" when there is none.
func (s *State) Outputs(publicKey string, unspent bool, cursor string, limit int) (refs []ledger.OutputRef, next string, err error) {
	prefix := byte(ownedPrefix)
	if unspent {
		prefix = unspentPrefix
		if refs, next, kept, err := s.shortOutputs(publicKey, cursor, limit); kept || err != nil {
			return refs, next, err
		}
	}
	var found []listed
	mark := s.short.now()
	base := ownerPrefix(prefix, publicKey)
	next, skipped, err := s.page(base, cursor, outputCursorSize, limit, func(rest, value []byte) {
		found = append(found, listed{rest: [outputCursorSize]byte(rest), tx: id(value)})
	})
	if unspent && skipped > maxSkipped {
		s.tidier.ask(base)
		if cursor == "" && next == "" && err == nil {
			s.short.keep(mark, publicKey, found)
		}
	}
	return outputRefs(found), next, err
}

// outputCursorSize is the part of a key behind the public key: a position and
// the output's index.
const outputCursorSize = positionSize + 4

// shortOutputs answers from the lists kept in memory.
func (s *State) shortOutputs(publicKey, cursor string, limit int) (refs []ledger.OutputRef, next string, kept bool, err error) {
	rest, err := readCursor(cursor, outputCursorSize)
	if err != nil {
		return nil, "", false, err
	}
	page, more, kept := s.short.page(publicKey, rest, limit)
	if more {
		next = base64.RawURLEncoding.EncodeToString(page[len(page)-1].rest[:])
	}
	return outputRefs(page), next, kept, nil
}

func outputRefs(list []listed) []ledger.OutputRef {
	refs := make([]ledger.OutputRef, len(list))
	for i, o := range list {
		index := binary.BigEndian.Uint32(o.rest[positionSize:])
		refs[i] = ledger.OutputRef{TxID: o.tx.String(), Index: int(index)}
	}
	return refs
}

// AssetEntry is a valid transaction in an asset's history.
type AssetEntry struct {
	TxID    string
	BlockID string
}

// AssetTransactions lists an asset's valid transactions in the order they
// became valid. operation is "" for all. A page may be shorter than limit though
// another follows.
func (s *State) AssetTransactions(asset string, operation ledger.Operation, cursor string, limit int) (entries []AssetEntry, next string, err error) {
	assetID, ok := toID(asset)
	if !ok {
		return nil, "", nil
	}
	var unread error
	next, _, err = s.page(idKey(assetPrefix, assetID), cursor, 8+2, limit, func(_, value []byte) {
		if operation != "" && operations[value[0]] != operation {
			return
		}
		// A block may have become disputed since it was decided.
		if status, err := s.blockStatus(id(value[1+idSize:])); err != nil || status != consensus.Valid {
			unread = errors.Join(unread, err)
			return
		}
		entries = append(entries, AssetEntry{TxID: id(value[1 : 1+idSize]).String(), BlockID: id(value[1+idSize:]).String()})
	})
	return entries, next, errors.Join(err, unread)
}

// readCursor reads the part of a key, of the given size, that a cursor is; nil
// for the start of a list.
func readCursor(cursor string, size int) ([]byte, error) {
	if cursor == "" {
		return nil, nil
	}
	rest, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(rest) != size || base64.RawURLEncoding.EncodeToString(rest) != cursor {
		return nil, ErrBadCursor // the decoder skips line feeds and takes loose bits
	}
	return rest, nil
}

// page calls visit for up to limit keys under base after the cursor, which is
// the part of the last key behind base, of the given size. It returns the
// cursor of the page that follows, and how many deleted keys stood in the way.
func (s *State) page(base []byte, cursor string, size, limit int, visit func(rest, value []byte)) (next string, skipped int, err error) {
	rest, err := readCursor(cursor, size)
	if err != nil {
		return "", 0, err
	}
	lower := base
	if rest != nil {
		lower = append(append([]byte(nil), base...), append(rest, 0)...)
	}
	g := s.use()
	defer g.users.Done()
	it, err := g.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after(base)})
	if err != nil {
		return "", 0, err
	}
	defer it.Close()
	var last []byte
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n == limit {
			return base64.RawURLEncoding.EncodeToString(last), skippedBy(it), nil
		}
		n++
		last = append(last[:0], it.Key()[len(base):]...)
		visit(last, it.Value())
	}
	return "", skippedBy(it), it.Error()
}

// Arrivals counts the blocks, whatever became of them.
func (s *State) Arrivals() int {
	s.writer.Lock()
	defer s.writer.Unlock()
	return int(s.arrivals)
}

// Blocks calls visit for every block, in order of ids, with its status.
func (s *State) Blocks(visit func(blockID string, status consensus.Status) error) error {
	g := s.use()
	defer g.users.Done()
	it, err := g.NewIter(iterOptions([]byte{statusPrefix}))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) != 1+idSize || len(it.Value()) != 1 {
			return errCorrupt
		}
		if err := visit(id(it.Key()[1:]).String(), consensus.Status(it.Value()[0])); err != nil {
			return err
		}
	}
	return it.Error()
}

// Decision returns what is kept of a block that has arrived, under number 0.
func (s *State) Decision(blockID string) (Decision, error) {
	block, _ := toID(blockID)
	status, err := s.blockStatus(block)
	if err != nil {
		return Decision{}, err
	}
	value, err := s.get(idKey(blockPrefix, block))
	if err != nil {
		return Decision{}, err
	}
	rec, err := readBlockRecord(value)
	return decisionOf(0, block, status, rec), err
}

// EpochOf returns the number of the epoch that a block belongs to.
func (s *State) EpochOf(blockID string) (int, error) {
	block, _ := toID(blockID)
	value, err := s.get(idKey(blockPrefix, block))
	if err != nil {
		return 0, err
	}
	rec, err := readBlockRecord(value)
	if err == nil && (rec.epoch < 0 || rec.epoch >= max(len(s.Epochs()), 1)) {
		err = errCorrupt
	}
	return rec.epoch, err
}

// Dependents lists the live blocks that spend outputs of a live block's
// transactions.
func (s *State) Dependents(blockID string) ([]string, error) {
	block, _ := toID(blockID)
	v := s.View()
	defer v.Close()
	value, err := v.get(idKey(blockPrefix, block))
	if err != nil {
		return nil, err
	}
	rec, err := readBlockRecord(value)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range rec.transactions {
		value, err := v.get(idKey(txPrefix, e.tx))
		if err != nil || value == nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		t, err := readTxRecord(value)
		if err != nil {
			return nil, err
		}
		for i := range t.outputs {
			spends, err := spenders(v, ledger.OutputRef{TxID: e.tx.String(), Index: i})
			if err != nil {
				return nil, err
			}
			for _, s := range spends {
				list = append(list, s.block.String())
			}
		}
	}
	return distinct(list), nil
}
