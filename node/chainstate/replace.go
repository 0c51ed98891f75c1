package chainstate

import (
	"sync"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/kv"
)

// generation is a store that a State reads and writes, until another takes its
// place.
type generation struct {
	*kv.Store
	users sync.WaitGroup // nobody joins once it is not the current one
}

// use returns the current store; the caller says users.Done when it is done.
func (s *State) use() *generation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.current.users.Add(1)
	return s.current
}

// Replace puts what next holds in the place of what s holds, for readers at
// once. next must not be used any more. retire waits for the reads of the
// former store that are under way and closes it.
func (s *State) Replace(next *State) (retire func() error) {
	next.tidier.stop()
	s.writer.Lock()
	defer s.writer.Unlock()
	s.mu.Lock()
	former := s.current
	s.current, s.genesis, s.epochs = next.current, next.genesis, next.epochs
	s.statuses, s.liars, s.rivals = map[id]consensus.Status{}, next.liars, next.rivals
	s.disputes++
	s.mu.Unlock()
	s.arrivals, s.decisions, s.early = next.arrivals, next.decisions, next.early
	s.short.clear()
	return func() error {
		former.users.Wait()
		return former.Close()
	}
}

// EffectDone takes a decision off the list of those to be carried out, unless
// there is another one under its number, as after Replace.
func (u *Update) EffectDone(number uint64, blockID string) error {
	k := sequenceKey(effectPrefix, number)
	value, err := u.get(k)
	if err != nil || len(value) != idSize || id(value).String() != blockID {
		return err
	}
	return u.del(k)
}
