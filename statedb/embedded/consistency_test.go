package embedded

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
)

// reporter is a test, or one round of a property.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkStore reads every key of every table and compares: each record has its
// one row in the feed and exactly the index keys that its body asks for, worked
// out here by a full parse; no row and no key stands alone. Of an index that is
// being built the keys beyond where it is may be missing.
func checkStore(t reporter, db *DB) {
	t.Helper()
	for _, name := range statedb.Tables {
		tab := db.ledger.Load().tables[name]
		rows, keys := map[uint64]string{}, map[string]bool{} // a key is true when it must be there
		each(t, db, tableKey(tab.code, kindDocument), func(key, value []byte) {
			id := string(key[idOffset:])
			r, err := readRecord(value)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, id, err)
			}
			if other, ok := rows[r.seq]; ok {
				t.Fatalf("%s: %s and %s share the sequence number %d", name, id, other, r.seq)
			}
			rows[r.seq] = id
			if r.seq > tab.head.Load() {
				t.Fatalf("%s: %s has the sequence number %d beyond the head", name, id, r.seq)
			}
			if !r.deleted {
				expectKeys(t, tab, id, r.body, keys)
			}
		})
		each(t, db, tableKey(tab.code, kindChange), func(key, value []byte) {
			seq := binary.BigEndian.Uint64(key[seqOffset:])
			c, err := readChange(value)
			if err != nil || rows[seq] != c.ID {
				t.Fatalf("%s: the feed has %+v at %d, the documents %q there; %v", name, c, seq, rows[seq], err)
			}
			delete(rows, seq)
		})
		if len(rows) > 0 {
			t.Fatalf("%s: the feed lacks %v", name, rows)
		}
		each(t, db, tableKey(tab.code, kindIndex), func(key, _ []byte) {
			if _, ok := keys[string(key)]; !ok {
				t.Fatalf("%s: the index key %q belongs to no document", name, key)
			}
			delete(keys, string(key))
		})
		maps.DeleteFunc(keys, func(_ string, must bool) bool { return !must })
		if len(keys) > 0 {
			t.Fatalf("%s: the indexes lack %d keys: %v", name, len(keys), keys)
		}
	}
}

func each(t reporter, db *DB, prefix []byte, visit func(key, value []byte)) {
	t.Helper()
	iter, err := db.store.pebble.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyAfter(prefix)})
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer iter.Close()
	for iter.First(); iter.Valid(); iter.Next() {
		visit(iter.Key(), iter.Value())
	}
	if err := iter.Error(); err != nil {
		t.Fatalf("%v", err)
	}
}

func expectKeys(t reporter, tab *table, id string, body []byte, keys map[string]bool) {
	t.Helper()
	v, err := canonical.Parse(body)
	if err != nil {
		t.Fatalf("%s holds %s: %v", id, body, err)
	}
	for _, ix := range tab.indexes.Load().indexes {
		key := appendIndexKey(nil, tab.code, ix.number)
		complete := ix.filter == nil || ix.filter.Match(v)
		for _, path := range ix.paths {
			field, ok := path.Lookup(v)
			complete = complete && ok
			key = mango.AppendKey(key, field)
		}
		if complete {
			keys[string(append(key, id...))] = ix.build == nil || id <= ix.build.after
		}
	}
}

// TestScannerAgreesWithParse: the fast scanner accepts no body that the full
// parse refuses, and finds the fields that it finds.
func TestScannerAgreesWithParse(t *testing.T) {
	for _, text := range scannerSeeds {
		checkScanner(t, []byte(text))
	}
}

var scannerSeeds = []string{
	`{}`, ` { } `, `{"a":1}`, `{"a":{"b":[1,{"c":"x"}]}}`, `{"a":[10,20,30]}`, `{"a":"esc\"aped\\ \u0041\n"}`,
	`{"b":1,"a":2}`, `{"a":1,"a":2}`, `{"\u0061":1}`, `{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":1e5}`, `{"a":1e999}`,
	`{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":-0.0}`, `{"a":tru}`, `{"a":null,"b":true,"c":false}`, `{"a":1,}`, `{"a" : 1 }x`,
	`{"a":[}`, `[1]`, `"a"`, ``, `{"a":"` + "\x01" + `"}`, `{"a":"` + "\xff" + `"}`, `{"_id":"x"}`, `{"_x":"x"}`, `{"a":{"_id":1}}`,
	`{"":{"":1}}`, `{"a":"\u000"}`, `{"a":{"b":{"c":{}}}}`, `{"a":123456789012345678901234567890.5}`,
}

func checkScanner(t *testing.T, body []byte) {
	t.Helper()
	root := &pathNode{slot: -1}
	paths := []mango.Path{{"a"}, {"a", "b"}, {"a", "1"}, {"a", "b", "1", "c"}, {""}}
	for i, path := range paths {
		root.add(path, i)
	}
	s := scanner{found: make([][]byte, len(paths))}
	if !s.object(body, root) {
		return
	}
	tree, err := checkBody(body)
	if err != nil {
		t.Fatalf("the scanner takes %q, the parser says %v", body, err)
	}
	for i, path := range paths {
		v, ok := path.Lookup(tree)
		if ok != (s.found[i] != nil) {
			t.Fatalf("%q: the scanner finds %q at %s, the parser %v", body, s.found[i], path, ok)
		}
		if !ok {
			continue
		}
		key, err := appendKeyOfText(nil, s.found[i])
		if err != nil || !bytes.Equal(key, mango.AppendKey(nil, v)) {
			t.Fatalf("%q: the key of %q at %s is %q, %v", body, s.found[i], path, key, err)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, text := range scannerSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkScanner(t, body) })
}

// TestUsualBodiesAreScanned: what the node writes must take the fast way.
func TestUsualBodiesAreScanned(t *testing.T) {
	writes, _ := transactions(0, 1)
	s := scanner{}
	for _, body := range [][]byte{writes[0].Body, []byte(`{"a":"ünïcödé \"quoted\" \u001F","n":-12.5,"o":{}}`)} {
		if !s.object(body, nil) {
			t.Errorf("the scanner leaves %s to the parser", body)
		}
	}
}

// TestIndexedPositions: a position in an array may be written with zeros and a
// sign, beside a plain one and beside the same text as a key.
func TestIndexedPositions(t *testing.T) {
	db := created(t)
	var indexes []statedb.Index
	for _, path := range []string{"a.1", "a.01", "a.+1"} {
		indexes = append(indexes, statedb.Index{Name: path, Fields: []statedb.SortField{{Field: path}}})
	}
	if err := db.DeployIndexes(t.Context(), statedb.Votes, indexes, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{
		{ID: "array", Body: []byte(`{"a":[1,2]}`)}, {ID: "object", Body: []byte(`{"a":{"01":2,"1":3}}`)},
	}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{"a.1": {"array", "object"}, "a.01": {"array", "object"}, "a.+1": {"array"}} {
		selector := canonical.ObjectOf(canonical.Member{Key: path, Value: canonical.ObjectOf(canonical.Member{Key: "$gt", Value: canonical.IntOf(0)})})
		page, err := db.Find(t.Context(), statedb.Votes, statedb.Query{Selector: selector, UseIndex: path, Limit: 5})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, d := range page.Documents {
			ids = append(ids, d.ID)
		}
		if !slices.Equal(ids, want) {
			t.Errorf("%s: %q, want %q", path, ids, want)
		}
	}
}

func FuzzBookmark(f *testing.F) {
	db := created(f)
	if err := db.DeployIndexes(f.Context(), statedb.Votes, []statedb.Index{{Name: "n", Fields: []statedb.SortField{{Field: "n"}}}}, nil); err != nil {
		f.Fatal(err)
	}
	var writes []statedb.Write
	for i := range 10 {
		writes = append(writes, statedb.Write{ID: fmt.Sprint("id", i), Body: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	if _, err := db.Write(f.Context(), statedb.Votes, writes); err != nil {
		f.Fatal(err)
	}
	selector, err := canonical.Parse([]byte(`{"n":{"$gt":1}}`))
	if err != nil {
		f.Fatal(err)
	}
	q := statedb.Query{Selector: selector, Limit: 2}
	page, err := db.Find(f.Context(), statedb.Votes, q)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(page.Bookmark)
	f.Add("")
	f.Add(page.Bookmark[1:])
	f.Add(keyset.Seal([]byte{0}, keyset.FindHash(statedb.Votes, q)))
	f.Fuzz(func(t *testing.T, bookmark string) {
		q.Bookmark = bookmark
		if _, err := db.Find(t.Context(), statedb.Votes, q); bookmark != "" && bookmark != page.Bookmark && err == nil {
			t.Errorf("Find took the bookmark %q", bookmark)
		}
		r := statedb.Range{Limit: 2, Bookmark: bookmark}
		if _, err := db.Range(t.Context(), statedb.Votes, r); bookmark != "" && err == nil {
			t.Errorf("Range took the bookmark %q", bookmark)
		}
	})
}
