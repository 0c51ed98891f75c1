package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

const (
	transactionsPath = "/api/v1/transactions/"
	contentJSON      = "application/json"
)

// answer is what the node answered to a request.
type answer struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

func (a answer) String() string { return fmt.Sprintf("%d %.300s", a.status, a.body) }

// do sends a request. It may be called from any goroutine.
func (n *node) do(method, path string, body []byte) (answer, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	return n.send(method, path, reader)
}

// sendWith is do with headers.
func (n *node) sendWith(method, path string, body []byte, header http.Header) (answer, error) {
	return n.sendRequest(method, path, bytes.NewReader(body), header)
}

func (n *node) send(method, path string, body io.Reader) (answer, error) {
	return n.sendRequest(method, path, body, nil)
}

func (n *node) sendRequest(method, path string, body io.Reader, header http.Header) (answer, error) {
	req, err := http.NewRequest(method, n.scheme+"://"+n.addr+path, body)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentJSON)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	began := time.Now()
	resp, err := n.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	a.took = time.Since(began)
	return a, err
}

// get asks for a path that must be answered with 200 and JSON.
func (n *node) get(t testing.TB, path string) answer {
	t.Helper()
	return n.want(t, http.MethodGet, path, nil, http.StatusOK)
}

// want sends a request that must be answered with a status and JSON.
func (n *node) want(t testing.TB, method, path string, body []byte, status int) answer {
	t.Helper()
	a, err := n.do(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.status != status {
		t.Fatalf("%s %s: got %v, want status %d", method, path, a, status)
	}
	if got := a.header.Get("Content-Type"); got != contentJSON {
		t.Errorf("%s %s: got Content-Type %q, want %q", method, path, got, contentJSON)
	}
	return a
}

// wantError sends a request that must be refused with the documented body,
// whose message has all the parts.
func (n *node) wantError(t testing.TB, method, path string, body []byte, status int, parts ...string) answer {
	t.Helper()
	a := n.want(t, method, path, body, status)
	checkErrorBody(t, fmt.Sprintf("%s %s", method, path), a, parts...)
	return a
}

func checkErrorBody(t testing.TB, what string, a answer, parts ...string) {
	t.Helper()
	var e struct {
		Status  int
		Message string
	}
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil || e.Status != a.status || e.Message == "" {
		t.Errorf(`%s: got %v (%v), want {"status": %d, "message": "…"}`, what, a, err, a.status)
	}
	for _, part := range parts {
		if !strings.Contains(e.Message, part) {
			t.Errorf("%s: got message %q, want %q in it", what, e.Message, part)
		}
	}
}

// messageOf returns the message of an error body.
func messageOf(a answer) string {
	var e struct{ Message string }
	if json.Unmarshal(a.body, &e) != nil {
		return string(a.body)
	}
	return e.Message
}

func decode[T any](t testing.TB, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	return v
}

// postAccepted posts a transaction that must be answered with 202 and itself.
func (n *node) postAccepted(t testing.TB, tx *ledger.Transaction) answer {
	t.Helper()
	a := n.want(t, http.MethodPost, transactionsPath, tx.Bytes(), http.StatusAccepted)
	if got, err := ledger.ParseTransaction(a.body); err != nil || !got.SameBody(tx) {
		t.Errorf("answer to a POST: got %s (%v), want %s", a.body, err, tx.Bytes())
	}
	return a
}

// status asks for a transaction's status: "valid", "undecided" or "backlog",
// else "" with the message of the 404.
func (n *node) status(txID string) (status, reason string, err error) {
	a, err := n.do(http.MethodGet, "/api/v1/statuses?tx_id="+txID, nil)
	switch {
	case err != nil:
		return "", "", err
	case a.status == http.StatusNotFound:
		return "", messageOf(a), nil
	case a.status != http.StatusOK:
		return "", "", fmt.Errorf("status of %s: %v", txID, a)
	}
	var s struct{ Status string }
	err = json.Unmarshal(a.body, &s)
	return s.Status, "", err
}

func (n *node) awaitValid(t testing.TB, txID string) {
	t.Helper()
	eventually(t, "transaction "+txID+" becomes valid", func() (bool, string) {
		status, reason, err := n.status(txID)
		if err != nil {
			t.Fatal(err)
		}
		if status == "" {
			t.Fatalf("transaction %s: no status: %s", txID, reason)
		}
		return status == "valid", status
	})
}

// mustBecomeValid posts a transaction and waits until it is valid.
func (n *node) mustBecomeValid(t testing.TB, tx *ledger.Transaction) {
	t.Helper()
	n.postAccepted(t, tx)
	n.awaitValid(t, tx.ID)
}

// list asks for a list of texts.
func (n *node) list(t testing.TB, path string) []string {
	t.Helper()
	return decode[[]string](t, n.get(t, path))
}

func (n *node) wantList(t testing.TB, path string, want ...string) {
	t.Helper()
	if got := n.list(t, path); got == nil || !slices.Equal(got, want) {
		t.Errorf("GET %s: got %q, want %q", path, got, want)
	}
}

// transactions asks for a list of transactions.
func (n *node) transactions(t testing.TB, path string) []*ledger.Transaction {
	t.Helper()
	return parseTransactions(t, n.get(t, path))
}

func parseTransactions(t testing.TB, a answer) []*ledger.Transaction {
	t.Helper()
	list := []*ledger.Transaction{}
	for _, raw := range decode[[]json.RawMessage](t, a) {
		tx, err := ledger.ParseTransaction(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		list = append(list, tx)
	}
	return list
}

func (n *node) wantTransactions(t testing.TB, path string, want ...*ledger.Transaction) {
	t.Helper()
	got := n.transactions(t, path)
	if !slices.EqualFunc(got, want, func(a, b *ledger.Transaction) bool { return a.SameBody(b) }) {
		t.Errorf("GET %s: got %v, want %v", path, idsOf(got), idsOf(want))
	}
}

func idsOf(list []*ledger.Transaction) []string {
	ids := make([]string, len(list))
	for i, tx := range list {
		ids[i] = tx.ID
	}
	return ids
}

func outputLink(txID string, index int) string {
	return fmt.Sprintf("../transactions/%s/outputs/%d", txID, index)
}

// root is what the root says about the node.
type root struct {
	Key     string `json:"public_key"`
	Keyring []string
}

func (n *node) key(t testing.TB) string {
	t.Helper()
	return decode[root](t, n.get(t, "/")).Key
}

func (n *node) keyring(t testing.TB) []string {
	t.Helper()
	return decode[root](t, n.get(t, "/")).Keyring
}
