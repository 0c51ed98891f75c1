package couchdb

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// made opens a ledger that is dropped when the test ends.
func made(t testing.TB, opts Options) *DB {
	t.Helper()
	db := open(t, opts)
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db, err := Open(t.Context(), opts)
		if err == nil {
			_ = db.Drop(t.Context())
			db.Close()
		}
	})
	t.Cleanup(func() { db.Close() })
	return db
}

// One document that CouchDB cannot hold fails the whole batch it is in; the
// rest must be stored and the one named.
func TestPoisonedBatch(t *testing.T) {
	db := made(t, optionsFor(couchtest.Shared(t)))
	poison := `{"n":` + strings.Repeat("9", 400) + `}`
	for _, places := range [][]int{{0}, {99}, {37}, {12, 13}, {0, 50, 99}} {
		var writes []statedb.Write
		bad := map[int]bool{}
		for i := range 100 {
			writes = append(writes, statedb.Write{ID: fmt.Sprintf("p%v-%02d", places, i), Body: []byte(`{"n":1}`)})
		}
		for _, p := range places {
			writes[p].Body = []byte(poison)
			bad[p] = true
		}
		results, err := db.Write(t.Context(), statedb.Backlog, writes)
		if err != nil {
			t.Fatalf("poison at %v: %v", places, err)
		}
		documents, err := db.Get(t.Context(), statedb.Backlog, idsOf(writes))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if got := errors.Is(r.Err, statedb.ErrBadDocument); got != bad[i] || !bad[i] && r.Err != nil && !errors.Is(r.Err, statedb.ErrConflict) {
				t.Errorf("poison at %v: outcome %d is %v", places, i, r.Err)
			}
			if (documents[i].Rev == "") != bad[i] {
				t.Errorf("poison at %v: document %d is there: %v", places, i, documents[i].Rev != "")
			}
		}
	}
}

// A connection that breaks, or a server that fails for a while, is no
// document's fault: the outcome of the whole batch is unknown.
func TestBrokenBatch(t *testing.T) {
	proxy := couchtest.NewProxy(t, couchtest.Shared(t))
	db := made(t, optionsFor(proxy.Address))
	for i, fault := range []*couchtest.Fault{
		{Part: "_bulk_docs", Forward: true, Bytes: 30}, {Part: "_bulk_docs", Forward: true}, {Part: "_bulk_docs"},
		{Part: "_bulk_docs", Forward: true, Bytes: 30, Times: 2},
		{Part: "_bulk_docs", Status: http.StatusServiceUnavailable}, {Part: "_bulk_docs", Status: http.StatusInternalServerError},
	} {
		for _, n := range []int{1, 2, 8} {
			proxy.Set(fault)
			var writes []statedb.Write
			for k := range n {
				writes = append(writes, statedb.Write{ID: fmt.Sprintf("b%d-%d-%d", i, n, k), Body: []byte(`{}`)})
			}
			if results, err := db.Write(t.Context(), statedb.Votes, writes); !errors.Is(err, statedb.ErrUnavailable) {
				t.Errorf("fault %d, %d documents: %v, %v; want ErrUnavailable", i, n, results, err)
			}
		}
		proxy.Clear()
	}
	// One answer lost among several requests of one batch.
	var writes []statedb.Write
	for k := range 8 {
		writes = append(writes, statedb.Write{ID: fmt.Sprint("c", k), Body: []byte(`{}`)})
	}
	proxy.Set(&couchtest.Fault{Part: "_bulk_docs", Times: 1, Status: http.StatusInternalServerError})
	results, err := db.Write(t.Context(), statedb.Votes, writes)
	if err != nil {
		t.Fatalf("one 500 for a batch: %v", err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("one 500 for a batch: %v", results)
		}
	}
}

func idsOf(writes []statedb.Write) (ids []string) {
	for _, w := range writes {
		ids = append(ids, w.ID)
	}
	return ids
}

// The largest document, and how many are purged at once, is what the server
// says.
func TestServerLimits(t *testing.T) {
	const size = 50_000
	server := couchtest.Start(t, "[couchdb]", "max_document_size = "+strconv.Itoa(size), "[purge]", "max_document_id_number = 7")
	db := made(t, optionsFor(server.Address))
	var writes []statedb.Write
	for i := range 20 {
		writes = append(writes, statedb.Write{ID: fmt.Sprint("p", i), Body: []byte(`{}`)})
	}
	if _, err := db.Write(t.Context(), statedb.Backlog, writes); err != nil {
		t.Fatal(err)
	}
	if err := db.Remove(t.Context(), statedb.Backlog, idsOf(writes)); err != nil {
		t.Errorf("Remove where seven are purged at a time: %v", err)
	}
	most := db.Limits().MaxDocumentBytes
	if most > size || most < size-2*documentMargin {
		t.Fatalf("MaxDocumentBytes = %d with max_document_size = %d", most, size)
	}
	body := []byte(`{"a":"` + strings.Repeat("é", (most-8)/2) + `"}`)
	results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "a", Body: body}, {ID: "b", Body: append(body[:len(body)-2:len(body)-2], `......"}`...)}})
	if err != nil || results[0].Err != nil || !errors.Is(results[1].Err, statedb.ErrTooLarge) {
		t.Errorf("%d bytes, %v; want the first stored and the second ErrTooLarge", len(body), fmt.Sprint(results, err))
	}
}

// Only the node's user and admins may read and write; one shard each for
// blocks and votes, as many as asked for elsewhere.
func TestCreatedDatabases(t *testing.T) {
	address := couchtest.Shared(t)
	opts := optionsFor(address)
	opts.Shards = 3
	made(t, opts)
	for _, table := range statedb.Tables {
		name := "/" + opts.Name + "_" + table
		var info struct {
			Cluster struct{ Q int } `json:"cluster"`
		}
		if err := json.Unmarshal([]byte(address.Do(t, http.MethodGet, name, "", http.StatusOK)), &info); err != nil {
			t.Fatal(err)
		}
		want := 3
		if table == statedb.Bigchain || table == statedb.Votes {
			want = 1
		}
		if info.Cluster.Q != want {
			t.Errorf("%s has q = %d, want %d", table, info.Cluster.Q, want)
		}
		type members struct{ Names, Roles []string }
		var security struct{ Admins, Members members }
		text := address.Do(t, http.MethodGet, name+"/_security", "", http.StatusOK)
		if err := json.Unmarshal([]byte(text), &security); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(security.Members) != fmt.Sprintf("{[%s] [_admin]}", address.Login) {
			t.Errorf("%s: _security is %s", table, text)
		}
		anonymous := address
		anonymous.Login = ""
		anonymous.Do(t, http.MethodGet, name+"/_all_docs", "", http.StatusUnauthorized)
	}
}

func TestForeignDatabases(t *testing.T) {
	address := couchtest.Shared(t)
	t.Run("partitioned", func(t *testing.T) {
		opts := optionsFor(address)
		address.Do(t, http.MethodPut, "/"+opts.Name+"_bigchain?partitioned=true", "", http.StatusCreated)
		db := open(t, opts)
		defer db.Close()
		defer db.Drop(t.Context())
		if _, err := db.Create(t.Context()); err == nil || !strings.Contains(err.Error(), "_bigchain: it is partitioned") {
			t.Errorf("Create on a partitioned database: %v", err)
		}
	})
	t.Run("public", func(t *testing.T) {
		opts := optionsFor(address)
		var log bytes.Buffer
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		address.Do(t, http.MethodPut, "/"+opts.Name+"_votes", "", http.StatusCreated)
		address.Do(t, http.MethodPut, "/"+opts.Name+"_votes/_security", `{"members":{"names":[],"roles":[]}}`, http.StatusOK)
		made(t, opts)
		if !strings.Contains(log.String(), "anybody may read and write this database") {
			t.Errorf("the log does not tell of a database that anybody may read: %s", &log)
		}
	})
}

// A server whose set-up was never finished has no _users and still works.
func TestServerWithoutUsers(t *testing.T) {
	server := couchtest.Start(t, "[couchdb]", "single_node = true")
	server.Do(t, http.MethodDelete, "/_users", "", http.StatusOK)
	server.Do(t, http.MethodDelete, "/_replicator", "", http.StatusOK)
	db := made(t, optionsFor(server.Address))
	results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "a", Body: []byte(`{}`)}})
	if err != nil || results[0].Err != nil {
		t.Errorf("Write: %v, %v", results, err)
	}
}

// What answers may be something else, or too old.
func TestOtherServers(t *testing.T) {
	for welcome, part := range map[string]string{
		`{"couchdb":"Welcome","version":"2.3.1"}`: "version 2.3.1; version 3 or newer is needed",
		`{"couchdb":"Welcome","version":"what"}`:  "version what; version 3 or newer is needed",
		`{"name":"elastic"}`:                      "is not CouchDB",
		`<html>`:                                  "is not CouchDB",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, welcome) }))
		_, err := Open(t.Context(), optionsFor(addressOf(t, server)))
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q", welcome, err, part)
		}
		server.Close()
	}
	for _, name := range []string{"", "Upper", "1st", "_x", "a/b", "ä", strings.Repeat("a", 201)} {
		opts := optionsFor(couchtest.Address{Host: "127.0.0.1", Port: 1})
		opts.Name = name
		if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "is no name for a CouchDB database") {
			t.Errorf("the name %q: %v", name, err)
		}
	}
}

func addressOf(t *testing.T, server *httptest.Server) couchtest.Address {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return couchtest.Address{Host: u.Hostname(), Port: port}
}

// Over TLS the certificate is checked.
func TestTLS(t *testing.T) {
	address := couchtest.Shared(t)
	target := &url.URL{Scheme: "http", Host: fmt.Sprintf("%s:%d", address.Host, address.Port)}
	proxy := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(target))
	proxy.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	proxy.StartTLS()
	defer proxy.Close()
	opts := optionsFor(addressOf(t, proxy))
	opts.Login, opts.Password = address.Login, address.Password
	opts.TLS = &tls.Config{}
	if _, err := Open(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	opts.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	opts.TLS.RootCAs.AddCert(proxy.Certificate())
	made(t, opts)
}

// An index deployed between two pages changes nothing for those that follow.
func TestIndexDeployedBetweenPages(t *testing.T) {
	db := made(t, optionsFor(couchtest.Shared(t)))
	var writes []statedb.Write
	for i := range 20 {
		writes = append(writes, statedb.Write{ID: fmt.Sprintf("d%02d", (i*7)%20), Body: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	if _, err := db.Write(t.Context(), statedb.Votes, writes); err != nil {
		t.Fatal(err)
	}
	q := statedb.Query{Selector: mustParse(t, `{"n":{"$gte":3}}`), Limit: 4}
	seen := map[string]bool{}
	for {
		page, err := db.Find(t.Context(), statedb.Votes, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			if seen[d.ID] {
				t.Errorf("%s came twice", d.ID)
			}
			seen[d.ID] = true
		}
		if page.Bookmark == "" {
			break
		}
		q.Bookmark = page.Bookmark
		n := statedb.Index{Name: "n", DDoc: "n", Fields: []statedb.SortField{{Field: "n"}}}
		if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{n}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 17 {
		t.Errorf("found %d documents, want 17", len(seen))
	}
}

// A bookmark that is made up, hash and all, is a bad bookmark, whatever is in it.
func TestForgedBookmarks(t *testing.T) {
	db := made(t, optionsFor(couchtest.Shared(t)))
	if _, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "a", Body: []byte(`{"n":1}`)}}); err != nil {
		t.Fatal(err)
	}
	q := statedb.Query{Selector: mustParse(t, `{"n":1}`), Limit: 1}
	page, err := db.Find(t.Context(), statedb.Votes, q)
	if err != nil {
		t.Fatal(err)
	}
	hash := keyset.FindHash(statedb.Votes, q)
	genuine, err := openPlace(page.Bookmark, hash)
	if err != nil {
		t.Fatal(err)
	}
	for name, forge := range map[string]func(p *place){
		"no key":             func(p *place) { p.Rev, p.Key = "x", nil },
		"no bookmark inside": func(p *place) { p.Native = "rubbish" },
		"another index":      func(p *place) { p.Index = "0011223344556677" },
	} {
		p := *genuine
		forge(&p)
		q.Bookmark = p.seal(hash)
		if _, err := db.Find(t.Context(), statedb.Votes, q); !errors.Is(err, statedb.ErrBadBookmark) {
			t.Errorf("%s: %v, want ErrBadBookmark", name, err)
		}
	}
}

// Several nodes make one ledger in the same moment: one makes each database, and
// none fails.
func TestCreateAtOnce(t *testing.T) {
	address := couchtest.Shared(t)
	for range 5 {
		opts := optionsFor(address)
		var nodes [8]*DB
		for i := range nodes {
			nodes[i] = open(t, opts)
			t.Cleanup(func() { nodes[i].Close() })
		}
		var made atomic.Int64
		var group sync.WaitGroup
		for _, db := range nodes { // all are connected, so that they come at once
			group.Go(func() {
				created, err := db.Create(t.Context())
				if err != nil {
					t.Error(err)
				}
				if created {
					made.Add(1)
				}
			})
		}
		group.Wait()
		if made.Load() != 1 {
			t.Errorf("%d nodes made the database, want 1", made.Load())
		}
		if err := open(t, opts).Drop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Of those that come in the same moment one may get a 500: it looks again.
func TestCreateConflict(t *testing.T) {
	proxy := couchtest.NewProxy(t, couchtest.Shared(t))
	opts := optionsFor(proxy.Address)
	db := open(t, opts)
	t.Cleanup(func() { db.Close() })
	proxy.Set(&couchtest.Fault{Part: "_votes", Times: 1, Status: http.StatusInternalServerError})
	if created, err := db.Create(t.Context()); !created || err != nil {
		t.Errorf("got %v, %v", created, err)
	}
	if err := db.Drop(t.Context()); err != nil {
		t.Error(err)
	}
}
