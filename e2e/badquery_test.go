package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
)

// TestBadQuery asks with parameters that are missing, malformed or
// contradictory: each is a 400 that names the parameter. Paths and methods
// that are not there are 404 and 405, with the same body.
func TestBadQuery(t *testing.T) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	tx := create(t, alice)
	n.mustBecomeValid(t, tx)
	block := n.list(t, "/api/v1/blocks?tx_id="+tx.ID)[0]
	id, key := "="+tx.ID, "="+alice.Public
	for _, q := range []struct{ path, names string }{
		{"transactions", "asset_id"},
		{"transactions?asset_id", "asset_id"},
		{"transactions?asset_id=", "asset_id"},
		{"transactions?asset_id=abc", "asset_id"},
		{"transactions?asset_id" + id + "0", "asset_id"},
		{"transactions?asset_id=" + strings.Repeat("g", 64), "asset_id"},
		{"transactions?asset_id" + id + "&asset_id" + id, "asset_id"},
		{"transactions?asset_id=%zz", "asset_id"},
		{"transactions?operation=CREATE", "asset_id"},
		{"transactions?asset_id" + id + "&operation=GENESIS", "operation"},
		{"transactions?asset_id" + id + "&operation=", "operation"},
		{"transactions?asset_id" + id + "&operation=CREATE&operation=TRANSFER", "operation"},
		{"transactions?asset_id" + id + "&limit=0", "limit"},
		{"transactions?asset_id" + id + "&limit=-1", "limit"},
		{"transactions?asset_id" + id + "&limit=ten", "limit"},
		{"transactions?asset_id" + id + "&limit=99999999999999999999", "limit"},
		{"transactions?asset_id" + id + "&bookmark=abc", "bookmark"},
		{"transactions?asset_id" + id + "&limit=1&bookmark=abc", "bookmark"},
		{"transactions?asset_id" + id + "&limit=1&bookmark=" + strings.Repeat("A", 5000), "bookmark"},
		{"transactions?asset_id" + id + "&metadata=x", "metadata"},
		{"transactions?tx_id" + id, "tx_id"},
		{"outputs", "public_key"},
		{"outputs?public_key=", "public_key"},
		{"outputs?public_key=abc", "public_key"},
		{"outputs?public_key=" + strings.Repeat("0", 44), "public_key"},
		{"outputs?public_key=" + strings.Repeat("z", 20_000), "public_key"},
		{"outputs?unspent=true", "public_key"},
		{"outputs?public_key" + key + "&unspent=maybe", "unspent"},
		{"outputs?public_key" + key + "&unspent=", "unspent"},
		{"outputs?public_key" + key + "&unspent=true&unspent=false", "unspent"},
		{"outputs?public_key" + key + "&limit=1001", "limit"},
		{"outputs?public_key" + key + "&bogus=1", "bogus"},
		{"statuses", "tx_id"},
		{"statuses", "block_id"},
		{"statuses?tx_id" + id + "&block_id=" + block, "block_id"},
		{"statuses?tx_id=xyz", "tx_id"},
		{"statuses?tx_id" + id + "&tx_id" + id, "tx_id"},
		{"statuses?block_id=xyz", "block_id"},
		{"statuses?tx_id" + id + "&limit=1", "limit"},
		{"blocks", "tx_id"},
		{"blocks?tx_id=xyz", "tx_id"},
		{"blocks?status=VALID", "tx_id"},
		{"blocks?tx_id" + id + "&status=BACKLOG", "status"},
		{"blocks?tx_id" + id + "&status=VALID&status=INVALID", "status"},
		{"blocks?block_id=" + block, "block_id"},
		{"votes", "block_id"},
		{"votes?block_id=xyz", "block_id"},
		{"votes?block_id=" + block + "&limit=x", "limit"},
		{"votes?tx_id" + id, "tx_id"},
	} {
		n.wantError(t, http.MethodGet, "/api/v1/"+q.path, nil, http.StatusBadRequest, q.names)
	}
	other := create(t, alice)
	n.wantError(t, http.MethodPost, transactionsPath+"?mode=sometime", other.Bytes(), http.StatusBadRequest, "mode")
	n.wantError(t, http.MethodPost, transactionsPath+"?mode=", other.Bytes(), http.StatusBadRequest, "mode")
	n.wantError(t, http.MethodPost, transactionsPath+"?wait=1", other.Bytes(), http.StatusBadRequest, "wait")

	for _, path := range []string{
		"/api/v1/transactions/abc", "/api/v1/transactions/" + tx.ID + "0", "/api/v1/blocks/abc", "/api/v1/blocks/..%2f" + tx.ID,
		"/api/v2/", "/api/v1/nothing", "/nothing", "/api/v1/transactions/" + tx.ID + "/outputs/0",
	} {
		n.wantError(t, http.MethodGet, path, nil, http.StatusNotFound)
	}
	for method, path := range map[string]string{
		http.MethodDelete: "/api/v1/transactions/" + tx.ID, http.MethodPut: transactionsPath, http.MethodPost: "/api/v1/blocks",
	} {
		if a := n.wantError(t, method, path, nil, http.StatusMethodNotAllowed); a.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow header", method, path)
		}
	}
	if status, _, err := n.status(other.ID); status != "" || err != nil {
		t.Errorf("a transaction in a refused POST: got status %q, %v, want none", status, err)
	}
	n.mustBecomeValid(t, other)
}
