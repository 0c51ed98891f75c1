package httpapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

func TestBadRequests(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	for _, test := range []struct {
		path   string
		status int
		names  string // what the message must hold
	}{
		{"/transactions", 400, "asset_id"},
		{"/transactions?operation=CREATE", 400, "asset_id"},
		{"/transactions?asset_id=" + noID[1:], 400, "asset_id"},
		{"/transactions?asset_id=" + noID + "0", 400, "asset_id"},
		{"/transactions?asset_id=" + strings.Replace(noID, "0", "g", 1), 400, "asset_id"},
		{"/transactions?asset_id=", 400, "asset_id"},
		{"/transactions?asset_id", 400, "asset_id"},
		{"/transactions?asset_id=" + noID + "&operation=GENESIS", 400, "operation"},
		{"/transactions?asset_id=" + noID + "&operation=", 400, "operation"},
		{"/transactions?asset_id=" + noID + "&operation=CREATE&operation=CREATE", 400, "operation"},
		{"/transactions?asset_id=" + noID + "&colour=red", 400, "colour"},
		{"/transactions?asset_id=" + noID + "&Operation=CREATE", 400, "Operation"},
		{"/transactions?asset_id=" + noID + "&limit=0", 400, "limit"},
		{"/transactions?asset_id=" + noID + "&limit=1001", 400, "limit"},
		{"/transactions?asset_id=" + noID + "&limit=-1", 400, "limit"},
		{"/transactions?asset_id=" + noID + "&limit=+1", 400, "limit"},
		{"/transactions?asset_id=" + noID + "&limit=1e2", 400, "limit"},
		{"/transactions?asset_id=" + noID + "&limit=99999999999999999999999", 400, "limit"},
		{"/transactions?asset_id=" + noID + "&limit=1&bookmark=!!", 400, "bookmark"},
		{"/transactions?asset_id=" + noID + "&limit=1&bookmark=AAAA", 400, "bookmark"},
		{"/transactions?asset_id=" + noID + "&limit=1&bookmark=AAAAAAAAAAAAAAAAAAAAAAAA", 400, "bookmark"},
		{"/transactions?asset_id=%zz", 400, "asset_id"},
		{"/transactions?%zz=1", 400, "%zz"},
		{"/transactions?asset_id=" + noID + ";operation=CREATE", 400, "asset_id"},
		{"/transactions?mode=commit&asset_id=" + noID, 400, "mode"},
		{"/transactions/" + noID[1:], 404, ""},
		{"/transactions/xyz", 404, ""},
		{"/transactions/" + noID + "/outputs/0", 404, ""},
		{"/transactions/" + noID + "?x=1", 400, "x"},
		{"/outputs", 400, "public_key"},
		{"/outputs?public_key=1AAAbbb...ccc", 400, "public_key"},
		{"/outputs?public_key=" + strings.Repeat("1", 1000), 400, "public_key"},
		{"/outputs?public_key=" + strings.Repeat("z", 44), 400, "public_key"},
		{"/outputs?public_key=" + someKey[2:], 400, "public_key"},
		{"/outputs?unspent=true", 400, "public_key"},
		{"/outputs?public_key=" + someKey + "&unspent=1", 400, "unspent"},
		{"/outputs?public_key=" + someKey + "&unspent=True", 400, "unspent"},
		{"/statuses", 400, "tx_id"},
		{"/statuses?tx_id=" + noID + "&block_id=" + noID, 400, "exactly one"},
		{"/statuses?tx_id=abc", 400, "tx_id"},
		{"/statuses?block_id=abc", 400, "block_id"},
		{"/blocks", 400, "tx_id"},
		{"/blocks?status=VALID", 400, "tx_id"},
		{"/blocks?tx_id=" + noID + "&status=backlog", 400, "status"},
		{"/blocks/abc", 404, ""},
		{"/votes", 400, "block_id"},
		{"/votes?block_id=abc", 400, "block_id"},
		{"?x=1", 400, "x"},
		{"/streams/valid_tx?x=1", 400, "x"},
		{"/streams/valid_tx", 426, "WebSocket"},
		{"/streams/", 404, ""},
		{"/nothing", 404, ""},
		{"//transactions", 404, ""},
	} {
		wantError(t, "GET "+test.path, get(t, base+"/api/v1"+test.path), test.status, test.names)
	}
	wantError(t, "GET /nothing", get(t, base+"/nothing"), 404, "")
	wantError(t, "POST mode", do(t, http.MethodPost, base+"/api/v1/transactions?mode=sync", "{}"), 400, "mode")
}

func TestMethods(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	for _, test := range []struct{ method, path, allow string }{
		{http.MethodDelete, "/api/v1/transactions", "GET, HEAD, POST"},
		{http.MethodPut, "/api/v1/transactions/" + noID, "GET, HEAD"},
		{http.MethodPost, "/api/v1/blocks/", "GET, HEAD"},
		{http.MethodPost, "/", "GET, HEAD"},
		{http.MethodPatch, "/healthz", "GET, HEAD"},
		{"BREW", "/api/v1", "GET, HEAD"},
	} {
		got := do(t, test.method, base+test.path, "")
		wantError(t, test.method+" "+test.path, got, 405, "method")
		if allow := got.header.Get("Allow"); !strings.HasSuffix(allow, test.allow) {
			t.Errorf("%s %s: got Allow %q, want it to end with %q", test.method, test.path, allow, test.allow)
		}
		options := do(t, http.MethodOptions, base+test.path, "")
		if allow := options.header.Get("Allow"); options.status != 204 || !strings.HasSuffix(allow, test.allow) {
			t.Errorf("OPTIONS %s: got %d, Allow %q", test.path, options.status, allow)
		}
	}
}

// TestNodeErrors has every call of the node fail in every way.
func TestNodeErrors(t *testing.T) {
	var fault error
	n := fakenode.New()
	n.Retry = 1500 * time.Millisecond
	n.Hook = func(string, string) error {
		if fault == nil {
			panic("a secret of the node's")
		}
		return fault
	}
	_, base := start(t, n, Options{})
	key := "public_key=" + someKey
	reads := []string{
		"/transactions/" + noID, "/transactions?asset_id=" + noID, "/outputs?" + key, "/outputs?limit=5&" + key,
		"/statuses?tx_id=" + noID, "/statuses?block_id=" + noID, "/blocks/" + noID, "/blocks?tx_id=" + noID, "/votes?block_id=" + noID,
	}
	for _, test := range []struct {
		err     error
		status  int
		message string
	}{
		{nil, 500, "internal error"},
		{errors.New("open /var/lib/secret: permission denied"), 500, "internal error"},
		{fmt.Errorf("reading: %w", statedb.ErrUnavailable), 503, "the database does not answer"},
		{node.ErrBusy, 503, node.ErrBusy.Error()},
		{fmt.Errorf("%w: it catches up", node.ErrNotReady), 503, "it catches up"},
	} {
		fault = test.err
		var answers []answer
		for _, path := range reads {
			answers = append(answers, get(t, base+"/api/v1"+path))
		}
		answers = append(answers, do(t, http.MethodPost, base+"/api/v1/transactions", "{}"))
		for i, got := range answers {
			wantError(t, fmt.Sprintf("%v, request %d", test.err, i), got, test.status, test.message)
			if strings.Contains(got.body, "secret") {
				t.Errorf("internals leak: %s", got.body)
			}
			if retry := got.header.Get("Retry-After"); (test.status == 503) != (retry == "2") {
				t.Errorf("%v: got Retry-After %q", test.err, retry)
			}
		}
	}
	fault = fmt.Errorf("%w: it has 7 blocks to read", node.ErrNotReady)
	wantError(t, "readyz", get(t, base+"/readyz"), 503, "7 blocks")

	for _, test := range []struct {
		err     error
		status  int
		message string
	}{
		{ledger.Invalid(ledger.DoubleSpend, "output 0 is spent"), 400, "Invalid transaction (DoubleSpend): output 0 is spent"},
		{&node.RefusedError{Reason: "Invalid transaction (AmountError): 1 is not 2"}, 400, "Invalid transaction (AmountError): 1 is not 2"},
		{&statedb.UnsupportedError{Path: "asset.data.x", Reason: "too large"}, 400, "asset.data.x: too large"},
		{ledger.Invalid(ledger.SchemaValidationError, "no \xff UTF-8"), 400, "no \uFFFD UTF-8"},
	} {
		fault = test.err
		wantError(t, test.message, do(t, http.MethodPost, base+"/api/v1/transactions", "{}"), test.status, test.message)
	}
	fault = node.ErrBadCursor
	wantError(t, "bad cursor", get(t, base+"/api/v1/outputs?"+key), 400, "bookmark")
}

// TestWholeListCutShort fails a list after its first step: the client must
// see that it is not whole.
func TestWholeListCutShort(t *testing.T) {
	n := fakenode.New()
	_, base := start(t, n, Options{})
	for i := range 3 {
		post(t, base, fakenode.CreateTx(someKey, i, 900))
	}
	n.Hook = func(method, cursor string) error {
		if method == "Outputs" && cursor != "" {
			return errors.New("disk on fire")
		}
		return nil
	}
	resp, err := http.Get(base + "/api/v1/outputs?public_key=" + someKey)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || len(text) == 0 || err == nil {
		t.Errorf("got status %d, %d bytes and error %v, want a cut answer", resp.StatusCode, len(text), err)
	}
	wantError(t, "the same as pages", get(t, strings.Replace(nextLink(get(t, base+"/api/v1/outputs?limit=10&public_key="+someKey)), "limit=10", "limit=11", 1)), 500, "internal")
}

// TestPlainWriter serves a whole list to a ResponseWriter without deadlines.
func TestPlainWriter(t *testing.T) {
	s := New(fakenode.New(), Options{})
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/votes?block_id="+noID, nil))
	if w.Code != 200 || w.Body.String() != "[]" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
