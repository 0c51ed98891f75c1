package embedded

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/couchledger/couchledger/statedb"
)

// Keys. One Pebble store holds all tables; the first byte tells them apart.
//
//	meta   'm'                          → format version
//	table  <code> 'm'                   → instance, 8 random bytes
//	table  <code> 'h'                   → head, the last sequence number used
//	table  <code> 'd' <id>              → record: flags, seq, gen, hash, body
//	table  <code> 's' <seq>             → change: flags, gen, hash, id
//	table  <code> 'x' <name>            → index definition
//	table  <code> 'i' <number> <key> <id> → nothing; key as mango.AppendKey has it
//
// Numbers are big-endian, so that keys sort by them.
const (
	metaKey = "m"

	kindInstance   = 'm'
	kindHead       = 'h'
	kindDocument   = 'd'
	kindChange     = 's'
	kindDefinition = 'x'
	kindIndex      = 'i'
)

// A new database is given the latest format. There has been no other yet; what
// brings an earlier one up to date would be done by load, in one batch.
const (
	formatPrefix = "couchledger "
	format       = 1
)

// tableCodes never change: they are in the data.
var tableCodes = map[string]byte{
	statedb.Backlog:      1,
	statedb.Bigchain:     2,
	statedb.Votes:        3,
	statedb.Transactions: 4,
}

// Everything of a database lies between these: the codes of all tables, and
// the meta key.
var wholeStart, wholeEnd = []byte{0}, []byte{0xFF}

func tableKey(code, kind byte) []byte { return []byte{code, kind} }

func appendDocumentKey(dst []byte, code byte, id string) []byte {
	return append(append(dst, code, kindDocument), id...)
}

func appendChangeKey(dst []byte, code byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, code, kindChange), seq)
}

func appendIndexKey(dst []byte, code byte, number uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, code, kindIndex), number)
}

func definitionKey(code byte, name string) []byte {
	return append([]byte{code, kindDefinition}, name...)
}

const (
	idOffset    = 2 // of the id in a document's key
	seqOffset   = 2 // of the sequence number in a change's key
	indexOffset = 6 // of the encoded fields in an index key
)

// revision is a document's revision, "<gen>-<hash>" in the interface. gen
// counts the changes of the id, deletions among them; hash is of the body, so
// that the same change of the same document has the same revision everywhere.
type revision struct {
	gen  uint32
	hash [16]byte
}

func (r revision) append(dst []byte) []byte {
	dst = append(strconv.AppendUint(dst, uint64(r.gen), 10), '-')
	return hex.AppendEncode(dst, r.hash[:])
}

func (r revision) String() string { return string(r.append(nil)) }

func (r revision) equal(text string) bool {
	var scratch [48]byte
	return string(r.append(scratch[:0])) == text
}

// record is what is stored under a document's id: the document, or the
// tombstone that a deletion leaves.
type record struct {
	deleted bool
	seq     uint64
	rev     revision
	body    []byte
}

const (
	flagDeleted  = 1
	recordHeader = 1 + 8 + 4 + 16
	changeHeader = 1 + 4 + 16
)

func (r *record) put(dst []byte) {
	dst[0] = flags(r.deleted)
	binary.BigEndian.PutUint64(dst[1:], r.seq)
	binary.BigEndian.PutUint32(dst[9:], r.rev.gen)
	copy(dst[13:], r.rev.hash[:])
	copy(dst[recordHeader:], r.body)
}

// readRecord decodes a record; its body is a part of data.
func readRecord(data []byte) (record, error) {
	if len(data) < recordHeader {
		return record{}, fmt.Errorf("embedded: a stored document of %d bytes is damaged", len(data))
	}
	r := record{
		deleted: data[0]&flagDeleted != 0,
		seq:     binary.BigEndian.Uint64(data[1:]),
		body:    data[recordHeader:],
	}
	r.rev.gen = binary.BigEndian.Uint32(data[9:])
	copy(r.rev.hash[:], data[13:])
	return r, nil
}

func (r *record) putChange(dst []byte, id string) {
	dst[0] = flags(r.deleted)
	binary.BigEndian.PutUint32(dst[1:], r.rev.gen)
	copy(dst[5:], r.rev.hash[:])
	copy(dst[changeHeader:], id)
}

func readChange(data []byte) (statedb.Change, error) {
	if len(data) < changeHeader {
		return statedb.Change{}, fmt.Errorf("embedded: a stored change of %d bytes is damaged", len(data))
	}
	var rev revision
	rev.gen = binary.BigEndian.Uint32(data[1:])
	copy(rev.hash[:], data[5:])
	return statedb.Change{
		ID:      string(data[changeHeader:]),
		Rev:     rev.String(),
		Deleted: data[0]&flagDeleted != 0,
	}, nil
}

func flags(deleted bool) byte {
	if deleted {
		return flagDeleted
	}
	return 0
}

// keyAfter returns the first key that does not begin with prefix.
func keyAfter(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xFF {
			end[i]++
			return end[:i+1]
		}
	}
	return wholeEnd
}
