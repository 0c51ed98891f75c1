package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// TestScale measures for E2E_SCALE=20s each what federations of 1, 2, 4 and 7
// nodes make valid on one CouchDB and one machine, and what that costs: blocks,
// votes, and requests to the database for each transaction.
func TestScale(t *testing.T) {
	text := os.Getenv("E2E_SCALE")
	if text == "" {
		t.Skip("not tested: how a federation scales; E2E_SCALE=20s measures it")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("E2E_SCALE: %v", err)
	}
	couch := servers[slices.IndexFunc(servers, func(b backend) bool { return b.name == configs.CouchDB })]
	_, address := couch.own(t)
	var b strings.Builder
	fmt.Fprintf(&b, "%5s %10s %8s %12s %12s %10s %14s\n", "nodes", "valid/s", "of 1", "tx per block", "votes per tx", "requests", "requests per tx")
	var alone float64
	for _, n := range []int{1, 2, 4, 7} {
		s := measureScale(t, couch, address, n, length)
		if n == 1 {
			alone = s.rate
		}
		fmt.Fprintf(&b, "%5d %10.0f %8.2f %12.1f %12.3f %10.0f %14.3f\n", n, s.rate, s.rate/alone,
			s.valid/s.blocks, s.votes/s.valid, s.requests, s.requests/s.valid)
	}
	t.Log("\n" + b.String())
}

// scale is what one federation did.
type scale struct{ rate, valid, blocks, votes, requests float64 }

func measureScale(t *testing.T, b backend, a address, count int, length time.Duration) (s scale) {
	nodes := startMembers(t, b, a, count, "BIGCHAINDB_BACKLOG_REASSIGN_DELAY=120") // the default
	before := couchRequests(t, a)
	end := time.Now().Add(length)
	const clients = 64
	var posting sync.WaitGroup
	ids := make([][]string, clients)
	for i := range clients {
		posting.Go(func() {
			owner := ledger.GenerateKeyPair()
			for time.Now().Before(end) {
				tx := create(t, owner)
				a, err := nodes[i%len(nodes)].do(http.MethodPost, transactionsPath, tx.Bytes())
				switch {
				case err == nil && a.status == http.StatusAccepted:
					ids[i] = append(ids[i], tx.ID)
				case err != nil || a.status != http.StatusServiceUnavailable:
					t.Errorf("POST: %v, %v", a, err)
					return
				default:
					time.Sleep(100 * time.Millisecond) // as the answer asks for
				}
			}
		})
	}
	begin := time.Now()
	posting.Wait()
	for _, list := range ids {
		s.valid += float64(len(list))
		for _, id := range list {
			nodes[0].awaitValid(t, id)
		}
	}
	s.rate = s.valid / time.Since(begin).Seconds()
	s.requests = couchRequests(t, a) - before
	db, err := nodes[0].store()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s.blocks, s.votes = countAll(t, db, statedb.Bigchain)-2, countAll(t, db, statedb.Votes) // without the genesis block and its claim
	for _, n := range nodes {
		n.stop()
	}
	return s
}

// countAll counts a table's documents.
func countAll(t *testing.T, db statedb.DB, table string) (n float64) {
	t.Helper()
	for r := (statedb.Range{Limit: 1000}); ; {
		page, err := db.Range(t.Context(), table, r)
		if err != nil {
			t.Fatal(err)
		}
		n += float64(len(page.Documents))
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			return n
		}
	}
}

// couchRequests is how many requests a CouchDB has answered.
func couchRequests(t *testing.T, a address) float64 {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		fmt.Sprintf("http://%s:%d/_node/_local/_stats/couchdb/httpd/requests", a.host, a.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(a.login, a.password)
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var counter struct {
		Value float64 `json:"value"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&counter); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the count of requests: %s, %v", resp.Status, err)
	}
	return counter.Value
}
