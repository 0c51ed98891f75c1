package httpapi

import (
	_ "embed"
	"net"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/couchledger/couchledger/canonical"
)

// Where the protocol is documented.
const (
	docsURL    = "https://docs.bigchaindb.com/projects/server/en/v0.10.0/"
	apiDocsURL = docsURL + "drivers-clients/http-client-server-api.html"
)

// root answers with who the node is and where its API begins. What the node
// really runs stands under "couchledger": software and version are what
// clients of 0.10 look for.
func (s *Server) root(c echo.Context, _ query) error {
	base := s.baseURL(c.Request())
	return writeJSON(c, http.StatusOK, object(
		member("_links", object(
			link("api_v1", base+"/api/v1/"),
			link("docs", docsURL),
			link("streams_v1", streamURL(base)),
		)),
		member("couchledger", object(
			link("rules", s.node.Rules()),
			link("version", s.opts.Version),
		)),
		member("keyring", canonical.StringsOf(s.node.Keyring())),
		link("public_key", s.node.PublicKey()),
		link("software", software),
		link("version", protocolVersion),
	).Bytes())
}

// apiRoot answers with the addresses of the API's parts.
func (s *Server) apiRoot(c echo.Context, _ query) error {
	base := s.baseURL(c.Request())
	api := base + "/api/v1/"
	return writeJSON(c, http.StatusOK, object(member("_links", object(
		link("blocks", api+"blocks/"),
		link("docs", apiDocsURL),
		link("openapi", api+"openapi.json"),
		link("outputs", api+"outputs/"),
		link("self", api),
		link("statuses", api+"statuses/"),
		link("streams_v1", streamURL(base)),
		link("transactions", api+"transactions/"),
		link("votes", api+"votes/"),
	))).Bytes())
}

func object(members ...canonical.Member) canonical.Value { return canonical.ObjectOf(members...) }

func member(key string, v canonical.Value) canonical.Member {
	return canonical.Member{Key: key, Value: v}
}

func link(key, text string) canonical.Member { return member(key, canonical.StringOf(text)) }

// streamURL turns http://host into ws://host/api/v1/streams/, https into wss.
func streamURL(base string) string {
	return "ws" + strings.TrimPrefix(base, "http") + "/api/v1/streams/"
}

// baseURL gives scheme and host as the client sees them, without a slash.
func (s *Server) baseURL(r *http.Request) string {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if s.opts.TrustForwarded {
		if proto := firstOf(r.Header.Get("X-Forwarded-Proto")); proto == "http" || proto == "https" {
			scheme = proto
		}
		if forwarded := firstOf(r.Header.Get("X-Forwarded-Host")); soundHost(forwarded) {
			host = forwarded
		}
	}
	if !soundHost(host) {
		host = "localhost"
		if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			host = addr.String()
		}
	}
	return scheme + "://" + host
}

// firstOf takes the outermost proxy's word from a list of them.
func firstOf(header string) string {
	first, _, _ := strings.Cut(header, ",")
	return strings.TrimSpace(first)
}

// maxHost is the length of the longest DNS name with a port.
const maxHost = 253 + len(":65535")

// soundHost reports whether a host can stand in a URL: the header is the
// client's to write, and the links are for others to follow.
func soundHost(host string) bool {
	if host == "" || len(host) > maxHost {
		return false
	}
	for _, c := range []byte(host) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("-._:[]", c) < 0 {
			return false
		}
	}
	return true
}

//go:embed openapi.json
var openAPIDocument []byte

// openAPI answers with the description of all this, OpenAPI 3.
func (s *Server) openAPI(c echo.Context, _ query) error {
	return writeJSON(c, http.StatusOK, openAPIDocument)
}
