package simulator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// liar is a member with a key and no node. It does what the protocol lets
// anybody write.
type liar struct {
	w     *world
	place int
	key   ledger.KeyPair
	store *store
	mode  liarMode
	votes map[string]bool // blocks that it voted on
}

// liarMode is how a liar votes.
type liarMode int

const (
	approving liarMode = iota // valid on all
	denying                   // invalid on all
	silent
	fickle // one or the other
	liarModes
)

func newLiar(w *world, place int, s *store) *liar {
	mode := liarMode(w.random.IntN(int(liarModes)))
	if w.beyond {
		mode = approving
	}
	return &liar{w: w, place: place, key: w.pool.members[place], store: s, mode: mode, votes: map[string]bool{}}
}

// act does one of a liar's things.
func (l *liar) act() {
	switch l.w.random.IntN(8) {
	case 0, 1, 2, 3:
		if l.w.replicated && l.w.random.IntN(3) == 0 {
			l.equivocate()
			return
		}
		l.vote()
	case 4, 5:
		l.forge()
	case 6:
		l.replay()
	case 7:
		l.junk()
	}
}

func (l *liar) put(table, id string, body []byte, format string, args ...any) bool {
	r := l.store.tables[table].write(statedb.Write{ID: id, Body: body})
	if r.Err != nil {
		return false
	}
	l.w.note("liar %d: %s", l.place, fmt.Sprintf(format, args...))
	return true
}

func (l *liar) one(list []string) string { return list[l.w.random.IntN(len(list))] }

// vote votes on a block that it has not voted on, and reports whether there is one.
func (l *liar) vote() bool {
	if l.mode == silent {
		return false
	}
	open := slices.DeleteFunc(blocksIn(l.store), func(id string) bool { return l.votes[id] })
	if len(open) == 0 {
		return false
	}
	block := l.one(open)
	valid := l.mode == approving || l.mode == fickle && l.w.random.IntN(2) == 0
	l.votes[block] = true
	reason := ""
	if !valid {
		reason = "BECAUSE"
	}
	v := ledger.NewVote(l.key, block, l.one(blocksIn(l.store)), valid, reason, time.Now().Unix())
	l.put(statedb.Votes, ledger.VoteID(block, l.key.Public), v.Bytes(), "votes %s valid: %t", l.w.name(block), valid)
	return true
}

// forge makes a block that no honest node would.
func (l *liar) forge() {
	w := l.w
	outputs := w.outputs()
	if len(outputs) == 0 {
		return
	}
	of := w.some(outputs)
	rivals := []*ledger.Transaction{w.remember(w.pool.transfer(of, w.random.IntN(3))), w.remember(w.pool.transfer(of, w.random.IntN(3)))}
	any := w.load.made[w.random.IntN(len(w.load.made))]
	members, now := w.pool.federation(w.members), time.Now().Unix()
	make := func(what string, at int64, voters []string, list ...*ledger.Transaction) {
		b := ledger.NewBlock(l.key, at, voters, list)
		texts := []string{}
		for _, t := range list {
			texts = append(texts, w.name(t.ID)+" "+w.describe(t))
		}
		l.put(statedb.Bigchain, b.ID, b.Bytes(), "makes block %s, %s, of %s", w.name(b.ID), what, strings.Join(texts, ", "))
	}
	switch w.random.IntN(14) {
	case 0, 1, 2:
		make("one of a pair", now, members, rivals[0])
		make("the other of the pair", now, members, rivals[1])
	case 3:
		make("a pair in one", now, members, rivals...)
	case 4:
		make("of anything", now, members, any)
	case 5:
		make("not signed by the owner", now, members, w.pool.unsigned(of))
	case 6:
		make("stolen", now, members, w.pool.stolen(of))
	case 7:
		make("inflated", now, members, w.pool.inflated(of))
	case 8:
		make("decided by itself", now, []string{l.key.Public}, rivals[0])
	case 9:
		make("of some voters", now, members[1:], rivals[0])
	case 10:
		make("of long ago", []int64{beginning - 100, beginning, now - 1}[w.random.IntN(3)], members, any)
	case 11:
		make("of times to come", now+1000, members, any)
	case 12:
		make("the same twice", now, members, any, any)
	case 13:
		make("another beginning", now, members, w.pool.firstBlock(w.members, w.ruleName()).Transactions[0])
	}
}

// replay brings something old once more.
func (l *liar) replay() {
	w := l.w
	if len(w.load.made) == 0 {
		return
	}
	t := w.load.made[w.random.IntN(len(w.load.made))]
	members := w.pool.federation(w.members)
	blocks := blocksIn(l.store)
	switch w.random.IntN(4) {
	case 3: // votes in the others' names
		block := l.one(blocks)
		for _, voter := range members {
			if voter != l.key.Public && w.random.IntN(4) > 0 {
				v := ledger.NewVote(l.key, block, l.one(blocks), true, "", time.Now().Unix())
				v.NodePubkey = voter
				id := ledger.VoteID(block, voter)
				l.put(statedb.Votes, id, v.Bytes(), "forges the %s", w.name(id))
			}
		}
	case 0: // an entry of the backlog, for anybody
		assignee := members[w.random.IntN(len(members))]
		body := t.BytesWith(fmt.Appendf(nil, `"assignee":"%s","assignment_timestamp":%d,`, assignee, w.random.IntN(100)))
		l.put(statedb.Backlog, t.ID, body, "puts %s into the backlog for %s", w.name(t.ID), w.name(assignee))
	case 1: // the transactions of another block in one of its own
		old, err := ledger.ParseBlock(l.body(statedb.Bigchain, l.one(blocks)))
		if err == nil {
			b := ledger.NewBlock(l.key, time.Now().Unix(), old.Voters, old.Transactions)
			l.put(statedb.Bigchain, b.ID, b.Bytes(), "makes block %s of what %s holds", w.name(b.ID), w.name(old.ID))
		}
	case 2: // another's vote, as one on another block
		votes := l.store.tables[statedb.Votes].ids()
		if len(votes) > 0 {
			id := l.one(votes)
			_, voter, _ := strings.Cut(id, ":")
			to := ledger.VoteID(l.one(blocks), voter)
			l.put(statedb.Votes, to, l.body(statedb.Votes, id), "replays the %s as the %s", w.name(id), w.name(to))
		}
	}
}

func (l *liar) body(table, id string) []byte { return l.store.tables[table].get(id).Body }

// junk writes what means nothing where others will write.
func (l *liar) junk() {
	w := l.w
	members := w.pool.federation(w.members)
	junk := []byte(`{"junk":true}`)
	switch w.random.IntN(4) {
	case 0:
		id := ledger.VoteID(l.one(blocksIn(l.store)), l.one(members))
		l.put(statedb.Votes, id, junk, "writes junk at the %s", w.name(id))
	case 1:
		t := w.newTransaction()
		l.put(statedb.Backlog, t.ID, junk, "writes junk at the entry of %s", w.name(t.ID))
	case 2:
		id := ledger.Hash([]byte{byte(w.random.IntN(256))})
		l.put(statedb.Bigchain, id, junk, "writes junk as block %s", w.name(id))
	case 3:
		t := w.newTransaction()
		l.put(statedb.Transactions, t.ID, junk, "writes junk at the query row of %s", w.name(t.ID))
	}
}
