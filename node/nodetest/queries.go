package nodetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/httpapi/client"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// owners is how many different values asset.data.owner has.
	owners = 20
	// spacing is how far apart the serials of the first assets of an owner
	// are, so that those posted later fall between them.
	spacing = 1000
	// newcomers is how many assets become valid between two pages.
	newcomers = 3
)

// Queries tests queries over HTTP on a database that does not exist yet: an
// operator's own index is deployed over so many assets, 10,000 where the
// database can be measured by it and a tenth with -short, and a query pages
// through all its matches while posts go on.
func Queries(t *testing.T, db statedb.DB, count int) {
	r := start(t, db)
	q := &queries{run: r, owner: ledger.GenerateKeyPair(), posted: map[string]*ledger.Transaction{}}
	if testing.Short() {
		count /= 10
	}
	assets := make([]*ledger.Transaction, count)
	for i := range assets {
		assets[i] = q.asset(i%owners, i/owners*spacing)
	}
	r.post(t, assets)
	r.awaitQueryable(t, assets)
	q.first = assets

	t.Run("WithoutIndex", q.withoutIndex)
	index := statedb.Index{Name: "by_owner", DDoc: "own", Fields: []statedb.SortField{{Field: "asset.data.owner"}, {Field: "asset.data.serial"}}}
	if err := db.DeployIndexes(r.ctx, statedb.Transactions, []statedb.Index{index}, nil); err != nil {
		t.Fatal(err)
	}
	t.Run("Ascending", func(t *testing.T) { q.pageWhilePosting(t, 3, false) })
	t.Run("Descending", func(t *testing.T) { q.pageWhilePosting(t, 4, true) })
	t.Run("Refusals", q.refusals)
	t.Run("Ranges", q.ranges)
	t.Run("Forgeries", q.forgeries)
}

// queries is what is known of the ledger under test.
type queries struct {
	*run
	owner ledger.KeyPair
	first []*ledger.Transaction // the assets there were before any query

	mu     sync.Mutex
	posted map[string]*ledger.Transaction // by id
	later  int                            // how many were posted after the first
}

func name(owner int) string { return fmt.Sprintf("owner%02d", owner) }

// asset makes an asset; beside owner and serial, data varies.
func (q *queries) asset(owner, serial int) *ledger.Transaction {
	data := canonical.ObjectOf(
		canonical.Member{Key: "owner", Value: canonical.StringOf(name(owner))},
		canonical.Member{Key: "serial", Value: canonical.IntOf(int64(serial))},
	)
	switch serial / spacing % 4 {
	case 1:
		data = data.With("weight", canonical.FloatOf(float64(serial)+0.7))
	case 2:
		data = data.With("tags", canonical.StringsOf([]string{"ä\u2028", `"quoted"`, ""}))
	case 3:
		data = data.With("inner", canonical.ObjectOf(canonical.Member{Key: "deep", Value: canonical.ArrayOf(canonical.BoolOf(true), canonical.Value{})}))
	}
	tx, err := ledger.NewCreate([]ledger.KeyPair{q.owner}, data, canonical.Value{}, ledger.PayTo(q.owner.Public, 1))
	if err != nil {
		panic(err) // the data is sound
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.posted[tx.ID] = tx
	return tx
}

func ofOwner(owner int) map[string]any {
	return map[string]any{"asset.data.owner": name(owner), "asset.data.serial": map[string]any{"$gte": 0}}
}

// read checks a document against what was posted and gives id and serial.
func (q *queries) read(t *testing.T, doc []byte) (id string, serial int64) {
	t.Helper()
	tree, err := canonical.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := tree.Get("_id")
	block, _ := tree.Get("block_id")
	q.mu.Lock()
	tx := q.posted[v.Text()]
	q.mu.Unlock()
	if tx == nil || !ledger.IsID(block.Text()) || string(tree.Without("_id", "block_id").Bytes()) != string(tx.Bytes()) {
		t.Fatalf("got a document that was not posted: %s", doc)
	}
	data, _ := tree.Get("asset")
	data, _ = data.Get("data")
	number, _ := data.Get("serial")
	serial, _ = number.Int64()
	return tx.ID, serial
}

// withoutIndex: the query works by a scan, which is told, and explain says
// which index would spare it.
func (q *queries) withoutIndex(t *testing.T) {
	ask := client.Query{Table: statedb.Transactions, Selector: ofOwner(1), Limit: 10}
	page, err := q.client.QueryPage(q.ctx, ask)
	if err != nil || len(page.Docs) == 0 || page.Warning == "" {
		t.Errorf("got %d documents, warning %q, %v, want some and a warning", len(page.Docs), page.Warning, err)
	}
	plan, err := q.client.Explain(q.ctx, ask)
	if err != nil || !plan.Scan || plan.Index != nil || !slices.Equal(plan.IndexAdvised, []string{"asset.data.owner", "asset.data.serial"}) {
		t.Errorf("explain: got %+v, %v", plan, err)
	}
}

// postNewcomers posts assets of an owner with serials all over the place, until
// enough is closed, and tells when each is valid.
func (q *queries) postNewcomers(t *testing.T, owner int, valid chan<- struct{}, enough <-chan struct{}) {
	defer close(valid)
	span := len(q.first) / owners * spacing
	for {
		q.mu.Lock()
		q.later++
		serial := (q.later*7919)%span/spacing*spacing + 1 + q.later%(spacing-1)
		q.mu.Unlock()
		tx := q.asset(owner, serial)
		if ok, err := q.client.Post(q.ctx, tx, client.Commit); err != nil || !ok {
			t.Errorf("posting between pages: valid is %v, %v", ok, err)
			return
		}
		select {
		case valid <- struct{}{}:
		case <-enough:
			return
		}
	}
}

// pageWhilePosting: what was there before the first page comes exactly once
// and in order, and nothing comes twice.
func (q *queries) pageWhilePosting(t *testing.T, owner int, descending bool) {
	sort := []client.Sort{{Field: "asset.data.owner", Descending: descending}, {Field: "asset.data.serial", Descending: descending}}
	ask := client.Query{Table: statedb.Transactions, Selector: ofOwner(owner), Sort: sort, Limit: 20}
	plan, err := q.client.Explain(q.ctx, ask)
	if err != nil || plan.Index == nil || plan.Index.Name != "by_owner" || plan.Scan {
		t.Fatalf("explain: got %+v, %v, want the index by_owner", plan, err)
	}
	valid, enough := make(chan struct{}), make(chan struct{})
	stop := sync.OnceFunc(func() {
		close(enough)
		for range valid { // until the last post is answered
		}
	})
	defer stop()
	go q.postNewcomers(t, owner, valid, enough)
	var before, seen []string
	for i, tx := range q.first {
		if i%owners == owner {
			before = append(before, tx.ID)
		}
	}
	last, pages := int64(-1), 0
	for ; ; pages++ {
		page, err := q.client.QueryPage(q.ctx, ask)
		if err != nil {
			t.Fatal(err)
		}
		if page.Warning != "" {
			t.Errorf("page %d: warning %q", pages, page.Warning)
		}
		for _, doc := range page.Docs {
			id, serial := q.read(t, doc)
			if wrong := last >= 0 && serial != last && (serial < last) != descending; wrong {
				t.Errorf("page %d: serial %d after %d", pages, serial, last)
			}
			last = serial
			seen = append(seen, id)
		}
		if ask.Bookmark = page.Bookmark; ask.Bookmark == "" {
			break
		}
		for range newcomers {
			if _, posting := <-valid; !posting {
				t.FailNow() // why was told
			}
		}
	}
	stop()
	counts := map[string]int{}
	for _, id := range seen {
		if counts[id]++; counts[id] == 2 {
			t.Errorf("transaction %s came twice", id)
		}
	}
	for _, id := range before {
		if counts[id] == 0 {
			t.Errorf("transaction %s was skipped", id)
		}
	}
	posted := q.postedFor(owner)
	t.Logf("%d pages, %d documents, of which %d were there before; %d were posted meanwhile",
		pages+1, len(seen), len(before), len(posted)-len(before))

	// When posts have ended, all of them are there.
	q.awaitQueryable(t, posted)
	ask.Bookmark = ""
	all := 0
	for doc, err := range q.client.Query(q.ctx, ask) {
		if err != nil {
			t.Fatal(err)
		}
		q.read(t, doc)
		all++
	}
	if all != len(posted) {
		t.Errorf("in the end: got %d documents, want %d", all, len(posted))
	}
}

// postedFor lists all assets of an owner.
func (q *queries) postedFor(owner int) []*ledger.Transaction {
	q.mu.Lock()
	defer q.mu.Unlock()
	var list []*ledger.Transaction
	for _, tx := range q.posted {
		if strings.Contains(string(tx.Bytes()), `"owner":"`+name(owner)+`"`) {
			list = append(list, tx)
		}
	}
	return list
}

// refusals: what is wrong with a query is a 400 on every database.
func (q *queries) refusals(t *testing.T) {
	ask := client.Query{Table: statedb.Transactions, Selector: ofOwner(5), Limit: 5}
	page, err := q.client.QueryPage(q.ctx, ask)
	if err != nil || page.Bookmark == "" {
		t.Fatalf("got bookmark %q, %v", page.Bookmark, err)
	}
	ask.Bookmark = page.Bookmark
	ask.Limit = 7
	if _, err := q.client.QueryPage(q.ctx, ask); err != nil {
		t.Errorf("another limit: %v", err)
	}
	empty := ""
	for what, change := range map[string]func(*client.Query){
		"foreign bookmark: selector":  func(q *client.Query) { q.Selector = ofOwner(6) },
		"foreign bookmark: sort":      func(q *client.Query) { q.Sort = []client.Sort{{Field: "asset.data.owner"}} },
		"foreign bookmark: fields":    func(q *client.Query) { q.Fields = []string{"_id"} },
		"foreign bookmark: table":     func(q *client.Query) { q.Table = statedb.Backlog },
		"foreign bookmark: use_index": func(q *client.Query) { q.UseIndex = "by_owner" },
		"foreign bookmark: range":     func(q *client.Query) { q.Selector, q.StartKey = nil, &empty },
		"rubbish for a bookmark":      func(q *client.Query) { q.Bookmark = "rubbish" },
		"sort without an index":       func(q *client.Query) { q.Bookmark, q.Sort = "", []client.Sort{{Field: "metadata.x"}} },
		"index that is not there":     func(q *client.Query) { q.Bookmark, q.UseIndex = "", "nosuch" },
		"index that does not fit":     func(q *client.Query) { q.Bookmark, q.UseIndex = "", "by_block" },
		"malformed selector":          func(q *client.Query) { q.Bookmark, q.Selector = "", map[string]any{"a": map[string]any{"$in": 1}} },
	} {
		wrong := ask
		change(&wrong)
		_, err := q.client.QueryPage(q.ctx, wrong)
		var e *client.Error
		if !errors.As(err, &e) || e.Status != 400 || e.Message == "" {
			t.Errorf("%s: got error %v, want a 400", what, err)
		}
	}
}

// ranges pages through ids.
func (q *queries) ranges(t *testing.T) {
	var ids []string
	for _, tx := range q.first {
		ids = append(ids, tx.ID)
	}
	slices.Sort(ids)
	start, end := ids[100], ids[160] // hexadecimal sorts alike in every database
	var got []string
	for doc, err := range q.client.Query(q.ctx, client.Query{Table: statedb.Transactions, StartKey: &start, EndKey: &end, Limit: 7}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(doc), `"operation":"GENESIS"`) {
			continue // the ledger's own first one
		}
		if id, _ := q.read(t, doc); slices.Contains(ids, id) {
			got = append(got, id)
		}
	}
	if !slices.Equal(got, ids[100:160]) {
		t.Errorf("got %d of the first assets, want 60 in order: %q", len(got), got)
	}
}

// forgeries: documents that a stranger writes into the database are not served,
// and those around them are.
func (q *queries) forgeries(t *testing.T) {
	const owner = 8
	ask := client.Query{Table: statedb.Transactions, Selector: ofOwner(owner), Fields: []string{"_id"}, Limit: 4}
	before := q.ids(t, ask)
	overwritten := q.first[owner]
	documents, err := q.db.Get(q.ctx, statedb.Transactions, []string{overwritten.ID})
	if err != nil {
		t.Fatal(err)
	}
	altered := strings.Replace(string(documents[0].Body), `"serial":0`, `"serial":5`, 1)
	never := q.asset(owner, 7) // sound by itself, but never posted
	results, err := q.db.Write(q.ctx, statedb.Transactions, []statedb.Write{
		{ID: overwritten.ID, Rev: documents[0].Rev, Body: []byte(altered)},
		{ID: never.ID, Body: never.Bytes()},
		{ID: "zz", Body: fmt.Appendf(nil, `{"asset":{"data":{"owner":%q,"serial":9}}}`, name(owner))},
	})
	for i := range results {
		err = errors.Join(err, results[i].Err)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(slices.Clone(before), func(doc string) bool { return strings.Contains(doc, overwritten.ID) })
	if got := q.ids(t, ask); len(want) == len(before) || !slices.Equal(got, want) {
		t.Errorf("got %d documents, want the %d that are true", len(got), len(want))
	}
}

// ids reads all pages of a query as text.
func (q *queries) ids(t *testing.T, ask client.Query) []string {
	t.Helper()
	var list []string
	for doc, err := range q.client.Query(q.ctx, ask) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(doc))
	}
	return list
}
