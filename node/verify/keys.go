package verify

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// The first byte of a scratch key tells what it holds. Ids stand as 32 bytes,
// a voter's key as its text and a zero byte, numbers big-endian.
const (
	metaPrefix    = 'm' // name → value
	seenPrefix    = 'z' // table, id → seenRecord
	findingPrefix = 'f' // class, table, id, rule, … → Finding

	// Facts of single documents.
	blockPrefix   = 'b' // block → blockFacts
	genesisPrefix = 'g' // block that holds a GENESIS
	holdPrefix    = 't' // transaction, block → digest of the body
	outputPrefix  = 'o' // transaction, index → outputFacts
	spendPrefix   = 's' // transaction, index, spender, block → spendFacts
	votePrefix    = 'v' // voter, block → voteFacts
	nextPrefix    = 'c' // voter, previous block, block
	proofPrefix   = 'V' // block, voter, 1 for valid and 0 for invalid: a copy of a vote that is contradicted
	waitPrefix    = 'w' // transaction in the backlog
	derivedPrefix = 'd' // transaction → derivedFacts

	// What the evaluation makes of them, anew each time.
	branchPrefix  = 'q' // block → position; branches of a chain still to be walked
	rankPrefix    = 'p' // block, voter → rankedVote
	statusPrefix  = 'S' // block → decision
	againstPrefix = 'i' // block → votes against it
	excusePrefix  = 'x' // block, code: something that speaks against a block
	amountPrefix  = 'a' // transaction, block, input → amountFacts
)

const idSize = 32

type id [idSize]byte

// toID reads 64 hexadecimal digits; the caller knows that s has them.
func toID(s string) (b id) {
	_, _ = hex.Decode(b[:], []byte(s))
	return b
}

func (b id) String() string { return hex.EncodeToString(b[:]) }

func key(prefix byte, parts ...[]byte) []byte {
	size := 1
	for _, p := range parts {
		size += len(p)
	}
	k := append(make([]byte, 0, size+4), prefix)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func outputKey(prefix byte, tx id, index int) []byte {
	return binary.BigEndian.AppendUint32(key(prefix, tx[:]), uint32(index))
}

// voterPart ends a voter's key with a zero byte, which base58 does not have.
func voterPart(voter string) []byte { return append([]byte(voter), 0) }

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

var errCorrupt = errors.New("verify: a record of the scratch store is malformed; delete the folder, it is made anew")

// fields takes a record apart. After a fault all reads give zero values.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) take(n int) []byte {
	if n < 0 || len(f.rest) < n {
		f.bad, f.rest = true, nil
		return make([]byte, min(max(n, 0), idSize))
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) id() id { return id(f.take(idSize)) }

func (f *fields) uint() uint64 {
	n, size := binary.Uvarint(f.rest)
	if size <= 0 {
		f.bad, f.rest = true, nil
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

func (f *fields) flag() bool { return f.uint() != 0 }

func (f *fields) text() string {
	n := f.uint()
	return string(f.take(int(min(n, 1<<31))))
}

func (f *fields) err() error {
	if f.bad {
		return errCorrupt
	}
	return nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendFlag(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}
