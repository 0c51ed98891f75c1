package couchdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

// copiedInTests is what the tests have copied: ids of the letter x and digits.
var copiedInTests = []statedb.CopiedTable{
	{Table: statedb.Backlog, IDs: "^x[0-9]+$"},
	{Table: statedb.Bigchain, IDs: "^x[0-9]+$", Guarded: true},
	{Table: statedb.Votes, IDs: "^x[0-9]+$", Guarded: true, MaxBytes: 200},
}

// federated is a ledger here that copies from one on another server.
type federated struct {
	t           *testing.T
	here, there *DB
	server      *couchtest.Server // there
	peer        statedb.Peer
}

func newFederated(t *testing.T) *federated {
	f := &federated{t: t, here: made(t, optionsFor(couchtest.Shared(t))), server: couchtest.Start(t)}
	f.there = made(t, optionsFor(f.server.Address))
	f.peer = statedb.Peer{URL: f.there.url, Name: f.there.opts.Name, User: "friend"}
	var err error
	if f.peer.Password, err = f.there.AllowReader(t.Context(), "friend", copiedInTests); err != nil {
		t.Fatal(err)
	}
	if err := f.here.AddPeer(t.Context(), f.peer, copiedInTests); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := f.here.RemovePeer(context.Background(), f.peer); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *federated) write(db *DB, table string, w statedb.Write) string {
	f.t.Helper()
	results, err := db.Write(f.t.Context(), table, []statedb.Write{w})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return results[0].Rev
}

func (f *federated) get(db *DB, table, id string) statedb.Document {
	f.t.Helper()
	documents, err := db.Get(f.t.Context(), table, []string{id})
	if err != nil {
		f.t.Fatal(err)
	}
	return documents[0]
}

// await waits until a document of one table is here, and with it what was written
// before it there.
func (f *federated) await(table, id string) statedb.Document {
	f.t.Helper()
	var d statedb.Document
	f.eventually(table+"/"+id+" is here", func() bool {
		d = f.get(f.here, table, id)
		return d.Rev != ""
	})
	return d
}

func (f *federated) eventually(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if _, err := f.here.TendPeers(f.t.Context()); err != nil { // as a node does: a user that is new may not be known at once
			f.t.Fatal(err)
		}
		if time.Now().After(deadline) {
			peers, err := f.here.Peers(f.t.Context())
			f.t.Fatalf("not within a minute: %s; %+v, %v", what, peers, err)
		}
	}
}

// What a peer writes anew comes here; what it edits or deletes, what is no
// ledger's, and design documents do not.
func TestPeerAddsOnly(t *testing.T) {
	f := newFederated(t)
	for _, table := range []string{statedb.Backlog, statedb.Bigchain, statedb.Votes} {
		f.write(f.here, table, statedb.Write{ID: "x2", Body: []byte(`{"by":"here"}`)})
		one := f.write(f.there, table, statedb.Write{ID: "x1", Body: []byte(`{"n":1}`)})
		f.write(f.there, table, statedb.Write{ID: "x2", Body: []byte(`{"by":"there"}`)})
		f.write(f.there, table, statedb.Write{ID: "restore", Body: []byte(`{}`)})
		gone := f.write(f.there, table, statedb.Write{ID: "x3", Body: []byte(`{"n":3}`)})
		f.await(table, "x1")
		f.await(table, "x3")
		f.write(f.there, table, statedb.Write{ID: "x1", Rev: one, Body: []byte(`{"n":"another"}`)})
		f.write(f.there, table, statedb.Write{ID: "x3", Rev: gone, Delete: true})
		f.server.Do(t, http.MethodPut, path(f.peer.Name+"_"+table)+"/_design/block", `{"language":"javascript"}`, http.StatusCreated)
		f.write(f.there, table, statedb.Write{ID: "x9", Body: []byte(`{"n":9}`)})
		f.await(table, "x9")

		for id, want := range map[string]string{"x1": `{"n":1}`, "x3": `{"n":3}`, "restore": "", "_design/block": ""} {
			if d := f.get(f.here, table, id); string(d.Body) != want || len(d.Others) > 0 {
				t.Errorf("%s/%s: got %s and %d others, want %s", table, id, d.Body, len(d.Others), want)
			}
		}
		var both []string
		f.eventually("both documents of one id are here", func() bool {
			both = nil
			for r := range f.get(f.here, table, "x2").Revisions(nil) {
				both = append(both, string(r.Body))
			}
			return len(both) > 1
		})
		if slices.Sort(both); !slices.Equal(both, []string{`{"by":"here"}`, `{"by":"there"}`}) {
			t.Errorf("%s: two documents of one id: got %s", table, both)
		}
	}
	if _, err := f.here.Get(t.Context(), statedb.Transactions, []string{"x1"}); err != nil {
		t.Error(err)
	}
}

// Whatever a peer's server sends, the copier can add to a guarded table and do
// nothing else; the reader can read.
func TestGuard(t *testing.T) {
	f := newFederated(t)
	list, err := f.here.replications(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("got %d documents in _replicator, %v; want 3", len(list), err)
	}
	copier := couchtest.Shared(t)
	copier.Login, copier.Password = list[0].Target.Auth.Basic.Username, list[0].Target.Auth.Basic.Password
	reader := f.server.Address
	reader.Login, reader.Password = "friend", f.peer.Password

	name := path(f.here.opts.Name + "_" + statedb.Votes)
	rev := f.write(f.here, statedb.Votes, statedb.Write{ID: "x1", Body: []byte(`{"n":1}`)})
	hash := strings.TrimPrefix(rev, "1-")
	send := func(document string) string {
		return copier.Do(t, http.MethodPost, name+"/_bulk_docs", `{"new_edits":false,"docs":[`+document+`]}`, http.StatusCreated)
	}
	for what, document := range map[string]string{
		"an edit":           fmt.Sprintf(`{"_id":"x1","_rev":"2-b","_revisions":{"start":2,"ids":["b",%q]},"n":2}`, hash),
		"a deletion":        fmt.Sprintf(`{"_id":"x1","_rev":"2-c","_revisions":{"start":2,"ids":["c",%q]},"_deleted":true}`, hash),
		"a tombstone":       `{"_id":"x7","_rev":"1-d","_revisions":{"start":1,"ids":["d"]},"_deleted":true}`,
		"a strange id":      `{"_id":"restore","_rev":"1-e","_revisions":{"start":1,"ids":["e"]}}`,
		"what is too large": `{"_id":"x8","_rev":"1-e","_revisions":{"start":1,"ids":["e"]},"n":"` + strings.Repeat("n", 200) + `"}`,
		"another design":    `{"_id":"_design/x","_rev":"1-f","_revisions":{"start":1,"ids":["f"]},"language":"javascript"}`,
	} {
		if answer := send(document); !strings.Contains(answer, "forbidden") && !strings.Contains(answer, "unauthorized") {
			t.Errorf("%s was taken: %s", what, answer)
		}
	}
	if answer := send(`{"_id":"x1","_rev":"1-a","_revisions":{"start":1,"ids":["a"]},"n":"other"}`); strings.Contains(answer, "error") {
		t.Errorf("what contradicts was refused: %s", answer)
	}
	if d := f.get(f.here, statedb.Votes, "x1"); len(d.Others) != 1 {
		t.Errorf("got %+v", d)
	}
	copier.Do(t, http.MethodGet, path(f.here.opts.Name+"_transactions"), "", http.StatusForbidden)

	name = path(f.there.opts.Name + "_" + statedb.Votes)
	reader.Do(t, http.MethodGet, name+"/_all_docs", "", http.StatusOK)
	reader.Do(t, http.MethodPut, name+"/x1", `{}`, http.StatusForbidden)
	reader.Do(t, http.MethodGet, path(f.there.opts.Name+"_transactions", "_all_docs"), "", http.StatusForbidden)
}

// What is listed of peers: how they stand, how far behind, and no password.
func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: CouchDB takes its time to notice that a peer is gone")
	}
	f := newFederated(t)
	states := func() (all []statedb.Copies) {
		t.Helper()
		all, err := f.here.Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := json.Marshal(all); strings.Contains(string(text), f.peer.Password) {
			t.Fatalf("the password is shown: %s", text)
		}
		return all
	}
	f.eventually("nothing is left to copy", func() bool {
		all := states()
		return len(all) == 1 && !slices.ContainsFunc(all[0].Tables, func(c statedb.Copy) bool { return c.Lag != 0 })
	})
	for i := range 50 {
		f.write(f.there, statedb.Votes, statedb.Write{ID: fmt.Sprint("x", i), Body: []byte(`{}`)})
	}
	f.eventually("all is copied", func() bool {
		all := states()
		if len(all) != 1 || all[0].Peer.URL != f.peer.URL || all[0].Peer.Password != "" || len(all[0].Tables) != 3 {
			t.Fatalf("got %+v", all)
		}
		votes := all[0].Tables[2]
		return votes.Table == statedb.Votes && votes.State == "running" && votes.Lag == 0 && votes.Copied == 50 && votes.Refused == 0
	})
	if has, err := f.here.HasPeers(t.Context()); !has || err != nil {
		t.Errorf("HasPeers: got %v, %v", has, err)
	}
	if has, err := f.there.HasPeers(t.Context()); has || err != nil {
		t.Errorf("HasPeers of who has none: got %v, %v", has, err)
	}
	// An own database that was set back gets all again.
	if err := f.here.Remove(t.Context(), statedb.Votes, []string{"x7"}); err != nil {
		t.Fatal(err)
	}
	if err := f.here.AddPeer(t.Context(), f.peer, copiedInTests); err != nil {
		t.Fatal(err)
	}
	f.await(statedb.Votes, "x7")

	f.server.Kill()
	f.eventually("the peer that is gone is told of", func() bool { // CouchDB notices before it is asked to begin again
		votes := states()[0].Tables[2]
		return votes.Lag == -1 && votes.Error != ""
	})
	if err := f.server.Start(); err != nil {
		t.Fatal(err)
	}
	f.write(f.there, statedb.Votes, statedb.Write{ID: "x77", Body: []byte(`{}`)})
	f.await(statedb.Votes, "x77")

	// One that was away between two looks is noticed as well.
	tend := func() (patience int) {
		if some, err := f.here.TendPeers(t.Context()); !some || err != nil {
			t.Fatalf("TendPeers: got %v, %v", some, err)
		}
		list, err := f.here.replications(t.Context())
		if err != nil || len(list) != 3 {
			t.Fatalf("replications: got %v, %v", list, err)
		}
		return list[0].Patience
	}
	for range 2 * held {
		tend()
	}
	before := tend()
	if again := tend(); again != before {
		t.Errorf("copying was begun anew for no reason")
	}
	f.server.Kill()
	if err := f.server.Start(); err != nil {
		t.Fatal(err)
	}
	if after := tend(); after == before {
		t.Errorf("copying was not begun anew after the peer was away for a moment")
	}
	f.write(f.there, statedb.Votes, statedb.Write{ID: "x78", Body: []byte(`{}`)})
	f.await(statedb.Votes, "x78")

	// What was begun anew and finds nothing to do is told of by its checkpoint.
	list, err := f.here.replications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("its checkpoint is known", func() bool {
		jobs, err := f.here.jobs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.Ledger.Table != statedb.Votes || jobs[r.ID].Replication == "" {
				continue
			}
			since, err := f.here.checkpoint(t.Context(), statedb.Votes, jobs[r.ID].Replication)
			if err != nil {
				t.Fatal(err)
			}
			return since != beginning
		}
		return false
	})
	if since, err := f.here.checkpoint(t.Context(), statedb.Votes, "none+continuous"); since != beginning || err != nil {
		t.Errorf("a checkpoint that is not there: got %q, %v", since, err)
	}

	if there, err := f.here.RemovePeer(t.Context(), f.peer); !there || err != nil {
		t.Errorf("RemovePeer: got %v, %v", there, err)
	}
	if err := f.here.AddPeer(t.Context(), f.peer, copiedInTests); err != nil {
		t.Fatal(err)
	}
	if err := f.here.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if there, err := f.here.RemovePeer(t.Context(), f.peer); there || err != nil {
		t.Errorf("RemovePeer again: got %v, %v", there, err)
	}
	if all := states(); len(all) != 0 {
		t.Errorf("peers after they were removed: %+v", all)
	}
}

func TestReadPeer(t *testing.T) {
	f := newFederated(t)
	f.write(f.there, statedb.Bigchain, statedb.Write{ID: "x1", Body: []byte(`{"n":1}`)})
	read := func(p statedb.Peer, id string) (string, error) {
		body, err := f.here.ReadPeer(t.Context(), p, statedb.Bigchain, id)
		return string(body), err
	}
	if body, err := read(f.peer, "x1"); body != `{"n":1}` || err != nil {
		t.Errorf("got %s, %v", body, err)
	}
	if body, err := read(f.peer, "x2"); body != "" || err != nil {
		t.Errorf("one that is not there: got %s, %v", body, err)
	}
	for what, x := range map[string]struct {
		change func(*statedb.Peer)
		want   error
	}{
		"a wrong password": {func(p *statedb.Peer) { p.Password = "wrong" }, statedb.ErrDenied},
		"no such ledger":   {func(p *statedb.Peer) { p.Name = "another" }, statedb.ErrNoDatabase},
		"nobody there":     {func(p *statedb.Peer) { p.URL = "http://127.0.0.1:1" }, statedb.ErrUnavailable},
	} {
		p := f.peer
		x.change(&p)
		if _, err := read(p, "x1"); !errors.Is(err, x.want) || strings.Contains(err.Error(), f.peer.Password) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	own := statedb.Peer{URL: f.here.url, Name: f.here.opts.Name, User: couchtest.Login, Password: couchtest.Password}
	if _, err := read(own, "x1"); err == nil || !strings.Contains(err.Error(), "own database") {
		t.Errorf("its own: got %v", err)
	}
	if there, err := f.there.ForbidReader(t.Context(), "friend"); !there || err != nil {
		t.Errorf("ForbidReader: got %v, %v", there, err)
	}
	f.eventually("the reader is locked out", func() bool { // CouchDB remembers users for a while
		_, err := read(f.peer, "x1")
		return errors.Is(err, statedb.ErrDenied)
	})
	f.server.Do(t, http.MethodPut, "/_users/org.couchdb.user:clerk", `{"name":"clerk","password":"x","roles":["clerk"],"type":"user"}`, http.StatusCreated)
	if _, err := f.there.AllowReader(t.Context(), "clerk", copiedInTests); !errors.Is(err, errOthersUser) {
		t.Errorf("another's user: got %v", err)
	}
	if there, err := f.there.ForbidReader(t.Context(), "clerk"); there || !errors.Is(err, errOthersUser) {
		t.Errorf("another's user: got %v, %v", there, err)
	}
}

// Whatever replication brought, Remove leaves nothing.
func TestRemoveConflicts(t *testing.T) {
	f := newFederated(t)
	if _, err := f.here.HasPeers(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.write(f.here, statedb.Backlog, statedb.Write{ID: "x1", Body: []byte(`{"by":"here"}`)})
	f.write(f.there, statedb.Backlog, statedb.Write{ID: "x1", Body: []byte(`{"by":"there"}`)})
	f.eventually("both documents of one id are here", func() bool {
		list, _, err := f.here.leaves(t.Context(), f.here.opts.Name+"_backlog", []string{"x1"})
		return err == nil && len(list["x1"]) == 2
	})
	if err := f.here.Remove(t.Context(), statedb.Backlog, []string{"x1"}); err != nil {
		t.Fatal(err)
	}
	if d := f.get(f.here, statedb.Backlog, "x1"); d.Rev != "" {
		t.Errorf("%s is still there", d.Body)
	}
}

// TestHostilePeer: what a peer's server sends is bounded, and it sends nobody
// elsewhere.
func TestHostilePeer(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirection was followed") }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirects" {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			return
		}
		for part := []byte(strings.Repeat("x", 64<<10)); ; {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	db := &DB{opts: Options{ConnectTimeout: time.Minute}, closed: t.Context()}
	for _, path := range []string{"/endless", "/redirects"} {
		body, err := db.fromPeer(t.Context(), db.toPeer(false), statedb.Peer{URL: server.URL}, path, nil)
		if err == nil || len(body) > maxPeerBody+1 {
			t.Errorf("%s: got %d bytes, %v", path, len(body), err)
		}
	}
}
