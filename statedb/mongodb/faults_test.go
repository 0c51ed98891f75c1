package mongodb

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
	"github.com/couchledger/couchledger/statedb/statedbtest/faultproxy"
)

// Answers are lost at any byte. What was acknowledged is there at its revision,
// what is a conflict is not, and no document is blamed for the connection.
func TestLostAnswers(t *testing.T) {
	address := mongotest.Shared(t)
	if address.ReplicaSet != "" {
		t.Skip("not tested: a replica set is reached under its members' own names, past a proxy")
	}
	opts := optionsFor(address)
	direct := made(t, opts)
	proxy := faultproxy.New(t, address.Host, address.Port)
	opts.Host, opts.Port, opts.ConnectTimeout = proxy.Host, proxy.Port, time.Second
	db := open(t, opts)
	defer db.Close()
	rev := put(t, db, statedb.Votes, "updated", "", `{"n":0}`)
	acknowledged, lost := 0, 0
	for round := range 60 {
		if round%3 > 0 {
			proxy.CutAfterRandom(0, 500)
		}
		var writes []statedb.Write
		for i := range 5 {
			writes = append(writes, statedb.Write{ID: fmt.Sprintf("new%02d-%d", round, i), Body: []byte(`{"n":1}`)})
		}
		writes = append(writes, statedb.Write{ID: "updated", Rev: rev, Body: fmt.Appendf(nil, `{"n":%d}`, round)})
		results, err := db.Write(t.Context(), statedb.Votes, writes)
		proxy.Clear()
		var ids []string
		for _, w := range writes {
			ids = append(ids, w.ID)
		}
		documents, getErr := direct.Get(t.Context(), statedb.Votes, ids)
		if getErr != nil {
			t.Fatal(getErr)
		}
		rev = documents[5].Rev
		if err != nil {
			if lost++; !errors.Is(err, statedb.ErrUnavailable) {
				t.Errorf("round %d: %v", round, err)
			}
			continue
		}
		acknowledged++
		for i, r := range results {
			if r.Err != nil || documents[i].Rev != r.Rev {
				t.Errorf("round %d: %s is at %q; the outcome was %+v", round, ids[i], documents[i].Rev, r)
			}
		}
	}
	if acknowledged < 10 || lost < 10 {
		t.Errorf("%d writes were acknowledged and of %d the answer was lost: that tests little", acknowledged, lost)
	}
}

// A feed whose connection is cut ends with ErrUnavailable and goes on from its
// token.
func TestCutFeed(t *testing.T) {
	address := mongotest.Shared(t)
	if address.ReplicaSet != "" {
		t.Skip("not tested: a replica set is reached under its members' own names, past a proxy")
	}
	opts := optionsFor(address)
	direct := made(t, opts)
	proxy := faultproxy.New(t, address.Host, address.Port)
	opts.Host, opts.Port, opts.ConnectTimeout = proxy.Host, proxy.Port, time.Second
	db := open(t, opts)
	defer db.Close()
	put(t, direct, statedb.Votes, "a", "", `{}`)
	feed, _, token := follow(t, db, statedb.Votes, "")
	proxy.Refuse(true)
	proxy.Cut()
	if _, err := feed.Next(t.Context()); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("Next: %v", err)
	}
	put(t, direct, statedb.Votes, "b", "", `{}`)
	proxy.Clear()
	_, rows, _ := follow(t, db, statedb.Votes, token)
	if rows["b"].Rev == "" {
		t.Errorf("after the cut: %v", rows)
	}
}
