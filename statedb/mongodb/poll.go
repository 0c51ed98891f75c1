package mongodb

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/couchledger/couchledger/statedb"
)

const (
	// pollShare is how much longer than a look at the collection took the pause
	// after it is, so that looking takes a part of the server only.
	pollShare = 4
	// leastPause and longestPause bound it.
	leastPause   = 20 * time.Millisecond
	longestPause = 10 * time.Second
)

// poll follows a collection by reading the ids and revisions of all documents
// again and again, and telling of those that differ from the time before. It
// costs the server a scan each time and the node some 100 bytes a document.
// Of documents that were removed it tells nothing. A token is good for nothing
// but telling the collection: after a resume all rows come again.
type poll struct {
	db    *DB
	table string
	at    place

	seen, fresh map[docKey]uint64 // revisions by id, hashed; of the look before and of this one
	cursor      *mongo.Cursor     // of the look that is under way
	began       time.Time
	pause       time.Duration // before the next look
	caughtUp    bool          // that was told once
}

// docKey is an id, hashed. That two ids have one is out of reach.
type docKey [16]byte

func keyOf(id string) docKey {
	sum := sha256.Sum256([]byte(id))
	return docKey(sum[:16])
}

func revOf(rev string) uint64 {
	sum := sha256.Sum256([]byte(rev))
	return binary.LittleEndian.Uint64(sum[:])
}

func (p *poll) place() place { return p.at }

func (p *poll) close() {
	if p.cursor != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.db.opts.ConnectTimeout)
		defer cancel()
		_ = p.cursor.Close(ctx) // the server forgets it by itself, too
		p.cursor = nil
	}
}

func (p *poll) next(ctx context.Context) (statedb.Batch, error) {
	var batch statedb.Batch
	for {
		if p.cursor == nil {
			if err := p.look(ctx); err != nil {
				return batch, err
			}
		}
		ended, err := p.read(ctx, &batch)
		if err != nil {
			return batch, err
		}
		if ended {
			batch.CaughtUp = true
			if len(batch.Changes) > 0 || !p.caughtUp {
				p.caughtUp = true
				return batch, nil
			}
		} else {
			return batch, nil
		}
	}
}

// look begins to read the collection, when it is time.
func (p *poll) look(ctx context.Context) error {
	if err := statedb.Sleep(ctx, p.pause); err != nil {
		return err
	}
	if err := p.sameCollection(ctx); err != nil {
		return err
	}
	bounded, cancel := p.within(ctx)
	defer cancel()
	p.began = time.Now()
	var err error
	p.cursor, err = p.db.mongo.Collection(p.table).Find(bounded, bson.D{}, findOptions(onlyRevisions).SetBatchSize(feedBatch))
	p.fresh = make(map[docKey]uint64, len(p.seen))
	return err
}

// within bounds one command by the time after which the server counts as lost.
func (p *poll) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(p.db.opts.RequestTimeout, p.db.opts.patience))
}

// sameCollection makes sure that the collection is the one that is followed:
// one that was dropped reads as empty.
func (p *poll) sameCollection(ctx context.Context) error {
	bounded, cancel := p.within(ctx)
	defer cancel()
	there, err := p.db.identities(bounded)
	if err != nil {
		return err
	}
	p.db.compare(there)
	if there[p.table] != p.at.Collection {
		return fmt.Errorf("%w: the collection %s.%s was dropped or replaced", statedb.ErrNoDatabase, p.db.opts.Name, p.table)
	}
	return nil
}

// read takes changes until the batch is full, or the look ends.
func (p *poll) read(ctx context.Context, batch *statedb.Batch) (ended bool, err error) {
	for len(batch.Changes) < feedBatch {
		more, err := p.advance(ctx)
		if err != nil {
			return false, err
		}
		if !more {
			p.close()
			p.seen = p.fresh
			p.pause = min(max(pollShare*time.Since(p.began), leastPause), longestPause)
			return true, nil
		}
		r, ok, err := readRecord(p.cursor.Current)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		key, rev := keyOf(r.id), revOf(r.rev)
		p.fresh[key] = rev
		if before, known := p.seen[key]; !known || before != rev {
			batch.Changes = append(batch.Changes, r.change())
		}
	}
	return false, nil
}

func (p *poll) advance(ctx context.Context) (bool, error) {
	bounded, cancel := p.within(ctx)
	defer cancel()
	more := p.cursor.Next(bounded)
	return more, p.cursor.Err()
}
