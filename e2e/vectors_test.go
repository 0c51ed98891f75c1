package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
)

// vector is a transaction with the verdict that it must get.
type vector struct {
	Name        string
	Valid       bool
	Why         string
	Transaction json.RawMessage
}

// vectorKinds gives the kind of error for what is wrong with a vector.
var vectorKinds = map[string]ledger.Kind{
	"id is not the hash of the body":           ledger.InvalidHash,
	"signature":                                ledger.InvalidSignature,
	"signature of the second input":            ledger.InvalidSignature,
	"fulfillment does not match the condition": ledger.InvalidSignature,
	"weights add up to 1, threshold 3":         ledger.InvalidSignature,
	"weights add up to 2, threshold 3":         ledger.InvalidSignature,
}

// TestVectors posts every transaction of the vectors. Some are one transaction
// in several signatures: each of these gets a ledger of its own.
func TestVectors(t *testing.T) { eachBackend(t, testVectors) }

func testVectors(t *testing.T, newNode nodeMaker) {
	text, err := os.ReadFile("../testdata/vectors/transactions.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Transactions []vector }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	n.start()
	byID := map[string]*ledger.Transaction{}
	for _, v := range file.Transactions {
		if v.Valid {
			if tx := parse(t, v.Transaction); byID[tx.ID] == nil {
				byID[tx.ID] = tx
			}
		}
	}
	history := func(tx *ledger.Transaction) {
		for _, ref := range tx.Spends() {
			if source := byID[ref.TxID]; source == nil {
				t.Fatalf("no vector holds %s", ref.TxID)
			} else {
				n.mustBecomeValid(t, source)
			}
		}
	}
	holds := holder(t, n, byID)
	// The invalid ones come first: once a valid one of the same id is in the
	// ledger, it would be taken for a repetition.
	posted, refused, unheld := 0, 0, 0
	for _, v := range file.Transactions {
		if v.Valid {
			continue
		}
		kind, known := vectorKinds[v.Why]
		if !known {
			t.Errorf("%s: the test does not know what %q means", v.Name, v.Why)
		}
		tx := parse(t, v.Transaction)
		if !holds(tx) {
			unheld++
			continue
		}
		history(tx)
		n.wantError(t, http.MethodPost, transactionsPath, v.Transaction, http.StatusBadRequest, "Invalid transaction ("+string(kind)+"): ")
		if status, _, err := n.status(tx.ID); err != nil || status != "" && byID[tx.ID] == nil {
			t.Errorf("%s: got status %q, %v, want none", v.Name, status, err)
		}
		refused++
	}
	for _, v := range file.Transactions {
		if !v.Valid {
			continue
		}
		tx := parse(t, v.Transaction)
		if !holds(tx) {
			n.want(t, http.MethodPost, transactionsPath, v.Transaction, http.StatusBadRequest)
			unheld++
			continue
		}
		history(tx)
		there, err := n.do(http.MethodGet, transactionsPath+tx.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if there.status == http.StatusOK && string(there.body) != string(tx.Bytes()) {
			// The same transaction signed by others: it needs a fresh ledger.
			n = newNode(t)
			n.start()
			history(tx)
		}
		a := n.want(t, http.MethodPost, transactionsPath, v.Transaction, http.StatusAccepted)
		if string(a.body) != string(tx.Bytes()) {
			t.Errorf("%s: got %s, want %s", v.Name, a.body, tx.Bytes())
		}
		n.awaitValid(t, tx.ID)
		if a := n.get(t, transactionsPath+tx.ID); string(a.body) != string(tx.Bytes()) {
			t.Errorf("%s: got %s, want %s", v.Name, a.body, tx.Bytes())
		}
		posted++
	}
	if posted+refused+unheld != 26 || posted < 8 {
		t.Errorf("posted %d and refused %d, and %d the database does not hold, want all 26", posted, refused, unheld)
	}
}

// holder tells of transactions whether the node's database holds them, and what
// they spend: FerretDB, unlike MongoDB, holds no array in an array.
func holder(t *testing.T, n *node, byID map[string]*ledger.Transaction) func(*ledger.Transaction) bool {
	if n.backend != configs.MongoDB {
		return func(*ledger.Transaction) bool { return true }
	}
	db, err := n.store()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var holds func(*ledger.Transaction) bool
	holds = func(tx *ledger.Transaction) bool {
		if err := db.Check(tx.Value()); err != nil {
			t.Logf("%s is not tested: %v", tx.ID, err)
			return false
		}
		for _, ref := range tx.Spends() {
			if source := byID[ref.TxID]; source != nil && !holds(source) {
				return false
			}
		}
		return true
	}
	return holds
}
