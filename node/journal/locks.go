package journal

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/node/ledger"
)

// Locks are what a valid vote on a block binds its voter to: no other block
// with one of these transactions, or spending one of these outputs, gets
// another one.
type Locks struct {
	Transactions []string
	Outputs      []ledger.OutputRef
}

// LocksOf returns what a valid vote on a block locks.
func LocksOf(b *ledger.Block) Locks {
	l := Locks{Transactions: make([]string, len(b.Transactions))}
	for i, t := range b.Transactions {
		l.Transactions[i] = t.ID
		l.Outputs = append(l.Outputs, t.Spends()...)
	}
	return l
}

// append encodes locks as lines: a transaction's id, or an id with the index
// of an output.
func (l Locks) append(dst []byte) []byte {
	for _, tx := range l.Transactions {
		dst = append(append(dst, tx...), '\n')
	}
	for _, ref := range l.Outputs {
		dst = append(append(dst, ref.TxID...), ' ')
		dst = append(strconv.AppendInt(dst, int64(ref.Index), 10), '\n')
	}
	return dst
}

func readLocks(value []byte) (Locks, error) {
	var l Locks
	for line := range strings.Lines(string(value)) {
		line = strings.TrimSuffix(line, "\n")
		tx, index, spends := strings.Cut(line, " ")
		n, err := strconv.Atoi(index)
		switch {
		case !ledger.IsID(tx) || spends && (err != nil || n < 0):
			return Locks{}, fmt.Errorf("a lock is malformed: %.100q", line)
		case spends:
			l.Outputs = append(l.Outputs, ledger.OutputRef{TxID: tx, Index: n})
		default:
			l.Transactions = append(l.Transactions, tx)
		}
	}
	return l, nil
}

// lockTable tells by which blocks a thing is locked, in the order of the
// locks. There are two only where the journal was lost, or the key is used by
// another node as well.
type lockTable[K comparable] map[K][]string

func (t lockTable[K]) lock(k K, block string) { t[k] = append(t[k], block) }

func (t lockTable[K]) release(k K, block string) {
	rest := t[k][:0:0]
	for _, other := range t[k] {
		if other != block {
			rest = append(rest, other)
		}
	}
	if len(rest) == 0 {
		delete(t, k)
		return
	}
	t[k] = rest
}

// first returns the block that locked k first, "" when none does.
func (t lockTable[K]) first(k K) string {
	if blocks := t[k]; len(blocks) > 0 {
		return blocks[0]
	}
	return ""
}
