package chainstate

import (
	"slices"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// A disputed block is live: what its transactions spend, nothing but those very
// transactions may spend, and their outputs are there and cannot be spent until
// an undisputed block has them.

// Restore makes an invalid block live again, before it is decided Disputed.
func (u *Update) Restore(b *ledger.Block) error {
	block, _ := toID(b.ID)
	rec, err := u.block(block)
	if err != nil {
		return err
	}
	for i, t := range b.Transactions {
		held, err := u.get(idKey(blocksOfPrefix, rec.transactions[i].tx))
		if err != nil {
			return err
		}
		if err := u.enliven(block, rec, i, t, held); err != nil {
			return err
		}
	}
	return nil
}

// overtaken reports whether a disputed transaction can never become valid: a
// valid one spends what it spends, or it rests on one of which that is true.
func overtaken(r source, tx id) (bool, error) {
	seen := map[id]bool{}
	for next := []id{tx}; len(next) > 0; next = next[1:] {
		if seen[next[0]] {
			continue
		}
		seen[next[0]] = true
		value, err := r.get(idKey(txPrefix, next[0]))
		if err != nil || value == nil {
			return false, err
		}
		t, err := readTxRecord(value)
		if err != nil {
			return false, err
		}
		for _, ref := range t.spends {
			by, err := spenders(r, ref)
			if err != nil {
				return false, err
			}
			for _, s := range by {
				status, err := r.blockStatus(s.block)
				if err != nil || s.tx != next[0] && status == consensus.Valid {
					return err == nil, err
				}
			}
			origin, _ := toID(ref.TxID)
			status, _, err := txStatus(r, origin)
			if err != nil {
				return false, err
			}
			if status == consensus.Disputed {
				next = append(slices.Clip(next), origin)
			}
		}
	}
	return false, nil
}

// addRival notes that two live blocks hold the same transaction, or spend the
// same output.
func (u *Update) addRival(a, b id) error {
	status, err := u.blockStatus(b)
	if err != nil || a == b || status == consensus.Invalid {
		return err
	}
	if !u.rivals {
		u.rivals = true
		if err := u.set(metaKey(metaRivals), nil); err != nil {
			return err
		}
	}
	if err := u.set(key(rivalPrefix, a[:], b[:]), nil); err != nil {
		return err
	}
	return u.set(key(rivalPrefix, b[:], a[:]), nil)
}

// Contradiction is two votes of one member: valid for a block that is valid, and
// after it valid for another block that cannot be valid beside it.
type Contradiction struct{ First, Second *ledger.Vote }

// maxVoteWalk is how many of a member's votes may lie between two that
// contradict each other for that to be seen.
const maxVoteWalk = 1000

// Contradictions lists what proves that members lied about a block or a rival of
// it. Who votes valid for one, and then for the other, is honest only if the first
// was invalid to it by then; so the first of the two, as the member's own chain
// of votes tells, is valid here. voter is "" for every member. Reads what is
// committed.
func (s *State) Contradictions(blockID, voter string) ([]Contradiction, error) {
	if !s.hasRivals() {
		return nil, nil
	}
	block, _ := toID(blockID)
	v := s.View()
	defer v.Close()
	rivals, err := v.rivalsOf(block)
	if err != nil || len(rivals) == 0 {
		return nil, err
	}
	voters := []string{voter}
	if voter == "" {
		epoch, err := s.EpochOf(blockID)
		if err != nil {
			return nil, err
		}
		voters = s.Epochs()[epoch].Members
	}
	var found []Contradiction
	for _, rival := range rivals {
		for _, pair := range [][2]id{{block, rival}, {rival, block}} {
			if status, err := s.blockStatus(pair[0]); err != nil || status != consensus.Valid {
				if err != nil {
					return nil, err
				}
				continue
			}
			for _, voter := range voters {
				c, err := v.contradiction(pair[0], pair[1], voter)
				if err != nil {
					return nil, err
				}
				if c.First != nil {
					found = append(found, c)
				}
			}
		}
	}
	return found, nil
}

// contradiction tells whether a member voted valid for one block and after that
// for another.
func (v *View) contradiction(first, second id, voter string) (Contradiction, error) {
	one, err := v.vote(first, voter)
	if err != nil || one == nil || !one.Valid {
		return Contradiction{}, err
	}
	two, err := v.vote(second, voter)
	if err != nil || two == nil || !two.Valid {
		return Contradiction{}, err
	}
	at := two
	for range maxVoteWalk {
		if at.PreviousBlock == one.BlockID {
			return Contradiction{one, two}, nil
		}
		previous, _ := toID(at.PreviousBlock)
		if at, err = v.vote(previous, voter); err != nil || at == nil {
			return Contradiction{}, err
		}
	}
	return Contradiction{}, nil
}

// vote returns the first vote of a member on a block, nil for none.
func (v *View) vote(block id, voter string) (*ledger.Vote, error) {
	value, err := v.get(key(votePrefix, block[:], []byte(voter)))
	if err != nil || value == nil {
		return nil, err
	}
	rec, err := readVoteRecord(value, block, voter)
	return rec.first, err
}

func (v *View) rivalsOf(block id) ([]id, error) {
	prefix := idKey(rivalPrefix, block)
	it, err := v.g.NewIter(iterOptions(prefix))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var list []id
	for ok := it.First(); ok; ok = it.Next() {
		list = append(list, id(it.Key()[len(prefix):]))
	}
	return list, it.Error()
}

// hasRivals reports whether there are two blocks that contradict each other.
func (s *State) hasRivals() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rivals
}
