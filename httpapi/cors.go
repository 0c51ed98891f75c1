package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// everyOrigin in Options.Origins stands for all web pages.
const everyOrigin = "*"

// What pages of other origins may send and see.
const (
	corsMethods = "GET, HEAD, POST"
	corsHeaders = "Authorization, Content-Type, " + headerRequestID
	corsExposed = "Link, Location, Retry-After, " + headerRequestID + ", " + headerCatchingUp
	corsMaxAge  = "600" // seconds that a browser remembers a preflight's answer
)

// cors writes the headers that let pages of Options.Origins use the answer.
// There are no cookies here, so credentials are never allowed. It reports true
// for a preflight, which has its answer with that.
func (s *Server) cors(c echo.Context) (preflight bool) {
	if len(s.opts.Origins) == 0 {
		return false
	}
	r, header := c.Request(), c.Response().Header()
	header.Add(echo.HeaderVary, echo.HeaderOrigin)
	origin := r.Header.Get(echo.HeaderOrigin)
	if origin == "" || !s.allows(origin) {
		return false
	}
	if slices.Contains(s.opts.Origins, everyOrigin) {
		origin = everyOrigin
	}
	header.Set(echo.HeaderAccessControlAllowOrigin, origin)
	if r.Method != http.MethodOptions || r.Header.Get(echo.HeaderAccessControlRequestMethod) == "" {
		header.Set(echo.HeaderAccessControlExposeHeaders, corsExposed)
		return false
	}
	header.Set(echo.HeaderAccessControlAllowMethods, corsMethods)
	header.Set(echo.HeaderAccessControlAllowHeaders, corsHeaders)
	header.Set(echo.HeaderAccessControlMaxAge, corsMaxAge)
	return true
}

// allows reports whether pages of an origin may use the API.
func (s *Server) allows(origin string) bool {
	return slices.Contains(s.opts.Origins, everyOrigin) || slices.Contains(s.opts.Origins, strings.ToLower(origin))
}

// checkOrigin refuses streams to pages of other sites, which browsers let open
// WebSockets to anywhere. Programs that are no browsers send no Origin.
func (s *Server) checkOrigin(r *http.Request) error {
	origins := r.Header[echo.HeaderOrigin]
	if len(origins) == 0 {
		return nil
	}
	if len(origins) == 1 {
		if s.allows(origins[0]) {
			return nil
		}
		_, host, _ := strings.Cut(s.baseURL(r), "://")
		if u, err := url.Parse(origins[0]); err == nil && strings.EqualFold(u.Host, host) {
			return nil
		}
	}
	return failure(http.StatusForbidden, "pages of this origin may not open streams")
}
