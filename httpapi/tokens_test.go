package httpapi

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
)

func TestTokens(t *testing.T) {
	poster, reader, both := NewToken(), NewToken(), NewToken()
	tokens := []Token{{"poster", HashToken(poster), MayPost}, {"reader", HashToken(reader), MayQuery}, {"both", HashToken(both), MayPost | MayQuery}}
	_, closed := start(t, fakenode.New(), Options{Tokens: tokens})
	_, readable := start(t, fakenode.New(), Options{Tokens: tokens, Anonymous: MayQuery})
	_, open := start(t, fakenode.New(), Options{})
	const list, post, tx = "/api/v1/votes?block_id=" + noID, "POST /api/v1/transactions", "/api/v1/transactions/" + noID
	// A post without a body is a 400 where it is let in.
	for _, c := range []struct {
		base, request, authorization string
		want                         int
	}{
		{open, list, "", 200}, {open, list, "Bearer nonsense", 200}, {open, post, "", 400},
		{closed, list, "", 401}, {closed, post, "", 401}, {closed, tx, "", 401}, {closed, "/metrics", "", 401}, {closed, "POST /api/v1/query", "", 401},
		{closed, "/api/v1/streams/valid_tx", "", 401},
		{closed, "/", "", 200}, {closed, "/api/v1", "", 200}, {closed, "/api/v1/openapi.json", "", 200}, {closed, "/healthz", "", 200}, {closed, "/readyz", "", 200},
		{closed, "/nothing", "", 404},
		{closed, list, "Bearer " + reader, 200}, {closed, list, "bearer  " + reader, 200}, {closed, list, "Bearer " + both, 200},
		{closed, list, "Bearer " + poster, 403}, {closed, "/metrics", "Bearer " + reader, 200}, {closed, "/metrics", "Bearer " + poster, 403},
		{closed, post, "Bearer " + poster, 400}, {closed, post, "Bearer " + both, 400}, {closed, post, "Bearer " + reader, 403},
		{closed, list, "Bearer", 401}, {closed, list, "Basic " + reader, 401}, {closed, list, reader, 401}, {closed, list, "Bearer " + HashToken(reader), 401},
		{closed, list, "Bearer " + reader + "x", 401}, {closed, list, "Bearer " + strings.ToUpper(reader), 401},
		{closed, list + "&token=" + reader, "", 401},
		{readable, list, "", 200}, {readable, post, "", 401}, {readable, post, "Bearer " + poster, 400}, {readable, list, "Bearer " + poster, 200},
	} {
		header := http.Header{}
		if c.authorization != "" {
			header.Set("Authorization", c.authorization)
		}
		method, path, found := strings.Cut(c.request, " ")
		if !found {
			method, path = http.MethodGet, method
		}
		got := sendWith(t, method+" "+c.base+path, header)
		if got.status != c.want {
			t.Errorf("%s with %q: got %d %.100s, want %d", c.request, c.authorization, got.status, got.body, c.want)
		}
		challenge := got.header.Get("WWW-Authenticate")
		if (c.want == 401 || c.want == 403) != strings.HasPrefix(challenge, "Bearer") || (c.want == 403) != strings.Contains(challenge, "insufficient_scope") {
			t.Errorf("%s with %q: got WWW-Authenticate %q", c.request, c.authorization, challenge)
		}
		if strings.Contains(got.body, "clt_") {
			t.Errorf("%s: the answer shows a token: %s", c.request, got.body)
		}
	}
	two := sendWith(t, closed+list, http.Header{"Authorization": {"Bearer " + reader, "Bearer " + reader}})
	wantError(t, "two headers", two, 401, "")

	// A stream takes the token as a header, or as browsers can: as a protocol.
	dial := func(header http.Header, protocols ...string) (string, int) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(closed, "http")+"/api/v1/streams/valid_tx",
			&websocket.DialOptions{HTTPHeader: header, Subprotocols: protocols})
		if err != nil {
			if resp == nil {
				t.Fatal(err)
			}
			return "", resp.StatusCode
		}
		defer conn.CloseNow()
		return conn.Subprotocol(), resp.StatusCode
	}
	if got, status := dial(http.Header{"Authorization": {"Bearer " + reader}}); status != 101 || got != "" {
		t.Errorf("a stream with a header: got %d, protocol %q", status, got)
	}
	if got, status := dial(nil, "couchledger", "couchledger.token."+reader); status != 101 || got != "couchledger" {
		t.Errorf("a stream with a protocol: got %d, protocol %q", status, got)
	}
	if _, status := dial(nil, "couchledger", "couchledger.token."+poster); status != 403 {
		t.Errorf("a stream with another's right: got %d, want 403", status)
	}
	if _, status := dial(nil, "couchledger", "couchledger.token.x"); status != 401 {
		t.Errorf("a stream with a wrong token: got %d, want 401", status)
	}
}

func TestNewToken(t *testing.T) {
	one, two := NewToken(), NewToken()
	if one == two || len(one) != len("clt_")+43 || len(HashToken(one)) != 64 || HashToken(one) == HashToken(two) {
		t.Errorf("got tokens %q and %q", one, two)
	}
}

func TestCORS(t *testing.T) {
	const page, other = "https://app.example", "https://evil.example"
	_, none := start(t, fakenode.New(), Options{})
	_, some := start(t, fakenode.New(), Options{Origins: []string{page, "http://localhost:3000"}, Tokens: []Token{{"x", HashToken("x"), MayQuery}}})
	_, all := start(t, fakenode.New(), Options{Origins: []string{"*"}})
	for _, c := range []struct {
		base, origin, allowed string
		stream                int // the status that a stream from that page gets
	}{
		{none, "", "", 101}, {none, page, "", 403}, {none, none, "", 101}, {none, "null", "", 403}, {none, "://", "", 403},
		{some, page, page, 101}, {some, "HTTPS://APP.example", "HTTPS://APP.example", 101}, {some, other, "", 403}, {some, page + ".evil.example", "", 403}, {some, "", "", 101},
		{all, other, "*", 101}, {all, "null", "*", 101},
	} {
		header := http.Header{}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		got := sendWith(t, c.base+"/", header)
		if allowed := got.header.Get("Access-Control-Allow-Origin"); got.status != 200 || allowed != c.allowed {
			t.Errorf("GET from %q: got %d, allowed %q, want %q", c.origin, got.status, allowed, c.allowed)
		}
		if (c.base != none) != (got.header.Get("Vary") == "Origin") || got.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("GET from %q: got headers %v", c.origin, got.header)
		}
		if exposed := got.header.Get("Access-Control-Expose-Headers"); (c.allowed != "") != strings.Contains(exposed, "Link") {
			t.Errorf("GET from %q: exposed %q", c.origin, exposed)
		}
		header.Set("Access-Control-Request-Method", "POST")
		header.Set("Access-Control-Request-Headers", "authorization")
		got = sendWith(t, "OPTIONS "+c.base+"/api/v1/transactions", header)
		if methods := got.header.Get("Access-Control-Allow-Methods"); got.status != 204 || (c.allowed != "") != strings.Contains(methods, "POST") ||
			(c.allowed != "") != strings.Contains(got.header.Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("preflight from %q: got %d %v", c.origin, got.status, got.header)
		}
		stream := http.Header{"Authorization": {"Bearer x"}}
		if c.origin != "" {
			stream.Set("Origin", c.origin)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(c.base, "http")+"/api/v1/streams/valid_tx", &websocket.DialOptions{HTTPHeader: stream})
		cancel()
		if err == nil {
			conn.CloseNow()
		}
		if resp == nil || resp.StatusCode != c.stream {
			t.Errorf("a stream from %q: got %v, %v, want %d", c.origin, resp, err, c.stream)
		}
	}
}
