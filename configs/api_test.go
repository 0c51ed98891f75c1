package configs

import (
	"slices"
	"strings"
	"testing"
)

func TestOrigins(t *testing.T) {
	for text, want := range map[string]string{
		"https://app.example": "https://app.example", "HTTPS://App.Example": "https://app.example",
		"http://localhost:3000": "http://localhost:3000", "http://[::1]:80": "http://[::1]",
		"https://a:443": "https://a", "http://a:443": "http://a:443", "*": "*",
	} {
		s, _, err := Load("", home(t, "BIGCHAINDB_SERVER_CORS_ORIGINS="+text))
		if err != nil || !slices.Equal(s.Server.CORSOrigins, []string{want}) {
			t.Errorf("%s: got %q, %v, want %s", text, s.Server.CORSOrigins, err, want)
		}
	}
	s, _, err := Load("", home(t, "BIGCHAINDB_SERVER_CORS_ORIGINS=https://a,*,https://a"))
	if err != nil || !slices.Equal(s.Server.CORSOrigins, []string{"*"}) {
		t.Errorf("got %q, %v", s.Server.CORSOrigins, err)
	}
}

// A token that somebody wrote where its hash belongs is not shown.
func TestTokensAreNotShownInErrors(t *testing.T) {
	const secret = "clt_hunter2hunter2"
	for _, text := range []string{
		`[{"name": "a", "hash": "` + secret + `", "may": "all"}]`, `"a=all=` + secret + `"`, `["` + secret + `"]`, `"` + secret + `"`,
		`[{"name": "a", "` + secret + `": 1}]`, `{"` + secret + `": 1}`, `[{"name": "` + secret + ` ", "hash": "` + tokenHash + `", "may": "all"}]`,
	} {
		_, _, err := load(t, "c", nested("server.tokens", text))
		mustName(t, text, err, "server.tokens")
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestNewToken(t *testing.T) {
	token, err := NewToken("alice", tokenHash, []string{"all"})
	if err != nil || token.Text() != "alice=post+query="+tokenHash {
		t.Fatalf("got %+v, %v", token, err)
	}
	s, _, err := Load("", home(t, "BIGCHAINDB_SERVER_TOKENS="+token.Text()))
	if err != nil || len(s.Server.Tokens) != 1 || s.Server.Tokens[0].Name != "alice" {
		t.Errorf("got %+v, %v", s.Server.Tokens, err)
	}
	for _, bad := range []struct{ name, hash, may string }{{"", tokenHash, "all"}, {"a=b", tokenHash, "all"}, {"a:b", tokenHash, "all"}, {"a", "x", "all"}, {"a", tokenHash, "some"}, {"a", tokenHash, ""}} {
		if _, err := NewToken(bad.name, bad.hash, []string{bad.may}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestAPISettingsThatDoNotGoTogether(t *testing.T) {
	tokens := "BIGCHAINDB_SERVER_TOKENS=alice=all=" + tokenHash
	open := "BIGCHAINDB_SERVER_BIND=0.0.0.0:9984"
	for _, c := range []struct {
		env  []string
		want string // in the one warning; "" for none
	}{
		{[]string{tokens}, ""},
		{[]string{tokens, "BIGCHAINDB_SERVER_BIND=127.0.0.2:1"}, ""},
		{[]string{tokens, "BIGCHAINDB_SERVER_BIND=[::1]:1"}, ""},
		{[]string{tokens, open}, "tokens cross the network in clear"},
		{[]string{tokens, "BIGCHAINDB_SERVER_BIND=:9984"}, "tokens cross the network in clear"},
		{[]string{tokens, open, "BIGCHAINDB_SERVER_TLS_CERTFILE=/c"}, ""},
		{[]string{tokens, open, "BIGCHAINDB_SERVER_TRUST_FORWARDED=yes"}, ""},
		{[]string{open}, ""},
		{[]string{"BIGCHAINDB_SERVER_LIMITS_BURST=5"}, "requests are not limited"},
		{[]string{"BIGCHAINDB_SERVER_LIMITS_BURST=5", "BIGCHAINDB_SERVER_LIMITS_REQUESTS_PER_SECOND=5"}, ""},
		{[]string{"BIGCHAINDB_SERVER_ANONYMOUS=query"}, "everybody may do everything"},
		{[]string{"BIGCHAINDB_SERVER_ANONYMOUS=query", tokens}, ""},
		{[]string{"BIGCHAINDB_SERVER_LIMITS_HEADER_TIMEOUT=50s"}, "which counts"},
	} {
		_, warnings, err := Load("", home(t, c.env...))
		said := strings.Join(warnings, "\n")
		if err != nil || c.want == "" && said != "" || c.want != "" && (len(warnings) != 1 || !strings.Contains(said, c.want)) {
			t.Errorf("%q: got %q, %v, want %q", c.env, warnings, err, c.want)
		}
	}
}
