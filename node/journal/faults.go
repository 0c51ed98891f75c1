package journal

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Fault is something in the database that no honest, sound member wrote.
type Fault struct {
	Kind     string   `json:"kind"`     // a short word; a few there are
	Node     string   `json:"node"`     // the public key whose signatures prove it, "" where nothing is signed
	Block    string   `json:"block"`    // the block concerned, "" for none
	Document string   `json:"document"` // its table and id, or those of the first
	What     string   `json:"what"`     // one sentence
	Seen     int64    `json:"seen"`     // Unix seconds when this node met it first
	Evidence []string `json:"evidence"` // signed objects or documents as they were read, cut at maxEvidence bytes
}

const (
	// MaxFaults is how many faults of one kind are kept: the first ones, so that
	// nobody can bury the proof of a lie under garbage.
	MaxFaults = 200
	// maxEvidence bounds each piece of evidence. A vote has about 500 bytes.
	maxEvidence = 4 << 10
)

// faults is which faults are recorded.
type faults struct {
	mu    sync.Mutex
	last  uint64
	known map[string]bool
	count map[string]int
}

func (f Fault) name() string { return f.Kind + "\x00" + f.Node + "\x00" + f.Document }

func (j *Journal) loadFaults() error {
	j.faults.known, j.faults.count = map[string]bool{}, map[string]int{}
	return j.each(faultPrefix, func(name string, value []byte) error {
		f, err := readFault(value)
		if err != nil || len(name) != 8 {
			return errors.Join(err, fmt.Errorf("fault %x", name))
		}
		j.faults.last = binary.BigEndian.Uint64([]byte(name))
		j.faults.known[f.name()] = true
		j.faults.count[f.Kind]++
		return nil
	})
}

func readFault(value []byte) (f Fault, err error) {
	err = json.Unmarshal(value, &f)
	return f, err
}

// RecordFault keeps a fault, unless it is known or there are MaxFaults of its
// kind. room is how many more of the kind may follow it; fresh is false when it
// was not kept.
func (j *Journal) RecordFault(f Fault) (fresh bool, room int, err error) {
	j.faults.mu.Lock()
	defer j.faults.mu.Unlock()
	if j.faults.known[f.name()] || j.faults.count[f.Kind] >= MaxFaults {
		return false, 0, nil
	}
	for i, e := range f.Evidence {
		if len(e) > maxEvidence {
			f.Evidence[i] = fmt.Sprintf("%s… (%d bytes)", e[:maxEvidence], len(e))
		}
	}
	value, err := json.Marshal(f)
	if err != nil {
		return false, 0, err
	}
	name := binary.BigEndian.AppendUint64(nil, j.faults.last+1)
	if err := j.db.Set(key(faultPrefix, string(name)), value, pebble.Sync); err != nil {
		return false, 0, err
	}
	j.faults.last++
	j.faults.known[f.name()] = true
	j.faults.count[f.Kind]++
	return true, MaxFaults - j.faults.count[f.Kind], nil
}

// WithdrawFaults takes back those faults of a kind that turned out to prove
// nothing, and returns them. They are fresh again if they are met again.
func (j *Journal) WithdrawFaults(kind string, unproved func(Fault) bool) (gone []Fault, err error) {
	j.faults.mu.Lock()
	defer j.faults.mu.Unlock()
	if j.faults.count[kind] == 0 {
		return nil, nil
	}
	var keys [][]byte
	err = j.each(faultPrefix, func(name string, value []byte) error {
		f, err := readFault(value)
		if err == nil && f.Kind == kind && unproved(f) {
			gone, keys = append(gone, f), append(keys, key(faultPrefix, name))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, f := range gone {
		if err := j.db.Delete(keys[i], pebble.Sync); err != nil {
			return gone[:i], err
		}
		delete(j.faults.known, f.name())
		j.faults.count[kind]--
	}
	return gone, nil
}

// ErrBadCursor: a cursor that no page of the list gave.
var ErrBadCursor = errors.New("journal: malformed cursor")

// Faults lists what was recorded, oldest first. next is the cursor of the page
// that follows, "" when there is none.
func (j *Journal) Faults(cursor string, limit int) (list []Fault, next string, err error) {
	from := make([]byte, 8)
	if cursor != "" {
		if from, err = base64.RawURLEncoding.DecodeString(cursor); err != nil || len(from) != 8 || base64.RawURLEncoding.EncodeToString(from) != cursor {
			return nil, "", ErrBadCursor
		}
	}
	err = j.each(faultPrefix, func(name string, value []byte) error {
		if name <= string(from) || next != "" {
			return nil
		}
		if len(list) == limit {
			next = base64.RawURLEncoding.EncodeToString(from)
			return nil
		}
		f, err := readFault(value)
		list = append(list, f)
		copy(from, name)
		return err
	})
	return list, next, err
}
