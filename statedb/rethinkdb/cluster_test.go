package rethinkdb

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// Nodes that start at once make one database, of which one says that it made
// it, whichever server of a cluster they ask.
func TestCreateAtOnce(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers, " servers"), func(t *testing.T) {
			cluster := rethinktest.StartCluster(t, servers)
			awaitServers(t, cluster)
			for range 5 {
				name := freshName()
				const nodes = 6
				dbs, created, faults := make([]*DB, nodes), make([]bool, nodes), make([]error, nodes)
				for i := range nodes {
					opts := optionsFor(cluster[i%servers].Address)
					opts.Name = name
					dbs[i] = open(t, opts)
					defer dbs[i].Close()
				}
				var group sync.WaitGroup
				for i := range nodes {
					group.Go(func() { created[i], faults[i] = dbs[i].Create(t.Context()) })
				}
				group.Wait()
				if err := errors.Join(faults...); err != nil {
					t.Fatal(err)
				}
				made := 0
				for _, c := range created {
					if c {
						made++
					}
				}
				if made != 1 {
					t.Errorf("%d of %d nodes made the database", made, nodes)
				}
				put(t, dbs[0], "a", `{}`)
				for i, db := range dbs {
					if d, err := db.Get(t.Context(), table, []string{"a"}); err != nil || d[0].Rev == "" {
						t.Errorf("node %d does not see what node 0 wrote: %v", i, err)
					}
				}
				if err := dbs[0].Drop(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// awaitServers waits until all servers know one another.
func awaitServers(t *testing.T, cluster []*rethinktest.Server) {
	t.Helper()
	for _, server := range cluster {
		db := open(t, optionsFor(server.Address))
		defer db.Close()
		for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			n, err := db.servers(t.Context())
			if err == nil && n == len(cluster) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s knows %d servers of %d, %v", server.Name, n, len(cluster), err)
			}
		}
	}
}

func TestSharding(t *testing.T) {
	cluster := rethinktest.StartCluster(t, 3)
	awaitServers(t, cluster)
	db := made(t, optionsFor(cluster[0].Address))
	expect := func(shards, replicas int) {
		t.Helper()
		layout, err := db.Layout(t.Context())
		if err != nil || len(layout) != len(statedb.Tables) {
			t.Fatalf("Layout: %+v, %v", layout, err)
		}
		for i, l := range layout {
			if l != (statedb.TableLayout{Table: statedb.Tables[i], Shards: shards, Replicas: replicas}) {
				t.Errorf("%+v, want %d shards of %d replicas", l, shards, replicas)
			}
		}
	}
	expect(1, 1)
	deploy(t, db, index("n", "n"))
	write(t, db, batchOf(500, 0)...)
	if err := db.SetShards(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	expect(3, 1)
	if err := db.SetReplicas(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	expect(3, 2)
	if err := db.SetShards(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	expect(2, 2)
	if err := db.SetReplicas(t.Context(), 4); !isIn(err, "4 servers are needed and the cluster has 3") {
		t.Errorf("more replicas than servers: %v", err)
	}
	expect(2, 2)
	for _, n := range []int{0, -1, 65} {
		if err := db.SetShards(t.Context(), n); !isIn(err, "1 to 64 shards") {
			t.Errorf("%d shards: %v", n, err)
		}
	}
	if err := db.SetReplicas(t.Context(), 0); err == nil {
		t.Error("no replicas at all")
	}
	// Pages, sorts and feeds go over all shards.
	write(t, db, batchOf(500, 500)...)
	q := statedb.Query{Selector: parse(t, `{"n":{"$gte":0}}`), Sort: []statedb.SortField{{Field: "n", Descending: true}}, Limit: 70}
	var want []string
	for _, w := range batchOf(1000, 0) {
		want = append(want, w.ID)
	}
	slices.Reverse(want)
	if got := find(t, db, q); !slices.Equal(got, want) {
		t.Errorf("a sort over shards gave %d ids, want %d in order", len(got), len(want))
	}
	q.Sort = []statedb.SortField{{Field: "_id", Descending: true}}
	q.Selector = parse(t, `{"_id":{"$gte":""}}`)
	if got := find(t, db, q); !slices.Equal(got, want) {
		t.Errorf("ids over shards: %d, want %d in order", len(got), len(want))
	}
	if rows, _ := follow(t, db, ""); len(rows) != len(want) {
		t.Errorf("the feed over shards has %d rows, want %d", len(rows), len(want))
	}

	// With three replicas one server may fail.
	if err := db.SetReplicas(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	expect(2, 3)
	cluster[2].Kill()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		results, err := db.Write(t.Context(), table, []statedb.Write{{ID: "after", Body: []byte(`{}`)}})
		if err == nil && (results[0].Err == nil || errors.Is(results[0].Err, statedb.ErrConflict)) {
			break
		}
		if err != nil && !errors.Is(err, statedb.ErrUnavailable) || time.Now().After(deadline) {
			t.Fatalf("Write with a server of three gone: %v, %v", results, err)
		}
	}
	if d, err := db.Get(t.Context(), table, []string{"after", want[0]}); err != nil || d[0].Rev == "" || d[1].Rev == "" {
		t.Errorf("Get with a server of three gone: %v", err)
	}
	// With two gone nothing can be written, and that is told as such.
	cluster[1].Kill()
	for deadline := time.Now().Add(patience); db.Health(t.Context()) == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("Health finds nothing with two servers of three gone")
		}
	}
	if err := db.Health(t.Context()); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("Health with two servers of three gone: %v", err)
	}
	if results, err := db.Write(t.Context(), table, []statedb.Write{{ID: "lost", Body: []byte(`{}`)}}); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("Write with two servers of three gone: %v, %v", results, err)
	}
}
