package httpapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
)

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("not the JSON expected: %v\n%.300s", err, text)
	}
}

// history posts a CREATE and two TRANSFERs and returns their bodies and ids.
func history(t testing.TB, base string) (bodies []string, ids []string) {
	t.Helper()
	body := fakenode.CreateTx(someKey, 1, 2)
	asset := post(t, base, body)
	bodies, ids = []string{string(body)}, []string{asset}
	for range 2 {
		last := ledger.OutputRef{TxID: ids[len(ids)-1]}
		body = fakenode.TransferTx(someKey, asset, last)
		bodies, ids = append(bodies, string(body)), append(ids, post(t, base, body))
	}
	return bodies, ids
}

// TestDocumentedExamples sends every example request of the documents' HTTP
// chapter, and its neighbours, and compares whole bodies.
func TestDocumentedExamples(t *testing.T) {
	n := fakenode.New()
	_, base := start(t, n, Options{Version: "1.2.3"})
	bodies, ids := history(t, base)

	n.Manual = true
	pending := post(t, base, fakenode.CreateTx(someKey, 2, 1))
	invalid := n.Decide("invalid")
	undecided := n.Decide("undecided")
	waiting := post(t, base, fakenode.CreateTx(someKey, 3, 1))
	n.Refuse("Invalid transaction (DoubleSpend): someone was faster")
	refused := waiting
	waiting = post(t, base, fakenode.CreateTx(someKey, 4, 1))

	var blocks, votes, block string
	{
		var list []string
		decode(t, get(t, base+"/api/v1/blocks?tx_id="+ids[0]).body, &list)
		block = list[0]
		raw, err := n.Block(t.Context(), block)
		if err != nil {
			t.Fatal(err)
		}
		blocks = string(raw)
		all, _, err := n.Votes(t.Context(), block, pageOf(10))
		if err != nil {
			t.Fatal(err)
		}
		votes = "[" + string(all[0]) + "]"
	}
	output := func(id, index string) string { return `"../transactions/` + id + `/outputs/` + index + `"` }

	n.Met = []journal.Fault{
		{Kind: "two-verdicts", Node: someKey, Block: block, Document: "votes/x", What: "it lied", Seen: 7, Evidence: []string{`{"a": 1}`, "a key", `{"cut… (9 bytes)`}},
		{Kind: "not-a-vote", Document: "votes/y", What: "garbage", Seen: 8},
	}

	for _, test := range []struct {
		path     string
		status   int
		body     string // whole, "" to skip
		location string
	}{
		{"/api/v1/transactions/" + ids[0], 200, bodies[0], ""},
		{"/api/v1/transactions/" + strings.ToUpper(ids[0]), 200, bodies[0], ""},
		{"/api/v1/transactions/%" + hexByte(ids[0][0]) + ids[0][1:], 200, bodies[0], ""},
		{"/api/v1/transactions?operation=TRANSFER&asset_id=" + ids[0], 200, "[" + bodies[1] + "," + bodies[2] + "]", ""},
		{"/api/v1/transactions?operation=create&asset_id=" + strings.ToUpper(ids[0]), 200, "[" + bodies[0] + "]", ""},
		{"/api/v1/transactions?asset_id=" + ids[0], 200, "[" + strings.Join(bodies, ",") + "]", ""},
		{"/api/v1/transactions?asset_id=" + noID, 200, "[]", ""},
		{"/api/v1/transactions/" + pending, 404, "", ""},
		{"/api/v1/outputs?public_key=" + someKey, 200, "[" + output(ids[0], "0") + "," + output(ids[0], "1") + "," +
			output(ids[1], "0") + "," + output(ids[2], "0") + "," + output(pending, "0") + "]", ""},
		{"/api/v1/outputs?unspent=true&public_key=" + someKey, 200, "[" + output(ids[0], "1") + "," +
			output(ids[2], "0") + "," + output(pending, "0") + "]", ""},
		{"/api/v1/outputs?public_key=" + n.PublicKey(), 200, "[]", ""},
		{"/api/v1/statuses?tx_id=" + ids[1], 200, `{"status":"valid","_links":{"tx":"/transactions/` + ids[1] + `"}}`, "/api/v1/transactions/" + ids[1]},
		{"/api/v1/statuses?tx_id=" + pending, 200, `{"status":"undecided","_links":{"tx":"/transactions/` + pending + `"}}`, ""},
		{"/api/v1/statuses?tx_id=" + waiting, 200, `{"status":"backlog","_links":{"tx":"/transactions/` + waiting + `"}}`, ""},
		{"/api/v1/statuses?tx_id=" + refused, 404, `{"status":404,"message":"Invalid transaction (DoubleSpend): someone was faster"}`, ""},
		{"/api/v1/statuses?tx_id=" + noID, 404, "", ""},
		{"/api/v1/statuses?block_id=" + block, 200, `{"status":"valid","_links":{"block":"/blocks/` + block + `"}}`, "/api/v1/blocks/" + block},
		{"/api/v1/statuses?block_id=" + invalid, 200, `{"status":"invalid"}`, ""},
		{"/api/v1/statuses?block_id=" + undecided, 200, `{"status":"undecided"}`, ""},
		{"/api/v1/statuses?block_id=" + noID, 404, "", ""},
		{"/api/v1/blocks/" + block, 200, blocks, ""},
		{"/api/v1/blocks/" + noID, 404, "", ""},
		{"/api/v1/blocks", 400, "", ""},
		{"/api/v1/blocks?tx_id=" + pending, 200, `["` + invalid + `","` + undecided + `"]`, ""},
		{"/api/v1/blocks?tx_id=" + pending + "&status=UNDECIDED", 200, `["` + undecided + `"]`, ""},
		{"/api/v1/blocks?tx_id=" + pending + "&status=invalid", 200, `["` + invalid + `"]`, ""},
		{"/api/v1/blocks?tx_id=" + noID, 200, "[]", ""},
		{"/api/v1/votes?block_id=" + block, 200, votes, ""},
		{"/api/v1/votes?block_id=" + noID, 200, "[]", ""},
		{"/api/v1/faults", 200, `[{"block":"` + block + `","document":"votes/x","evidence":[{"a":1},"a key","{\"cut… (9 bytes)"],` +
			`"kind":"two-verdicts","node":"` + someKey + `","seen":7,"what":"it lied"},` +
			`{"block":null,"document":"votes/y","evidence":[],"kind":"not-a-vote","node":null,"seen":8,"what":"garbage"}]`, ""},
		{"/api/v1/faults?bookmark=x", 400, "", ""},
		{"/healthz", 200, `{"status":"alive"}`, ""},
		{"/readyz", 200, `{"status":"ready"}`, ""},
	} {
		path, rawQuery, _ := strings.Cut(test.path, "?")
		for _, variant := range []string{path, path + "/"} {
			if rawQuery != "" {
				variant += "?" + rawQuery
			}
			got := get(t, base+variant)
			if got.status != test.status {
				t.Errorf("GET %s: got %d %.200s, want %d", variant, got.status, got.body, test.status)
				continue
			}
			if ct := got.header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("GET %s: got Content-Type %q", variant, ct)
			}
			if test.body != "" && got.body != test.body {
				t.Errorf("GET %s:\n got %.400s\nwant %.400s", variant, got.body, test.body)
			}
			if location := got.header.Get("Location"); location != test.location {
				t.Errorf("GET %s: got Location %q, want %q", variant, location, test.location)
			} else if location != "" && get(t, base+location).status != 200 {
				t.Errorf("GET %s: its Location %s leads nowhere", variant, location)
			}
			if test.status == 404 || test.status == 400 {
				wantError(t, "GET "+variant, got, test.status, "")
			}
			head := do(t, http.MethodHead, base+variant, "")
			if head.status != got.status || head.body != "" || head.header.Get("Content-Length") != got.header.Get("Content-Length") {
				t.Errorf("HEAD %s: got %d, length %s, body %q; GET gave %d, length %s", variant,
					head.status, head.header.Get("Content-Length"), head.body, got.status, got.header.Get("Content-Length"))
			}
		}
	}
}

func hexByte(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

func TestRoots(t *testing.T) {
	n := fakenode.New()
	_, direct := start(t, n, Options{Version: "1.2.3"})
	_, proxied := start(t, n, Options{TrustForwarded: true})
	host := strings.TrimPrefix(direct, "http://")
	proxiedHost := strings.TrimPrefix(proxied, "http://")

	for _, test := range []struct {
		name, base, host string
		header           map[string]string
		want             string // scheme and host of links
	}{
		{"the request's host", direct, "example.com:9984", nil, "http://example.com:9984"},
		{"IPv6", direct, "[::1]:9984", nil, "http://[::1]:9984"},
		{"a host that is none", direct, "evil.com<script>", nil, "http://" + host},
		{"forwarded headers untrusted", direct, "example.com", map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "other.org"}, "http://example.com"},
		{"forwarded headers trusted", proxied, "example.com", map[string]string{"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "other.org, inner"}, "https://other.org"},
		{"forwarded nonsense", proxied, "example.com", map[string]string{"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": `o"r<g`}, "http://example.com"},
		{"forwarded nonsense, no sound host", proxied, "a,b", map[string]string{"X-Forwarded-Host": "/"}, "http://" + proxiedHost},
	} {
		send := func(path string) map[string]any {
			req, err := http.NewRequest(http.MethodGet, test.base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = test.host
			for k, v := range test.header {
				req.Header.Set(k, v)
			}
			var body map[string]any
			decode(t, send1(t, req).body, &body)
			return body
		}
		root := send("/")
		links := root["_links"].(map[string]any)
		ws := "ws" + strings.TrimPrefix(test.want, "http") + "/api/v1/streams/"
		if links["api_v1"] != test.want+"/api/v1/" || links["streams_v1"] != ws || links["docs"] == nil {
			t.Errorf("%s: got root links %v, want those of %s", test.name, links, test.want)
		}
		if root["software"] != "BigchainDB" || root["version"] != "0.10.0" || root["public_key"] != n.PublicKey() || root["couchledger"] == nil {
			t.Errorf("%s: got root %v", test.name, root)
		}
		for _, path := range []string{"/api/v1", "/api/v1/"} {
			links := send(path)["_links"].(map[string]any)
			for key, end := range map[string]string{"self": "", "transactions": "transactions/", "statuses": "statuses/", "outputs": "outputs/", "blocks": "blocks/", "votes": "votes/"} {
				if links[key] != test.want+"/api/v1/"+end {
					t.Errorf("%s: got %s link %v, want %s", test.name, key, links[key], test.want+"/api/v1/"+end)
				}
			}
			if links["streams_v1"] != ws || links["docs"] == nil {
				t.Errorf("%s: got API root links %v", test.name, links)
			}
		}
	}
}

func TestPages(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	asset := post(t, base, fakenode.CreateTx(someKey, 1, 1))
	want := []string{string(fakenode.CreateTx(someKey, 1, 1))}
	last := asset
	for range 2500 {
		body := fakenode.TransferTx(someKey, asset, ledger.OutputRef{TxID: last})
		last = post(t, base, body)
		want = append(want, string(body))
	}
	whole := get(t, base+"/api/v1/transactions?asset_id="+asset)
	if whole.body != "["+strings.Join(want, ",")+"]" {
		t.Errorf("the whole list has %d bytes and differs", len(whole.body))
	}
	if link := whole.header.Get("Link"); link != "" {
		t.Errorf("the whole list has a Link: %s", link)
	}
	for _, limit := range []string{"1000", "999", "417"} {
		var got []string
		pages := 0
		for next := base + "/api/v1/transactions?limit=" + limit + "&asset_id=" + strings.ToUpper(asset); next != ""; pages++ {
			page := get(t, next)
			var list []json.RawMessage
			decode(t, page.body, &list)
			for _, item := range list {
				got = append(got, string(item))
			}
			next = nextLink(page)
		}
		if !slices.Equal(got, want) || pages < 3 {
			t.Errorf("limit %s: got %d rows on %d pages, want %d rows", limit, len(got), pages, len(want))
		}
	}

	link := nextLink(get(t, base+"/api/v1/transactions?limit=1&asset_id="+asset))
	_, bookmark, _ := strings.Cut(link, "bookmark=")
	for _, query := range []string{
		"/transactions?limit=1&operation=CREATE&asset_id=" + asset,
		"/transactions?limit=1&asset_id=" + noID,
		"/blocks?limit=1&tx_id=" + asset,
	} {
		wantError(t, "another list's bookmark", get(t, base+"/api/v1"+query+"&bookmark="+bookmark), 400, "bookmark")
	}
	wantError(t, "no limit", get(t, base+"/api/v1/transactions?asset_id="+asset+"&bookmark="+bookmark), 400, "limit")
}

func nextLink(a answer) string {
	link := a.header.Get("Link")
	link, ok := strings.CutSuffix(link, `>; rel="next"`)
	if !ok {
		return ""
	}
	return strings.TrimPrefix(link, "<")
}
