package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

// Rights is what a request needs and a token gives.
type Rights uint8

// The rights.
const (
	MayPost  Rights = 1 << iota // post transactions
	MayQuery                    // read: transactions, lists, queries, streams, metrics
)

// Token lets whoever knows it use the API.
type Token struct {
	Name string // for the log
	Hash string // as HashToken gives it
	May  Rights
}

const (
	// tokenPrefix lets people and programs that look for secrets in the wrong
	// places know one.
	tokenPrefix = "clt_"
	tokenBytes  = 32
)

// NewToken makes a token of 256 random bits.
func NewToken() string {
	raw := make([]byte, tokenBytes)
	_, _ = rand.Read(raw) // never fails
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// HashToken is what is kept of a token: its SHA-256 in hexadecimal. A slow hash
// would guard passwords against guessing; 256 random bits cannot be guessed,
// and a slow hash on each request would be an attack's best friend.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Streams take the token as a subprotocol, too: browsers let pages set no other
// header of a WebSocket, and a query parameter would stand in logs.
const (
	streamProtocol      = "couchledger"
	streamTokenProtocol = "couchledger.token." // the token follows
)

const bearer = "Bearer"

// authorize reports nil when a request may do what needs these rights.
func (s *Server) authorize(c echo.Context, needs Rights) error {
	if len(s.opts.Tokens) == 0 || needs&^s.opts.Anonymous == 0 {
		return nil
	}
	token, given := tokenOf(c.Request())
	if !given {
		s.metrics.refused.WithLabelValues(refusedToken).Inc()
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, bearer)
		return failure(http.StatusUnauthorized, "a token is needed: Authorization: Bearer <token>")
	}
	known := s.tokenFor(token)
	if known == nil {
		s.metrics.refused.WithLabelValues(refusedToken).Inc()
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, bearer+` error="invalid_token"`)
		return failure(http.StatusUnauthorized, "this token is not known")
	}
	c.Set(tokenKey, known.Name)
	if needs&^known.May&^s.opts.Anonymous != 0 {
		s.metrics.refused.WithLabelValues(refusedToken).Inc()
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, bearer+` error="insufficient_scope"`)
		return failure(http.StatusForbidden, "this token may not do that")
	}
	return nil
}

// tokenKey is where a request's context has the name of its token.
const tokenKey = "token"

// tokenFor finds the entry of a token. Every entry is compared, in constant
// time, though a hash gives little away.
func (s *Server) tokenFor(token string) *Token {
	hash := []byte(HashToken(token))
	var known *Token
	for i := range s.opts.Tokens {
		if subtle.ConstantTimeCompare(hash, []byte(s.opts.Tokens[i].Hash)) == 1 {
			known = &s.opts.Tokens[i]
		}
	}
	return known
}

// tokenOf reads the token of a request. given is whether there is anything that
// is meant as one.
func tokenOf(r *http.Request) (token string, given bool) {
	if lines := r.Header[echo.HeaderAuthorization]; len(lines) > 0 {
		scheme, token, _ := strings.Cut(lines[0], " ")
		if len(lines) > 1 || !strings.EqualFold(scheme, bearer) {
			return "", true
		}
		return strings.TrimSpace(token), true
	}
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(name), streamTokenProtocol); ok {
				return token, true
			}
		}
	}
	return "", false
}
