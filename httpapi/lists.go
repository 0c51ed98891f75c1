package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/couchledger/couchledger/node"
)

// list is one kind of list with its filters in force.
type list[T any] struct {
	name string // path segment below /api/v1
	// filter holds the query parameters in normal form, "" for absent ones.
	filter []parameter
	step   step
	fetch  func(context.Context, node.Page) ([]T, string, error)
	add    func(dst []byte, item T) []byte
}

// step says how many rows are asked of the node at once. Bodies may have two
// megabytes each, so a few are asked for first, and more while they are small.
// room is how many bytes the first rows are thought to take until they are there.
type step struct {
	first, most int
	room        int64
}

var (
	bodyStep = step{first: 16, most: 256, room: 512 << 10}
	rowStep  = step{first: MaxLimit, most: MaxLimit, room: 128 << 10}
)

const (
	// smallStep: below so many bytes the next step may be twice as long.
	smallStep = 256 << 10
	// maxPageBytes ends a page early. Pages may be shorter than limit; the
	// list ends where no Link leads on.
	maxPageBytes = 8 << 20
	// writeStall is the default of Options.WriteTimeout.
	writeStall = 30 * time.Second
)

// reader walks a list from a cursor.
type reader[T any] struct {
	list   *list[T]
	cursor string
	size   int
	buf    []byte
	empty  bool // nothing was added yet
	room   room // for buf
}

// next appends up to most rows to buf and reports how many, and whether the
// list goes on after them.
func (r *reader[T]) next(ctx context.Context, most int) (rows int, more bool, err error) {
	before, empty := len(r.buf), r.empty
	var items []T
	var next string
	for need := int64(before) + r.list.step.room; ; {
		if err := r.room.grow(ctx, need); err != nil {
			return 0, false, err
		}
		if items, next, err = r.list.fetch(ctx, node.Page{Cursor: r.cursor, Limit: min(most, r.size)}); err != nil {
			return 0, false, err
		}
		for _, item := range items {
			if !r.empty {
				r.buf = append(r.buf, ',')
			}
			r.empty = false
			r.buf = r.list.add(r.buf, item)
		}
		if need = int64(cap(r.buf)); r.room.fit(need) {
			break
		}
		// Begun anew when there is room, as nothing is held while it waits.
		items, r.empty = nil, empty
		r.buf = append([]byte(nil), r.buf[:before]...)
	}
	if len(r.buf)-before < smallStep {
		r.size = min(2*r.size, r.list.step.most)
	}
	r.cursor = next
	return len(items), next != "", nil
}

// serveList answers with a page when limit is given, else with the whole list.
//
// A bookmark without limit is refused: without limit a client asks for the
// whole list, and from the middle it is not whole. Links hold both.
func serveList[T any](s *Server, c echo.Context, q query, l list[T]) error {
	limit, err := q.limit()
	if err != nil {
		return err
	}
	cursor := ""
	if bookmark, ok := q.get("bookmark"); ok {
		if limit == 0 {
			return badParameter("bookmark", "it needs limit beside it")
		}
		if cursor, err = openBookmark(bookmark, fingerprint(l.name, l.filter)); err != nil {
			return err
		}
	}
	r := &reader[T]{list: &l, cursor: cursor, size: l.step.first, buf: []byte{'['}, empty: true, room: roomFor(c, s.lists)}
	defer r.room.free()
	if limit > 0 {
		return servePage(s, c, r, limit)
	}
	return serveWhole(s, c, r)
}

func servePage[T any](s *Server, c echo.Context, r *reader[T], limit int) error {
	left, more := limit, true
	for left > 0 && more && len(r.buf) < maxPageBytes {
		rows, goesOn, err := r.next(c.Request().Context(), left)
		if err != nil {
			return err
		}
		left, more = left-rows, goesOn
	}
	if more {
		c.Response().Header().Set("Link", "<"+s.pageURL(c, r.list.name, r.list.filter, r.cursor, limit)+`>; rel="next"`)
	}
	return writeJSON(c, http.StatusOK, append(r.buf, ']'))
}

// serveWhole streams a list step by step. An error after the first step cuts
// the connection, so that no client takes a part for the whole.
func serveWhole[T any](s *Server, c echo.Context, r *reader[T]) error {
	ctx := c.Request().Context()
	_, more, err := r.next(ctx, MaxLimit)
	if err != nil {
		return err
	}
	if !more {
		return writeJSON(c, http.StatusOK, append(r.buf, ']'))
	}
	response := c.Response()
	response.Header()["Content-Type"] = jsonType
	response.WriteHeader(http.StatusOK)
	if c.Request().Method == http.MethodHead {
		return nil // the first step showed that it would work
	}
	control := http.NewResponseController(response.Writer)
	conn := connOf(c.Request())
	for {
		// Not every http.ResponseWriter has deadlines; Serve's has.
		_ = control.SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
		conn.writes()
		_, err := response.Write(r.buf)
		if err == nil && more {
			err = control.Flush()
		}
		conn.busy()
		if err != nil || !more {
			return err
		}
		r.buf = r.buf[:0]
		if _, more, err = r.next(ctx, MaxLimit); err != nil {
			return err
		}
		if !more {
			r.buf = append(r.buf, ']')
		}
	}
}

// pageURL is the absolute address of the page that begins at cursor.
func (s *Server) pageURL(c echo.Context, name string, filter []parameter, cursor string, limit int) string {
	var b strings.Builder
	b.WriteString(s.baseURL(c.Request()))
	b.WriteString("/api/v1/" + name + "?")
	for _, p := range filter {
		if p.value != "" {
			b.WriteString(p.name + "=" + url.QueryEscape(p.value) + "&")
		}
	}
	b.WriteString("limit=" + strconv.Itoa(limit) + "&bookmark=" + sealBookmark(cursor, fingerprint(name, filter)))
	return b.String()
}

// fingerprint tells one list's bookmarks from another's.
func fingerprint(name string, filter []parameter) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	for _, p := range filter {
		h.Write([]byte("\x00" + p.name + "=" + p.value))
	}
	return h.Sum64()
}

// sealBookmark gives base64url of the list's fingerprint and the node's cursor.
func sealBookmark(cursor string, fingerprint uint64) string {
	raw := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(cursor)), fingerprint)
	return base64.RawURLEncoding.EncodeToString(append(raw, cursor...))
}

// openBookmark gives the node's cursor back, or the 400 for what is no
// bookmark or that of another list or query.
func openBookmark(bookmark string, fingerprint uint64) (cursor string, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(bookmark)
	// The decoder skips line feeds and takes loose bits.
	if err != nil || len(raw) <= 8 || base64.RawURLEncoding.EncodeToString(raw) != bookmark {
		return "", badParameter("bookmark", "no page of this list or query gave it")
	}
	if binary.BigEndian.Uint64(raw) != fingerprint {
		return "", badParameter("bookmark", "it belongs to a list or query with other parameters")
	}
	return string(raw[8:]), nil
}
