package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
)

// nextPath returns path and query of the Link to the next page, "" without one.
func nextPath(t testing.TB, n *node, a answer) string {
	t.Helper()
	link := a.header.Get("Link")
	if link == "" {
		return ""
	}
	url, ok := strings.CutSuffix(link, `>; rel="next"`)
	path, local := strings.CutPrefix(url, "<http://"+n.addr)
	if !ok || !local {
		t.Fatalf(`got Link %q, want <http://%s/…>; rel="next"`, link, n.addr)
	}
	return path
}

// pages walks a list page by page and returns its rows. Between two pages it
// calls between.
func (n *node) pages(t testing.TB, path string, limit int, between func()) []string {
	t.Helper()
	var rows []string
	seen := map[string]bool{}
	for path = fmt.Sprintf("%s&limit=%d", path, limit); path != ""; {
		a := n.get(t, path)
		page := decode[[]json.RawMessage](t, a)
		path = nextPath(t, n, a)
		if len(page) > limit || len(page) < limit && path != "" {
			t.Errorf("a page has %d rows and leads to %q, limit is %d", len(page), path, limit)
		}
		for _, row := range page {
			if seen[string(row)] {
				t.Errorf("row %.100s comes twice", row)
			}
			seen[string(row)] = true
			rows = append(rows, string(row))
		}
		if path != "" && between != nil {
			between()
		}
	}
	return rows
}

// TestReadersDuringLoad reads lists while they grow: page by page and whole,
// what was there at the beginning comes once and in order.
func TestReadersDuringLoad(t *testing.T) { eachBackend(t, testReadersDuringLoad) }

func testReadersDuringLoad(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	amounts := make([]int64, 60)
	for i := range amounts {
		amounts[i] = 1
	}
	asset := create(t, alice, amounts...)
	n.mustBecomeValid(t, asset)
	coins := coinsOf(asset)
	first := 25
	var history []*ledger.Transaction
	give := func() *ledger.Transaction { // one coin comes back to its owner
		tx := mustSpend(t, alice, alice.Public, coins[0])
		coins = coins[1:]
		history = append(history, tx)
		return tx
	}
	for range first {
		n.want(t, http.MethodPost, transactionsPath+"?mode=commit", give().Bytes(), http.StatusOK)
	}

	lists := []string{
		transactionsPath + "?asset_id=" + asset.ID,
		transactionsPath + "?operation=TRANSFER&asset_id=" + asset.ID,
		"/api/v1/outputs?public_key=" + alice.Public,
		"/api/v1/outputs?unspent=false&public_key=" + alice.Public,
	}
	for _, path := range lists {
		whole := decode[[]json.RawMessage](t, n.get(t, path))
		var before []string
		for _, row := range whole {
			before = append(before, string(row))
		}
		for _, limit := range []int{1, 7, 1000} {
			if got := n.pages(t, path, limit, nil); !slices.Equal(got, before) {
				t.Errorf("GET %s by %d: got %d rows, want the %d of the whole list", path, limit, len(got), len(before))
			}
		}
		grown := n.pages(t, path, 7, func() {
			if len(coins) > 10 {
				n.want(t, http.MethodPost, transactionsPath+"?mode=commit", give().Bytes(), http.StatusOK)
			}
		})
		if len(grown) < len(before) || !slices.Equal(grown[:len(before)], before) {
			t.Errorf("GET %s while it grows: got %d rows, want the %d from before first", path, len(grown), len(before))
		}
		coins = append(coins, coinsOf(history[len(history)-1])...)
	}
	n.wantTransactions(t, lists[1], history...)
	wantUnspentPaging(t, n, alice, coins)
}

// wantUnspentPaging pages through what is unspent while it is spent: what
// stays unspent comes once, what was spent at the beginning never.
func wantUnspentPaging(t *testing.T, n *node, owner ledger.KeyPair, coins []coin) {
	t.Helper()
	path := "/api/v1/outputs?unspent=true&public_key=" + owner.Public
	before := n.list(t, path)
	bob := ledger.GenerateKeyPair()
	spent := map[string]bool{}
	got := n.pages(t, path, 3, func() {
		if len(coins) == 0 {
			return
		}
		c := coins[len(coins)/2]
		coins = slices.DeleteFunc(coins, func(other coin) bool { return other == c })
		tx := mustSpend(t, owner, bob.Public, c)
		if a, err := n.do(http.MethodPost, transactionsPath+"?mode=commit", tx.Bytes()); err != nil || a.status != http.StatusOK {
			t.Errorf("POST: %v, %v", a, err)
		}
		spent[outputLink(c.tx.ID, c.index)] = true
	})
	var rows []string
	for _, row := range got {
		rows = append(rows, strings.Trim(row, `"`))
	}
	for _, link := range before {
		if !spent[link] && !slices.Contains(rows, link) {
			t.Errorf("unspent output %s is not on any page", link)
		}
	}
	for _, link := range rows {
		if !slices.Contains(before, link) {
			t.Errorf("output %s is on a page and was not unspent before", link)
		}
	}
	if len(spent) < 3 || len(n.list(t, path)) != len(before)-len(spent) {
		t.Errorf("of %d unspent outputs %d were spent, %d are left", len(before), len(spent), len(n.list(t, path)))
	}
}

// streamed is more than one step of a list that is streamed whole.
const streamed = 2500

// TestStatusOnlyForwards asks for the status of transactions on their way, and
// reads the whole list of an owner's outputs, which takes several steps, while
// many connections post.
func TestStatusOnlyForwards(t *testing.T) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	n.mustBecomeValid(t, create(t, alice, slices.Repeat([]int64{1}, streamed)...))
	stage := map[string]int{"backlog": 1, "undecided": 2, "valid": 3}
	counts := make([]int, 4)
	var mu sync.Mutex
	var clients sync.WaitGroup
	each := 40
	if testing.Short() {
		each = 10
	}
	for range 6 {
		txs := make([]*ledger.Transaction, each)
		for i := range txs {
			txs[i] = create(t, alice)
		}
		clients.Go(func() {
			for _, tx := range txs {
				a, err := n.do(http.MethodPost, transactionsPath, tx.Bytes())
				if err != nil || a.status != http.StatusAccepted {
					t.Errorf("POST: %v, %v", a, err)
					return
				}
				for at := 0; at < 3; {
					status, reason, err := n.status(tx.ID)
					now := stage[status]
					if err != nil || now == 0 || now < at {
						t.Errorf("transaction %s: status %q (%s, %v) after stage %d", tx.ID, status, reason, err, at)
						return
					}
					at = now
					mu.Lock()
					counts[now]++
					mu.Unlock()
				}
				if a, err := n.do(http.MethodGet, transactionsPath+tx.ID, nil); err != nil || a.status != http.StatusOK {
					t.Errorf("GET of a valid transaction: %v, %v", a, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	path := "/api/v1/outputs?public_key=" + alice.Public
	for before := n.list(t, path)[:streamed]; ; {
		list := n.list(t, path) // whole, while it grows
		if len(list) < len(before) || !slices.Equal(list[:len(before)], before) {
			t.Fatalf("the list of outputs had %d rows, now %d, and does not begin with them", len(before), len(list))
		}
		before = list
		select {
		case <-done:
			t.Logf("statuses seen: %d backlog, %d undecided, %d valid", counts[1], counts[2], counts[3])
			if got := len(n.list(t, path)); got != streamed+6*each {
				t.Errorf("got %d outputs, want %d", got, streamed+6*each)
			}
			if counts[1]+counts[2] == 0 {
				t.Errorf("no transaction was seen on its way")
			}
			return
		default:
		}
	}
}

// TestCommit posts with mode=commit: the answer is the verdict.
func TestCommit(t *testing.T) { eachBackend(t, testCommit) }

func testCommit(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	alice, bob := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	for range 5 {
		asset := create(t, alice)
		commit := transactionsPath + "?mode=commit"
		a := n.want(t, http.MethodPost, commit, asset.Bytes(), http.StatusOK)
		if string(a.body) != string(asset.Bytes()) {
			t.Errorf("mode=commit: got %s, want %s", a.body, asset.Bytes())
		}
		if status, _, err := n.status(asset.ID); status != "valid" || err != nil {
			t.Errorf("after mode=commit: got status %q, %v, want valid", status, err)
		}
		n.want(t, http.MethodPost, commit, asset.Bytes(), http.StatusOK) // again, and it is valid already

		var rivals sync.WaitGroup
		answers := make([]answer, 4)
		for i := range answers {
			tx := mustSpend(t, alice, bob.Public, coinsOf(asset)...)
			rivals.Go(func() {
				var err error
				if answers[i], err = n.do(http.MethodPost, commit, tx.Bytes()); err != nil {
					t.Error(err)
				}
			})
		}
		rivals.Wait()
		won := 0
		for _, a := range answers {
			switch a.status {
			case http.StatusOK:
				won++
			case http.StatusBadRequest:
				checkErrorBody(t, "a rival", a, "Invalid transaction (DoubleSpend): ")
			default:
				t.Errorf("a rival: got %v, want 200 or 400", a)
			}
		}
		if won != 1 {
			t.Errorf("%d of %d rivals won, want 1", won, len(answers))
		}
	}
}
