package verify

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/couchledger/couchledger/node/ledger"
)

// blockFacts is what is kept of a block whose id and signature are sound.
type blockFacts struct {
	lap       uint64 // in which it was found
	timestamp int64
	maker     string
	voters    []string
	genesis   bool // it has a GENESIS and nothing else
	spends    bool // it has a TRANSFER
	// faults are why it can never be valid, as far as it shows by itself.
	faults []fault
}

// fault is a finding about a block whose votes are not known yet.
type fault struct {
	rule     Rule
	tx, seen string
}

func (b blockFacts) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, b.lap)
	dst = binary.AppendUvarint(dst, uint64(b.timestamp))
	dst = appendText(dst, b.maker)
	dst = appendFlag(appendFlag(dst, b.genesis), b.spends)
	dst = binary.AppendUvarint(dst, uint64(len(b.voters)))
	for _, voter := range b.voters {
		dst = appendText(dst, voter)
	}
	for _, f := range b.faults {
		dst = appendText(appendText(appendText(dst, string(f.rule)), f.tx), f.seen)
	}
	return dst
}

func readBlock(v []byte) (blockFacts, error) {
	f := fields{rest: v}
	b := blockFacts{lap: f.uint(), timestamp: int64(f.uint()), maker: f.text(), genesis: f.flag(), spends: f.flag()}
	for n := f.uint(); n > 0 && !f.bad; n-- {
		b.voters = append(b.voters, f.text())
	}
	for len(f.rest) > 0 && !f.bad {
		b.faults = append(b.faults, fault{rule: Rule(f.text()), tx: f.text(), seen: f.text()})
	}
	return b, f.err()
}

// ownersHash stands for a list of public keys, which may be long.
type ownersHash [24]byte

func hashOwners(keys []string) ownersHash {
	if len(keys) == 1 { // nearly always
		return ownersHash(sha256Of(keys[0]))
	}
	var list []byte
	if keys != nil { // null is not the empty list
		list = []byte{0}
	}
	for _, k := range keys {
		list = append(append(list, k...), 0)
	}
	return ownersHash(sha256Of(string(list)))
}

func sha256Of(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:len(ownersHash{})]
}

// outputFacts is what spending an output depends on. Transactions of one id
// have the same outputs, so they stand once, whatever blocks have them.
type outputFacts struct {
	asset  id
	owners ownersHash
	uri    string
	amount ledger.Amount
}

func (o outputFacts) append(dst []byte) []byte {
	dst = append(dst, o.asset[:]...)
	dst = append(dst, o.owners[:]...)
	return appendText(appendText(dst, o.uri), string(o.amount))
}

func readOutput(v []byte) (outputFacts, error) {
	f := fields{rest: v}
	o := outputFacts{asset: f.id(), owners: ownersHash(f.take(len(ownersHash{}))), uri: f.text(), amount: ledger.Amount(f.text())}
	return o, f.err()
}

// spendFacts is what an input shows of the output that it spends.
type spendFacts struct {
	asset  id // that the spending transaction is of
	owners ownersHash
	uri    string // of the condition that the fulfillment produces
	input  int    // its number
	inputs int    // of its transaction
	paid   ledger.Amount
}

func (s spendFacts) append(dst []byte) []byte {
	dst = append(dst, s.asset[:]...)
	dst = append(dst, s.owners[:]...)
	dst = appendText(dst, s.uri)
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(s.input)), uint64(s.inputs))
	return appendText(dst, string(s.paid))
}

func readSpend(v []byte) (spendFacts, error) {
	f := fields{rest: v}
	s := spendFacts{asset: f.id(), owners: ownersHash(f.take(len(ownersHash{}))), uri: f.text(),
		input: int(f.uint()), inputs: int(f.uint()), paid: ledger.Amount(f.text())}
	return s, f.err()
}

// amountFacts is one input of a transaction with several.
type amountFacts struct {
	inputs     int
	held, paid ledger.Amount // by the output that it spends; by all outputs together
	judged     bool          // a difference is a finding; else it excuses votes against the block
}

func (a amountFacts) append(dst []byte) []byte {
	dst = appendFlag(binary.AppendUvarint(dst, uint64(a.inputs)), a.judged)
	return appendText(appendText(dst, string(a.held)), string(a.paid))
}

func readAmount(v []byte) (amountFacts, error) {
	f := fields{rest: v}
	a := amountFacts{inputs: int(f.uint()), judged: f.flag(), held: ledger.Amount(f.text()), paid: ledger.Amount(f.text())}
	return a, f.err()
}

// derivedFacts is a document of the table for queries.
type derivedFacts struct {
	block  string   // its block_id, "" when it has none
	digest [32]byte // of the rest in canonical form; zero when it is no object
}

func (d derivedFacts) append(dst []byte) []byte {
	return append(appendText(dst, d.block), d.digest[:]...)
}

func readDerived(v []byte) (derivedFacts, error) {
	f := fields{rest: v}
	d := derivedFacts{block: f.text(), digest: f.id()}
	return d, f.err()
}

// voteFacts is a vote with a sound signature under the right id.
type voteFacts struct {
	lap      uint64
	valid    bool
	previous id
	reason   string
}

func (v voteFacts) append(dst []byte) []byte {
	dst = append(appendFlag(binary.AppendUvarint(dst, v.lap), v.valid), v.previous[:]...)
	return appendText(dst, v.reason)
}

func readVote(b []byte) (voteFacts, error) {
	f := fields{rest: b}
	v := voteFacts{lap: f.uint(), valid: f.flag(), previous: f.id(), reason: f.text()}
	return v, f.err()
}

// rank is a vote's place among its node's. Only ranks of one part of a chain
// that broke can be compared.
type rank struct{ part, place uint64 }

// before reports whether r is known to be before other.
func (r rank) before(other rank) bool { return r.part == other.part && r.place < other.place }

// rankedVote is a vote with its place in its node's chain.
type rankedVote struct {
	lap    uint64
	valid  bool
	reason string
	rank   rank
}

func (v rankedVote) append(dst []byte) []byte {
	dst = appendFlag(binary.AppendUvarint(dst, v.lap), v.valid)
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, v.rank.part), v.rank.place)
	return appendText(dst, v.reason)
}

func readRanked(b []byte) (rankedVote, error) {
	f := fields{rest: b}
	v := rankedVote{lap: f.uint(), valid: f.flag(), rank: rank{f.uint(), f.uint()}, reason: f.text()}
	return v, f.err()
}
