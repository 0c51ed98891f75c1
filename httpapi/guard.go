package httpapi

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	headerRequestID    = "X-Request-Id"
	headerForwardedFor = "X-Forwarded-For"
	headerCacheControl = "Cache-Control"
	headerNoSniff      = "X-Content-Type-Options"
	// headerCatchingUp marks answers of a node that has not read the whole ledger
	// yet: they are of then.
	headerCatchingUp = "X-Catching-Up"
)

// Values that all answers share: net/http only reads them.
var (
	noSniff = []string{"nosniff"}
	closing = []string{"close"}
	// noStore: lists and statuses change, and what a token opened is not for a
	// cache that others read from.
	noStore = []string{"no-store"}
)

// guard stands before the router: it gives every answer its request id and the
// headers for browsers, and refuses clients that ask too often.
func (s *Server) guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		r := c.Request()
		conn := connOf(r)
		conn.busy()
		defer conn.idles()
		header := c.Response().Header()
		header[headerRequestID] = []string{requestID(r.Header[headerRequestID])}
		header[headerNoSniff] = noSniff
		header[headerCacheControl] = noStore
		if len(r.TransferEncoding) > 0 {
			// It may have had a Content-Length, too, by which a proxy reads on:
			// what follows is then not its next request.
			header[echo.HeaderConnection] = closing
		}
		if s.cors(c) {
			c.Response().WriteHeader(http.StatusNoContent)
			s.aside(c, start)
			return nil
		}
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			return next(c) // a probe must not be answered by a limit
		}
		if err := s.rates.take(s.clientOf(r), start); err != nil {
			s.metrics.refused.WithLabelValues(refusedRate).Inc()
			s.writeError(c, err)
			s.aside(c, start)
			return nil
		}
		return next(c)
	}
}

// aside counts and logs a request that no route answers.
func (s *Server) aside(c echo.Context, start time.Time) {
	took := time.Since(start)
	s.metrics.unrouted(c.Response().Status, took)
	s.logRequest(c, took)
}

// maxRequestID is the longest id that is taken from a client.
const maxRequestID = 64

// requestID takes the client's own id if there is one that is harmless in logs
// and headers, else makes one.
func requestID(given []string) string {
	if len(given) == 1 && isRequestID(given[0]) {
		return given[0]
	}
	const base = 36
	return strconv.FormatUint(rand.Uint64(), base)
}

func isRequestID(text string) bool {
	for _, c := range []byte(text) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return text != "" && len(text) <= maxRequestID
}

// idOf is the id of a request that guard has seen; "" for others.
func idOf(c echo.Context) string { return c.Response().Header().Get(headerRequestID) }

// clientOf is the address that a request comes from. Behind a proxy it is the
// last one of X-Forwarded-For: the proxy itself wrote that, what stands before
// it anybody may have written.
func (s *Server) clientOf(r *http.Request) netip.Addr {
	if s.opts.TrustForwarded {
		if lines := r.Header[headerForwardedFor]; len(lines) > 0 {
			line := lines[len(lines)-1]
			if addr, ok := parseAddr(strings.TrimSpace(line[strings.LastIndexByte(line, ',')+1:])); ok {
				return addr
			}
		}
	}
	addr, _ := parseAddr(r.RemoteAddr)
	return addr
}

// parseAddr reads an address with or without a port.
func parseAddr(text string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap(), err == nil
}

// ipv6Client is the part of an IPv6 address that tells clients apart: one
// client has all addresses of its /64.
const ipv6Client = 64

// clientKey is one key for all addresses of a client.
func clientKey(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = ipv6Client
	}
	prefix, _ := addr.WithZone("").Prefix(bits) // of no address none
	return prefix
}

// loggedParams are the query parameters whose values the log may show. What
// else clients write there may be a secret that they take for a parameter.
var loggedParams = []string{"asset_id", "operation", "limit", "bookmark", "public_key", "unspent", "tx_id", "block_id", "status", "mode"}

// loggedURI is a request's path and query as the log may show it.
func loggedURI(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return r.URL.EscapedPath()
	}
	var b strings.Builder
	b.WriteString(r.URL.EscapedPath())
	mark := byte('?')
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		b.WriteByte(mark)
		mark = '&'
		name, _, _ := strings.Cut(part, "=")
		if slices.Contains(loggedParams, name) {
			b.WriteString(part)
		} else {
			b.WriteString("…")
		}
	}
	return b.String()
}
