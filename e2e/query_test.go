package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
)

// TestQuery queries a real node whose settings bound what a query may cost.
func TestQuery(t *testing.T) { eachBackend(t, testQuery) }

func testQuery(t *testing.T, newNode nodeMaker) {
	n := newNode(t, "BIGCHAINDB_DATABASE_ALLOW_SCANS=false", "BIGCHAINDB_DATABASE_INTERNAL_QUERY_LIMIT=2", "BIGCHAINDB_DATABASE_TOTAL_QUERY_LIMIT=3")
	n.start()
	alice := ledger.GenerateKeyPair()
	const count = 8
	want := map[string]bool{}
	for range count {
		tx := create(t, alice)
		n.mustBecomeValid(t, tx)
		want[tx.ID] = true
	}
	// Indexes are deployed while the node runs.
	indexed := []byte(`{"table":"transactions","selector":{"operation":"CREATE"},"limit":1}`)
	eventually(t, "the indexes are there", func() (bool, string) {
		a, err := n.do(http.MethodPost, "/api/v1/query", indexed)
		if err == nil && a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
			t.Error("the 503 has no Retry-After")
		}
		return err == nil && a.status != http.StatusServiceUnavailable, fmt.Sprint(a, err)
	})
	type page struct {
		Docs     []map[string]any
		Bookmark string
		Warning  *string
	}
	ask := func(bookmark string) page {
		body := fmt.Appendf(nil, `{"table":"transactions","selector":{"operation":"CREATE"},"limit":100,"bookmark":%q}`, bookmark)
		return decode[page](t, n.want(t, http.MethodPost, "/api/v1/query", body, http.StatusOK))
	}
	// Valid transactions reach the table for queries a moment later.
	eventually(t, "all assets can be queried", func() (bool, string) {
		found, bookmark := map[string]bool{}, ""
		for {
			p := ask(bookmark)
			if len(p.Docs) > 3 || p.Warning != nil {
				t.Fatalf("got %+v, want 3 documents at most and no warning", p)
			}
			for _, d := range p.Docs {
				id := d["_id"].(string)
				if found[id] || !want[id] {
					t.Fatalf("document %s came twice, or is not an asset of this test", id)
				}
				found[id] = true
			}
			if bookmark = p.Bookmark; bookmark == "" {
				return len(found) == count, fmt.Sprintf("%d of %d", len(found), count)
			}
		}
	})
	scan := []byte(`{"table":"transactions","selector":{"asset.data.serial":{"$gt":0}}}`)
	n.wantError(t, http.MethodPost, "/api/v1/query", scan, http.StatusBadRequest, "whole table", "asset.data.serial")
	plan := decode[map[string]any](t, n.want(t, http.MethodPost, "/api/v1/query/explain/", scan, http.StatusOK))
	if plan["scan"] != true || plan["index"] != nil {
		t.Errorf("explain: got %v", plan)
	}
}
