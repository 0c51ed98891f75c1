package chainstate

import (
	"bytes"
	"slices"
	"sync"
)

// Bounds on the lists kept in memory.
const (
	maxListed     = 1000 // outputs of one list
	maxShortlists = 200
)

// shortlists keeps whole lists of unspent outputs whose scan stepped over many
// deleted keys and found few others, so that an owner with a long history who
// asks again and again pays for the answer and not for the history. Commits
// keep them true.
type shortlists struct {
	mu      sync.Mutex
	commits uint64
	lists   map[string][]listed // by public key, in order
}

// listed is an unspent output as it stands in the list: the key behind the
// public key, and the transaction.
type listed struct {
	rest [positionSize + 4]byte
	tx   id
}

func compareListed(a, b listed) int { return bytes.Compare(a.rest[:], b.rest[:]) }

// listChange says that an output came to an owner's list, or left it.
type listChange struct {
	owner   string
	output  listed
	unspent bool
}

// now returns a mark for keep, taken before a scan.
func (l *shortlists) now() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits
}

// keep keeps a whole list, unless something was committed since the mark: the
// scan may have missed it.
func (l *shortlists) keep(mark uint64, owner string, list []listed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mark != l.commits || len(list) > maxListed {
		return
	}
	if len(l.lists) >= maxShortlists {
		clear(l.lists)
	}
	l.lists[owner] = list
}

// committed applies what a commit changed. Doing so twice changes nothing.
func (l *shortlists) committed(changes []listChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commits++
	for _, c := range changes {
		list, ok := l.lists[c.owner]
		if !ok {
			continue
		}
		i, there := slices.BinarySearchFunc(list, c.output, compareListed)
		switch {
		case there && !c.unspent:
			list = slices.Delete(list, i, i+1)
		case !there && c.unspent && len(list) == maxListed:
			delete(l.lists, c.owner)
			continue
		case !there && c.unspent:
			list = slices.Insert(list, i, c.output)
		}
		l.lists[c.owner] = list
	}
}

// clear drops all lists: what they were read from is replaced.
func (l *shortlists) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commits++
	clear(l.lists)
}

// page returns up to limit outputs of a list that is kept, from those behind
// the key part after on, and whether more follow.
func (l *shortlists) page(owner string, after []byte, limit int) (page []listed, more, kept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.lists[owner]
	if !ok {
		return nil, false, false
	}
	start, found := slices.BinarySearchFunc(list, after, func(o listed, after []byte) int {
		return bytes.Compare(o.rest[:], after)
	})
	if found {
		start++
	}
	list = list[start:]
	return slices.Clone(list[:min(limit, len(list))]), len(list) > limit, true
}
