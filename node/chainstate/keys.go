package chainstate

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/couchledger/couchledger/node/ledger"
)

// The first byte of a key tells what it holds. Ids stand as 32 bytes,
// positions and sequence numbers big-endian, so that keys sort by them.
const (
	metaPrefix     = 'm' // name → value
	blockPrefix    = 'b' // block → blockRecord
	statusPrefix   = 's' // block → one byte, a consensus.Status
	votePrefix     = 'w' // block, voter → voteRecord
	rivalPrefix    = 'r' // block, block → nothing; they held what contradicts while both were live
	txPrefix       = 't' // transaction in a live block → txRecord
	blocksOfPrefix = 'l' // transaction → ids of all blocks that hold it
	outputPrefix   = 'o' // transaction, index → outputRecord, while in a live block
	spentPrefix    = 'p' // transaction, index → who spends it in a live block: block, transaction
	ownedPrefix    = 'k' // public key, position → output
	unspentPrefix  = 'u' // public key, position → output, while no live block spends it
	assetPrefix    = 'a' // asset, decision, index → transaction in a valid block
	openPrefix     = 'd' // arrival → undecided block
	effectPrefix   = 'e' // decision → valid block whose consequences are not carried out yet

	statementPrefix = 'f' // number, signer → a statement about the federation
)

// A live block is one that is valid, undecided or disputed.

const idSize = 32

type id [idSize]byte

func toID(s string) (id, bool) {
	var b id
	if len(s) != 2*idSize {
		return b, false
	}
	_, err := hex.Decode(b[:], []byte(s))
	return b, err == nil
}

func (b id) String() string { return hex.EncodeToString(b[:]) }

// position is where an output stands: its transaction's first live block by
// arrival, the transaction's place there, and the output's index.
type position struct {
	arrival uint64
	place   uint16
}

const positionSize = 10

func (p position) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, p.arrival)
	return binary.BigEndian.AppendUint16(dst, p.place)
}

func readPosition(b []byte) position {
	return position{arrival: binary.BigEndian.Uint64(b), place: binary.BigEndian.Uint16(b[8:])}
}

func key(prefix byte, parts ...[]byte) []byte {
	k := make([]byte, 1, 96)
	k[0] = prefix
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func metaKey(name string) []byte { return key(metaPrefix, []byte(name)) }

func idKey(prefix byte, b id) []byte { return key(prefix, b[:]) }

func outputKey(prefix byte, tx id, index int) []byte {
	return binary.BigEndian.AppendUint32(key(prefix, tx[:]), uint32(index))
}

// ownerKey ends the public key with a zero byte, which base58 does not have.
func ownerKey(prefix byte, publicKey string, at position, index int) []byte {
	k := at.append(ownerPrefix(prefix, publicKey))
	return binary.BigEndian.AppendUint32(k, uint32(index))
}

func ownerPrefix(prefix byte, publicKey string) []byte {
	return append(key(prefix, []byte(publicKey)), 0)
}

func assetKey(asset id, decision uint64, place int) []byte {
	k := binary.BigEndian.AppendUint64(key(assetPrefix, asset[:]), decision)
	return binary.BigEndian.AppendUint16(k, uint16(place))
}

func sequenceKey(prefix byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, n)
}

// after returns the end of the range of keys that begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

var errCorrupt = errors.New("chainstate: a record is malformed; stop the node, `bigchaindb reindex` makes the chainstate anew")

// reader takes a record apart. After a fault all reads give zero values.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if uint64(len(r.rest)) < n {
		r.bad = true
		r.rest = nil
		return make([]byte, min(n, idSize))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) id() id       { return id(r.take(idSize)) }
func (r *reader) byte() byte   { return r.take(1)[0] }
func (r *reader) text() string { return string(r.take(r.uint())) }

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.rest)
	r.skip(size)
	return n
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.rest)
	r.skip(size)
	return n
}

// skip goes on behind a number of so many bytes; none or fewer means that it was
// no number.
func (r *reader) skip(size int) {
	if size <= 0 {
		r.bad = true
		r.rest = nil
		return
	}
	r.rest = r.rest[size:]
}

func (r *reader) err() error {
	if r.bad {
		return errCorrupt
	}
	return nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// txRecord is what is kept of a transaction beside its outputs.
type txRecord struct {
	at      position
	digest  [sha256.Size]byte // of the body in the block it came with first
	outputs int
	spends  []ledger.OutputRef
}

func (t txRecord) append(dst []byte) []byte {
	dst = t.at.append(dst)
	dst = append(dst, t.digest[:]...)
	dst = binary.AppendUvarint(dst, uint64(t.outputs))
	for _, ref := range t.spends {
		tx, _ := toID(ref.TxID) // the schema lets no other id through
		dst = append(dst, tx[:]...)
		dst = binary.AppendUvarint(dst, uint64(ref.Index))
	}
	return dst
}

func readTxRecord(b []byte) (txRecord, error) {
	r := reader{rest: b}
	t := txRecord{at: readPosition(r.take(positionSize)), digest: r.id(), outputs: int(r.uint())}
	for len(r.rest) > 0 && !r.bad {
		tx := r.id()
		t.spends = append(t.spends, ledger.OutputRef{TxID: tx.String(), Index: int(r.uint())})
	}
	return t, r.err()
}

// outputRecord is all that spending an output needs to know.
type outputRecord struct {
	at           position
	asset        id
	amount       ledger.Amount
	conditionURI string
	publicKeys   []string // nil for null
}

func (o outputRecord) append(dst []byte) []byte {
	dst = o.at.append(dst)
	dst = append(dst, o.asset[:]...)
	dst = appendText(dst, string(o.amount))
	dst = appendText(dst, o.conditionURI)
	if o.publicKeys == nil {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(o.publicKeys)))
	for _, k := range o.publicKeys {
		dst = appendText(dst, k)
	}
	return dst
}

func readOutputRecord(b []byte) (outputRecord, error) {
	r := reader{rest: b}
	o := outputRecord{at: readPosition(r.take(positionSize)), asset: r.id()}
	o.amount = ledger.Amount(r.text())
	o.conditionURI = r.text()
	if len(r.rest) == 0 {
		return o, r.err()
	}
	o.publicKeys = make([]string, 0, 1)
	for range r.uint() {
		if r.bad {
			break
		}
		o.publicKeys = append(o.publicKeys, r.text())
	}
	return o, r.err()
}

// blockRecord is what is kept of a block: enough to tell who may vote on it
// and to list its transactions.
type blockRecord struct {
	arrival      uint64
	epoch        int
	timestamp    int64
	unsound      bool // invalid whatever the votes
	maker        string
	transactions []blockEntry
}

type blockEntry struct {
	tx, asset id
	operation byte
}

const (
	opCreate   = 'C'
	opTransfer = 'T'
	opGenesis  = 'G'
)

func (b blockRecord) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, b.arrival)
	dst = binary.AppendUvarint(dst, uint64(b.epoch))
	dst = binary.AppendUvarint(dst, uint64(b.timestamp))
	unsound := byte(0)
	if b.unsound {
		unsound = 1
	}
	dst = appendText(append(dst, unsound), b.maker)
	for _, e := range b.transactions {
		dst = append(dst, e.operation)
		dst = append(dst, e.tx[:]...)
		if e.operation == opTransfer {
			dst = append(dst, e.asset[:]...)
		}
	}
	return dst
}

func readBlockRecord(b []byte) (blockRecord, error) {
	r := reader{rest: b}
	rec := blockRecord{arrival: r.uint(), epoch: int(r.uint()), timestamp: int64(r.uint()), unsound: r.byte() == 1, maker: r.text()}
	for len(r.rest) > 0 && !r.bad {
		e := blockEntry{operation: r.byte(), tx: r.id()}
		e.asset = e.tx
		if e.operation == opTransfer {
			e.asset = r.id()
		}
		rec.transactions = append(rec.transactions, e)
	}
	return rec, r.err()
}
