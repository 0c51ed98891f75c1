package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/statedb"
)

// queryAnswer is the body of a query's answer.
type queryAnswer struct {
	Docs           []map[string]any
	Bookmark       *string
	Warning        *string
	ExecutionStats map[string]float64 `json:"execution_stats"`
}

func ask(t testing.TB, base, body string) queryAnswer {
	t.Helper()
	got := do(t, http.MethodPost, base+"/api/v1/query", body)
	if got.status != 200 {
		t.Fatalf("%s: got %d %s", body, got.status, got.body)
	}
	var a queryAnswer
	decode(t, got.body, &a)
	if a.Docs == nil || a.Bookmark == nil {
		t.Fatalf("%s: got %s, want docs and bookmark", body, got.body)
	}
	return a
}

// TestQueryPages follows bookmarks to the end, with limits that differ.
func TestQueryPages(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	var ids []string
	for i := range 30 {
		ids = append(ids, post(t, base, fakenode.CreateTx(someKey, i, 1)))
	}
	slices.Sort(ids)
	for _, kind := range []string{
		`"selector":{"operation":"CREATE"}`, `"start_key":"","fields":["_id","asset"]`, `"selector":{},"fields":["_id"],"sort":[]`,
	} {
		bookmark, limit := "", ""
		var got []string
		for page := range 100 {
			a := ask(t, base, fmt.Sprintf(`{"table":"transactions",%s,"bookmark":%q%s}`, kind, bookmark, limit))
			if most := []int{25, 1, 2, 3}[min(page, 3)]; len(a.Docs) > most {
				t.Errorf("%s: got %d documents, want %d at most", kind, len(a.Docs), most)
			}
			for _, d := range a.Docs {
				got = append(got, d["_id"].(string))
			}
			if bookmark = *a.Bookmark; bookmark == "" {
				break
			}
			limit = fmt.Sprintf(`,"limit":%d`, min(page+1, 3))
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%s: got %d ids, want %d in order", kind, len(got), len(ids))
		}
	}
	a := ask(t, base, fmt.Sprintf(`{"table":"transactions","start_key":%q,"end_key":%q}`, ids[3], ids[6]))
	if len(a.Docs) != 3 || a.Docs[0]["_id"] != ids[3] || a.Warning != nil || a.ExecutionStats != nil {
		t.Errorf("a range: got %+v", a)
	}
	a = ask(t, base, `{"table":"transactions","selector":{},"limit":2,"execution_stats":true}`)
	stats := a.ExecutionStats
	if _, keys := stats["total_keys_examined"]; keys || stats["total_docs_examined"] != 30 || stats["results_returned"] != 2 || stats["execution_time_ms"] <= 0 {
		t.Errorf("got execution_stats %v", stats)
	}
	if a.Warning == nil || *a.Warning == "" {
		t.Error("a scan without a warning")
	}
}

// TestQueryBookmarksAreBound: a bookmark is good for the query that gave it and
// for no other.
func TestQueryBookmarksAreBound(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	for i := range 5 {
		post(t, base, fakenode.CreateTx(someKey, i, 1))
	}
	queries := []string{
		`"table":"transactions","selector":{}`,
		`"table":"backlog","selector":{}`,
		`"table":"transactions","selector":{"id":{"$gt":null}}`,
		`"table":"transactions","selector":{},"fields":["id"]`,
		`"table":"transactions","selector":{},"fields":["asset"]`,
		`"table":"transactions","selector":{},"use_index":"x"`,
		`"table":"transactions","selector":{},"use_index":["d","x"]`,
		`"table":"transactions","start_key":""`,
		`"table":"transactions","start_key":"0"`,
		`"table":"transactions","end_key":"z"`,
	}
	for i, q := range queries {
		if strings.Contains(q, "backlog") {
			continue // empty, so it has no second page
		}
		bookmark := *ask(t, base, "{"+q+`,"limit":2}`).Bookmark
		if bookmark == "" {
			t.Fatalf("%s: no bookmark", q)
		}
		for j, other := range queries {
			body := fmt.Sprintf(`{%s,"bookmark":%q,"limit":3,"execution_stats":true}`, other, bookmark)
			if i == j {
				ask(t, base, body)
				continue
			}
			wantError(t, "bookmark of "+q+" with "+other, do(t, http.MethodPost, base+"/api/v1/query", body), 400, "bookmark")
		}
	}
	list := nextLink(get(t, base+"/api/v1/outputs?limit=2&public_key="+someKey))
	_, bookmark, _ := strings.Cut(list, "bookmark=")
	body := fmt.Sprintf(`{"table":"transactions","selector":{},"bookmark":%q}`, bookmark)
	wantError(t, "a list's bookmark", do(t, http.MethodPost, base+"/api/v1/query", body), 400, "bookmark")
}

func TestBadQueries(t *testing.T) {
	n := fakenode.New()
	_, base := start(t, n, Options{})
	const table = `{"table":"transactions",`
	for _, test := range []struct {
		body   string
		status int
		names  string // what the message must hold
	}{
		{``, 400, "JSON"},
		{`{`, 400, "JSON"},
		{`[]`, 400, "object"},
		{`{"table":"transactions","table":"votes","selector":{}}`, 400, "table"},
		{table + `"selector":{"a":1,"a":2}}`, 400, "duplicate"},
		{`{"selector":{}}`, 400, "table"},
		{`{"table":"blocks","selector":{}}`, 400, "bigchain"},
		{`{"table":1,"selector":{}}`, 400, "table"},
		{table + `"skip":1,"selector":{}}`, 400, `"skip"`},
		{table + `"limit":1}`, 400, "selector"},
		{table + `"sort":["a"]}`, 400, "selector"},
		{table + `"selector":[]}`, 400, "selector"},
		{table + `"selector":{"asset.data":{"$in":1}}}`, 400, "asset.data.$in"},
		{table + `"selector":{"a":{"$no":1}}}`, 400, "$no"},
		{table + `"selector":{},"start_key":"a"}`, 400, "start_key"},
		{table + `"selector":{},"end_key":"a"}`, 400, "end_key"},
		{table + `"sort":["a"],"end_key":"a"}`, 400, "sort"},
		{table + `"use_index":"a","start_key":"a"}`, 400, "use_index"},
		{table + `"start_key":1}`, 400, "start_key"},
		{table + `"end_key":null}`, 400, "end_key"},
		{table + `"selector":{},"sort":"a"}`, 400, "sort"},
		{table + `"selector":{},"sort":["a",1]}`, 400, "sort.1"},
		{table + `"selector":{},"sort":[{"a":"up"}]}`, 400, "sort.0"},
		{table + `"selector":{},"sort":[{"a":"asc","b":"asc"}]}`, 400, "sort.0"},
		{table + `"selector":{},"sort":[{"a":1}]}`, 400, "sort.0"},
		{table + `"selector":{},"sort":["a"]}`, 400, "no usable index"},
		{table + `"selector":{},"fields":"a"}`, 400, "fields"},
		{table + `"selector":{},"fields":["a",{}]}`, 400, "fields.1"},
		{table + `"selector":{},"fields":["a..b"]}`, 400, "a..b"},
		{table + `"selector":{},"limit":0}`, 400, "limit"},
		{table + `"selector":{},"limit":-1}`, 400, "limit"},
		{table + `"selector":{},"limit":1.5}`, 400, "limit"},
		{table + `"selector":{},"limit":"1"}`, 400, "limit"},
		{table + `"selector":{},"limit":99999999999999999999}`, 400, "limit"},
		{table + `"selector":{},"bookmark":1}`, 400, "bookmark"},
		{table + `"selector":{},"bookmark":"rubbish"}`, 400, "bookmark"},
		{table + `"selector":{},"use_index":1}`, 400, "use_index"},
		{table + `"selector":{},"use_index":""}`, 400, "use_index"},
		{table + `"selector":{},"use_index":[]}`, 400, "use_index"},
		{table + `"selector":{},"use_index":["a",""]}`, 400, "use_index"},
		{table + `"selector":{},"use_index":["a","b","c"]}`, 400, "use_index"},
		{table + `"selector":{},"use_index":["a",1]}`, 400, "use_index.1"},
		{table + `"selector":{},"use_index":"_design/"}`, 400, "use_index"},
		{table + `"selector":{},"execution_stats":1}`, 400, "execution_stats"},
		{table + `"selector":{"a":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}}`, 400, "JSON"},
		{table + `"selector":{"a":[` + strings.Repeat("1,", 30_000) + `1]}}`, 400, "JSON"},
		{table + `"selector":{"a":"` + strings.Repeat("x", maxQueryBytes) + `"}}`, 413, "too large"},
	} {
		what := test.body[:min(len(test.body), 100)]
		for _, path := range []string{"/api/v1/query", "/api/v1/query/explain/"} {
			wantError(t, what, do(t, http.MethodPost, base+path, test.body), test.status, test.names)
		}
	}
	wantError(t, "a query parameter", do(t, http.MethodPost, base+"/api/v1/query?limit=1", table+`"selector":{}}`), 400, "limit")
	wantError(t, "GET", get(t, base+"/api/v1/query"), 405, "method")
	ask(t, base, table+`"selector":{},"limit":9999999999}`) // as many as the node gives
}

// TestQueryFaults: what the node says of a query becomes its status and text.
func TestQueryFaults(t *testing.T) {
	n := fakenode.New()
	var fault error
	n.Hook = func(string, string) error { return fault }
	_, base := start(t, n, Options{})
	for _, test := range []struct {
		err     error
		status  int
		message string
	}{
		{fmt.Errorf("%w: a.$in: needs an array", statedb.ErrBadQuery), 400, "Invalid query: a.$in: needs an array"},
		{fmt.Errorf("%w: none gives the order asked for", statedb.ErrNoIndex), 400, "Invalid query: no usable index: none gives the order asked for"},
		{fmt.Errorf("%w; an index on a would serve it", statedb.ErrScan), 400, "Invalid query: the query would read the whole table; an index on a would serve it"},
		{node.ErrBadCursor, 400, "bookmark"},
		{fmt.Errorf("%w: by_serial, 10 of 100", statedb.ErrBuilding), 503, "an index that the query needs is being built"},
		{fmt.Errorf("find: %w", statedb.ErrUnavailable), 503, "the database does not answer"},
		{fmt.Errorf("%w: it catches up", node.ErrNotReady), 503, "it catches up"},
		{errors.New("a secret"), 500, "internal error"},
	} {
		fault = test.err
		for _, path := range []string{"/api/v1/query", "/api/v1/query/explain"} {
			got := do(t, http.MethodPost, base+path, `{"table":"votes","selector":{}}`)
			wantError(t, test.err.Error(), got, test.status, test.message)
			if retry := got.header.Get("Retry-After"); (test.status == 503) != (retry != "") {
				t.Errorf("%v: got Retry-After %q", test.err, retry)
			}
		}
	}
}

func TestExplainAnswers(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	for _, test := range []struct{ body, want string }{
		{`{"table":"votes","selector":{"a":1},"use_index":["d","i"]}`,
			`{"covering":"All.","index":{"fields":["a","b"],"name":"d/i"},"scan":false,"table":"votes"}`},
		{`{"table":"votes","selector":{"a":1,"b":{"$gt":2}}}`,
			`{"covering":"Nothing.","index":null,"index_advised":["a","b"],"scan":true,"table":"votes"}`},
		{`{"table":"votes","selector":{"$and":[{"a":1}]},"limit":5,"execution_stats":true}`,
			`{"covering":"Nothing.","index":null,"index_advised":["a"],"scan":true,"table":"votes"}`},
		{`{"table":"votes","selector":{"$or":[{"a":1},{"b":1}]}}`,
			`{"covering":"Nothing.","index":null,"scan":true,"table":"votes"}`},
	} {
		if got := do(t, http.MethodPost, base+"/api/v1/query/explain", test.body); got.status != 200 || got.body != test.want {
			t.Errorf("%s: got %d %s, want %s", test.body, got.status, got.body, test.want)
		}
	}
}

// TestParsedQuery reads every form of every key.
func TestParsedQuery(t *testing.T) {
	q, err := parsePostedQuery([]byte(`{"table":"votes","selector":{"a":1},"sort":["a",{"b":"asc"},{"c":"desc"}],"fields":["d"],"limit":7,"execution_stats":true}`))
	if err != nil {
		t.Fatal(err)
	}
	sort := []statedb.SortField{{Field: "a"}, {Field: "b"}, {Field: "c", Descending: true}}
	if q.Table != "votes" || !slices.Equal(q.Sort, sort) || !slices.Equal(q.Fields, []string{"d"}) || q.Limit != 7 || !q.stats || q.Range ||
		!canonical.Equal(q.Selector, canonical.ObjectOf(canonical.Member{Key: "a", Value: canonical.IntOf(1)})) {
		t.Errorf("got %+v", q)
	}
	for text, want := range map[string][2]string{ // → design document, index
		`"x"`: {"", "x"}, `"_design/x"`: {"x", ""}, `["x"]`: {"x", ""}, `["x","y"]`: {"x", "y"}, `["_design/x","y"]`: {"x", "y"},
	} {
		q, err := parsePostedQuery([]byte(`{"table":"votes","selector":{},"use_index":` + text + `}`))
		if got := [2]string{q.DesignDoc, q.UseIndex}; err != nil || got != want {
			t.Errorf("use_index %s: got %q, %v, want %q", text, got, err, want)
		}
	}
	if q, err = parsePostedQuery([]byte(`{"table":"votes","end_key":"b"}`)); err != nil || !q.Range || q.Start != "" || q.End != "b" || q.Limit != 25 {
		t.Errorf("a range: got %+v, %v", q, err)
	}
}

// TestQuerySlots: a query takes one of the places of MaxRequests.
func TestQuerySlots(t *testing.T) {
	n := fakenode.New()
	entered, release := make(chan struct{}), make(chan struct{})
	n.Hook = func(method, _ string) error {
		if method == "Query" {
			entered <- struct{}{}
			<-release
		}
		return nil
	}
	s, base := start(t, n, Options{MaxRequests: 1})
	done := make(chan answer)
	go func() { done <- do(t, http.MethodPost, base+"/api/v1/query", `{"table":"votes","selector":{}}`) }()
	<-entered
	if len(s.slots) != 1 {
		t.Errorf("while a query runs %d places are taken, want 1", len(s.slots))
	}
	close(release)
	if got := <-done; got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if text := get(t, base+"/metrics").body; !strings.Contains(text, `couchledger_http_requests_total{code="200",method="POST",route="/api/v1/query"} 1`) {
		t.Error("the query is not in the metrics")
	}
}
