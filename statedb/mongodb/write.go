package mongodb

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// write is a Write made ready.
type write struct {
	place    int // in the caller's list
	id       string
	old      string // the revision to replace; "" creates
	new      string
	document bson.Raw
}

// Write creates with one insert and replaces with one bulk of updates. Writes of
// one id go one after the other.
func (db *DB) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	collection, _, err := db.collection(ctx, table)
	if err != nil {
		return nil, err
	}
	b := batch{db: db, collection: collection, results: make([]statedb.Result, len(writes))}
	for rest := b.prepare(writes); len(rest) > 0; {
		var round []write
		round, rest = firstOfEach(rest)
		if err := b.apply(ctx, round); err != nil {
			return nil, db.fault(ctx, err)
		}
	}
	return b.results, nil
}

// firstOfEach takes the first write of each id.
func firstOfEach(writes []write) (first, rest []write) {
	seen := make(map[string]bool, len(writes))
	for _, w := range writes {
		if seen[w.id] {
			rest = append(rest, w)
			continue
		}
		seen[w.id] = true
		first = append(first, w)
	}
	return first, rest
}

// batch is one Write with its outcomes.
type batch struct {
	db         *DB
	collection *mongo.Collection
	results    []statedb.Result
}

// prepare encodes the documents; what no server takes has its outcome then.
func (b *batch) prepare(writes []statedb.Write) []write {
	random := make([]byte, randomBytes*len(writes))
	rand.Read(random)
	ready := make([]write, 0, len(writes))
	for i, w := range writes {
		r := write{place: i, id: w.ID, old: w.Rev, new: nextRev(w.Rev, random[i*randomBytes:][:randomBytes])}
		var err error
		if r.document, err = b.db.encode(w, r.new); err != nil {
			b.results[i].Err = err
			continue
		}
		ready = append(ready, r)
	}
	return ready
}

// randomBytes of a revision make it one that was never there before.
const randomBytes = 8

// nextRev is the revision after another one: a count, and something random.
func nextRev(rev string, random []byte) string {
	generation, _, _ := strings.Cut(rev, "-")
	n, _ := strconv.ParseUint(generation, 10, 32) // a foreign one starts anew
	return strconv.FormatUint(n+1, 10) + "-" + hex.EncodeToString(random)
}

func (db *DB) encode(w statedb.Write, rev string) (bson.Raw, error) {
	if err := statedb.CheckID(w.ID); err != nil {
		return nil, err
	}
	if w.Delete {
		if w.Rev == "" {
			return nil, fmt.Errorf("%w: a deletion needs a revision", statedb.ErrConflict)
		}
		return encodeTombstone(w.ID, rev), nil
	}
	if len(w.Body) > maxDocumentBytes {
		return nil, fmt.Errorf("%w: it has %d bytes, MongoDB takes %d for sure", statedb.ErrTooLarge, len(w.Body), maxDocumentBytes)
	}
	body, err := canonical.Parse(w.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
	}
	if body.Kind() != canonical.Object {
		return nil, fmt.Errorf("%w: the body is no object", statedb.ErrBadDocument)
	}
	if err := db.Check(body); err != nil {
		return nil, fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
	}
	document, err := encodeDocument(w.ID, rev, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
	}
	return document, nil
}

// apply writes documents of different ids. An error says that the outcome is
// unknown.
func (b *batch) apply(ctx context.Context, writes []write) error {
	ctx, cancel := b.db.bound(ctx)
	defer cancel()
	var creates, replaces []write
	for _, w := range writes {
		if w.old == "" {
			creates = append(creates, w)
		} else {
			replaces = append(replaces, w)
		}
	}
	again, err := b.insert(ctx, creates)
	if err != nil {
		return err
	}
	return b.replace(ctx, append(replaces, again...))
}

// insert creates documents. It returns those in whose place there is a deleted
// one, as updates of that.
func (b *batch) insert(ctx context.Context, writes []write) (again []write, err error) {
	if len(writes) == 0 {
		return nil, nil
	}
	documents := make([]bson.Raw, len(writes))
	for i, w := range writes {
		documents[i] = w.document
		b.results[w.place].Rev = w.new
	}
	_, err = b.collection.InsertMany(ctx, documents, options.InsertMany().SetOrdered(false))
	duplicates, err := b.refused(writes, err)
	if err != nil || len(duplicates) == 0 {
		return nil, err
	}
	there, err := b.db.revisions(ctx, b.collection, idsOf(duplicates))
	if err != nil {
		return nil, err
	}
	for _, w := range duplicates {
		if r := there[w.id]; r.deleted {
			w.old = r.rev
			again = append(again, w)
			continue
		}
		b.conflict(w)
	}
	return again, nil
}

func (b *batch) conflict(w write) {
	b.results[w.place] = statedb.Result{Err: fmt.Errorf("%w: %s", statedb.ErrConflict, w.id)}
}

// refused gives the documents that the server refused their outcome, and
// returns those whose ids were there. Any other error is returned.
func (b *batch) refused(writes []write, err error) (duplicates []write, fault error) {
	var refusals mongo.BulkWriteException
	if !errors.As(err, &refusals) {
		return nil, err
	}
	if w := refusals.WriteConcernError; w != nil {
		return nil, fmt.Errorf("%w: it is not known whether what was written lasts: %s", statedb.ErrUnavailable, w.Message)
	}
	for _, refusal := range refusals.WriteErrors {
		if refusal.Index < 0 || refusal.Index >= len(writes) {
			return nil, malformed("an outcome of a document that was not sent")
		}
		w := writes[refusal.Index]
		switch {
		case refusal.Code == codeDuplicateKey:
			duplicates = append(duplicates, w)
		case slices.Contains(tooLarge, refusal.Code):
			b.results[w.place] = statedb.Result{Err: fmt.Errorf("%w: %s", statedb.ErrTooLarge, refusal.Message)}
		case slices.Contains(passing, int32(refusal.Code)) || refusal.Code == codeUnauthorized:
			return nil, refusal.WriteError
		default:
			b.results[w.place] = statedb.Result{Err: fmt.Errorf("%w: MongoDB refuses %s: %s", statedb.ErrBadDocument, w.id, refusal.Message)}
		}
	}
	return duplicates, nil
}

func idsOf(writes []write) []string {
	ids := make([]string, len(writes))
	for i, w := range writes {
		ids[i] = w.id
	}
	return ids
}

// replace replaces documents at their revisions. The server tells only how many
// it found; when that is not all of them, those that have their new revision
// are the ones. That is exact unless another one has replaced one of them since:
// then there are fewer of them than were found.
func (b *batch) replace(ctx context.Context, writes []write) error {
	if len(writes) == 0 {
		return nil
	}
	if b.db.server.substitute {
		lock := lockOf(b.db.address + "/" + b.db.opts.Name)
		lock.Lock()
		defer lock.Unlock()
	}
	if b.db.cautious() {
		var err error
		if writes, err = b.current(ctx, writes); err != nil || len(writes) == 0 {
			return err
		}
	}
	models := make([]mongo.WriteModel, len(writes))
	for i, w := range writes {
		b.results[w.place].Rev = w.new
		models[i] = mongo.NewReplaceOneModel().SetFilter(b.db.at(w)).SetReplacement(w.document)
	}
	answer, err := b.collection.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	if _, err = b.refused(writes, err); err != nil {
		return err
	}
	taken := slices.DeleteFunc(slices.Clone(writes), func(w write) bool { return b.results[w.place].Err != nil })
	missing := int64(len(taken)) - answer.MatchedCount
	if missing == 0 {
		return nil
	}
	there, err := b.db.revisions(ctx, b.collection, idsOf(taken))
	if err != nil {
		return err
	}
	for _, w := range taken {
		if there[w.id].rev != w.new {
			missing--
			b.conflict(w)
		}
	}
	if missing != 0 {
		return fmt.Errorf("%w: others replaced the same documents at the same moment", statedb.ErrUnavailable)
	}
	return nil
}

// at selects the document that a write replaces.
func (db *DB) at(w write) bson.D {
	filter := bson.D{{Key: fieldID, Value: w.id}}
	switch {
	case db.cautious(): // the revision was compared before
		return filter
	case w.old == foreignRev:
		text := bson.D{{Key: "$eq", Value: bson.A{bson.D{{Key: "$type", Value: "$" + fieldRev}}, "string"}}}
		empty := bson.D{{Key: "$eq", Value: bson.A{"$" + fieldRev, ""}}}
		none := bson.D{{Key: "$or", Value: bson.A{bson.D{{Key: "$not", Value: bson.A{text}}}, empty}}}
		return append(filter, bson.E{Key: "$expr", Value: none})
	}
	return append(filter, bson.E{Key: fieldRev, Value: w.old})
}

// current makes conflicts of the writes whose document is at another revision,
// and returns the others.
func (b *batch) current(ctx context.Context, writes []write) ([]write, error) {
	there, err := b.db.revisions(ctx, b.collection, idsOf(writes))
	if err != nil {
		return nil, err
	}
	var kept []write
	for _, w := range writes {
		if r, ok := there[w.id]; !ok || r.rev != w.old {
			b.conflict(w)
			continue
		}
		kept = append(kept, w)
	}
	return kept, nil
}

// locks are of the FerretDB databases that this process writes to.
var locks sync.Map

func lockOf(name string) *sync.Mutex {
	lock, _ := locks.LoadOrStore(name, &sync.Mutex{})
	return lock.(*sync.Mutex)
}

// Remove deletes documents, and what deletions have left of others.
func (db *DB) Remove(outer context.Context, table string, ids []string) error {
	collection, _, err := db.collection(outer, table)
	if err != nil || len(ids) == 0 {
		return err
	}
	ctx, cancel := db.bound(outer)
	defer cancel()
	for part := range slices.Chunk(ids, removeBatch) {
		if _, err := collection.DeleteMany(ctx, bson.D{{Key: fieldID, Value: bson.D{{Key: "$in", Value: part}}}}); err != nil {
			return db.fault(outer, err)
		}
	}
	return nil
}

// removeBatch is how many ids one command names, far below the size of a command.
const removeBatch = 10_000
