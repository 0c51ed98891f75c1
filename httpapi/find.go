package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// defaultQueryLimit is CouchDB's.
	defaultQueryLimit = 25
	// maxQueryBytes bounds a query's body: more than the 2000 ids that one $in
	// may have.
	maxQueryBytes = 256 << 10
)

// queryLimits bound a query's JSON beyond what package mango does.
var queryLimits = canonical.Limits{Depth: 200, Values: 20_000}

// What of listRoom a query takes while it is worked on: for each row that it
// may have, and at most. A page of the largest documents takes twice that, for
// what is read, and as much for each that is checked.
const (
	rowRoom  = 32 << 10
	pageRoom = 16 << 20
)

// badQuery is the 400 for a part of a query, by its path in the body.
func badQuery(path, reason string) *httpError {
	return failure(http.StatusBadRequest, "Invalid query: "+path+": "+reason)
}

// postedQuery is a query as it stands in a body.
type postedQuery struct {
	node.QueryRequest
	stats       bool // execution_stats is asked for
	fingerprint uint64
}

// postQuery answers with a page of the documents that a query asks for.
func (s *Server) postQuery(c echo.Context, _ query) error {
	q, err := s.readQuery(c)
	if err != nil {
		return err
	}
	answer := roomFor(c, s.lists)
	if err := answer.grow(c.Request().Context(), min(int64(q.Limit)*rowRoom, pageRoom)); err != nil {
		return err
	}
	defer answer.free()
	start := time.Now()
	page, err := s.node.Query(c.Request().Context(), q.QueryRequest)
	if err != nil {
		return err
	}
	size := 200
	for _, d := range page.Documents {
		size += len(d) + 1
	}
	body := append(make([]byte, 0, size), `{"docs":[`...)
	for i, d := range page.Documents {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, d...)
	}
	body = append(body, `],"bookmark":"`...)
	if page.Bookmark != "" {
		body = append(body, sealBookmark(page.Bookmark, q.fingerprint)...)
	}
	body = append(body, '"')
	if page.Warning != "" {
		body = canonical.AppendString(append(body, `,"warning":`...), page.Warning)
	}
	if q.stats {
		body = appendStats(body, page, time.Since(start))
	}
	answer.fit(int64(len(body))) // most are much smaller
	// Not every http.ResponseWriter has deadlines; Serve's has.
	_ = http.NewResponseController(c.Response().Writer).SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
	return writeJSON(c, http.StatusOK, append(body, '}'))
}

// appendStats appends the execution_stats under CouchDB's names, less what the
// database does not tell.
func appendStats(body []byte, page node.QueryPage, took time.Duration) []byte {
	body = append(body, `,"execution_stats":{`...)
	if page.Stats.Keys >= 0 {
		body = append(strconv.AppendInt(append(body, `"total_keys_examined":`...), int64(page.Stats.Keys), 10), ',')
	}
	if page.Stats.Documents >= 0 {
		body = append(strconv.AppendInt(append(body, `"total_docs_examined":`...), int64(page.Stats.Documents), 10), ',')
	}
	body = strconv.AppendInt(append(body, `"results_returned":`...), int64(len(page.Documents)), 10)
	body = strconv.AppendFloat(append(body, `,"execution_time_ms":`...), float64(took)/float64(time.Millisecond), 'f', 3, 64)
	return append(body, '}')
}

// explainQuery answers with how a query would be answered.
func (s *Server) explainQuery(c echo.Context, _ query) error {
	q, err := s.readQuery(c)
	if err != nil {
		return err
	}
	plan, err := s.node.Explain(c.Request().Context(), q.QueryRequest)
	if err != nil {
		return err
	}
	index := canonical.Value{}
	if plan.Index != "" {
		index = canonical.ObjectOf(
			canonical.Member{Key: "name", Value: canonical.StringOf(plan.Index)},
			canonical.Member{Key: "fields", Value: canonical.StringsOf(plan.Fields)},
		)
	}
	answer := canonical.ObjectOf(
		canonical.Member{Key: "table", Value: canonical.StringOf(q.Table)},
		canonical.Member{Key: "index", Value: index},
		canonical.Member{Key: "covering", Value: canonical.StringOf(plan.Covering)},
		canonical.Member{Key: "scan", Value: canonical.BoolOf(plan.Scan)},
	)
	if len(plan.Advice) > 0 {
		answer = answer.With("index_advised", canonical.StringsOf(plan.Advice))
	}
	return writeJSON(c, http.StatusOK, answer.Bytes())
}

// readQuery reads a request's body as a query.
func (s *Server) readQuery(c echo.Context) (postedQuery, error) {
	body, held, err := s.readBody(c, min(maxQueryBytes, s.opts.MaxBodyBytes))
	if held > 0 {
		defer s.reading.give(held)
	}
	if err != nil {
		return postedQuery{}, err
	}
	return parsePostedQuery(body)
}

// rangeKeys make a query one by document id; selectorKeys belong to the other
// kind.
var (
	rangeKeys    = []string{"start_key", "end_key"}
	selectorKeys = []string{"selector", "sort", "use_index"}
)

// parsePostedQuery reads the JSON of a query. Errors are 400s that name the
// place.
func parsePostedQuery(body []byte) (postedQuery, error) {
	tree, err := canonical.ParseWithin(body, queryLimits)
	if err != nil {
		return postedQuery{}, err
	}
	if tree.Kind() != canonical.Object {
		return postedQuery{}, badQuery("the body", "must be an object, not "+tree.Kind().String())
	}
	has := func(keys []string) string {
		i := slices.IndexFunc(keys, func(key string) bool { _, ok := tree.Get(key); return ok })
		if i < 0 {
			return ""
		}
		return keys[i]
	}
	var q postedQuery
	q.Limit = defaultQueryLimit
	for i := range tree.Len() {
		if err := q.read(tree.Key(i), tree.At(i)); err != nil {
			return postedQuery{}, err
		}
	}
	if q.Table == "" {
		return postedQuery{}, badQuery("table", "it is required: one of "+strings.Join(statedb.Tables, ", "))
	}
	byRange, bySelector := has(rangeKeys), has(selectorKeys)
	switch {
	case byRange != "" && bySelector != "":
		return postedQuery{}, badQuery(bySelector, "it cannot stand beside "+byRange)
	case byRange != "":
		q.Range = true
	case has([]string{"selector"}) == "":
		return postedQuery{}, badQuery("selector", "it is required, or start_key or end_key instead")
	}
	// All but what may differ between the pages of one query.
	q.fingerprint = fingerprint("query", []parameter{{"", string(tree.Without("limit", "bookmark", "execution_stats").Bytes())}})
	if q.Bookmark != "" {
		if q.Bookmark, err = openBookmark(q.Bookmark, q.fingerprint); err != nil {
			return postedQuery{}, err
		}
	}
	return q, nil
}

// read takes up one key of a query.
func (q *postedQuery) read(key string, v canonical.Value) (err error) {
	switch key {
	case "table":
		q.Table, err = textOf(key, v)
		if err == nil && !slices.Contains(statedb.Tables, q.Table) {
			err = badQuery(key, "must be one of "+strings.Join(statedb.Tables, ", "))
		}
	case "selector":
		if q.Selector = v; v.Kind() != canonical.Object {
			err = badQuery(key, "must be an object, not "+v.Kind().String())
		}
	case "sort":
		q.Sort, err = readSort(v)
	case "fields":
		q.Fields, err = textsOf(key, v)
	case "limit":
		n, ok := v.Int64()
		if !ok || n < 1 {
			return badQuery(key, "must be a whole number of at least 1")
		}
		q.Limit = int(min(n, 1<<30))
	case "bookmark":
		q.Bookmark, err = textOf(key, v)
	case "use_index":
		err = q.readUseIndex(v)
	case "execution_stats":
		if q.stats = v.Bool(); v.Kind() != canonical.Bool {
			err = badQuery(key, "must be true or false, not "+v.Kind().String())
		}
	case "start_key":
		q.Start, err = textOf(key, v)
	case "end_key":
		q.End, err = textOf(key, v)
	default:
		err = badQuery(quote(key), "there is no such key")
	}
	return err
}

func textOf(path string, v canonical.Value) (string, error) {
	if v.Kind() != canonical.String {
		return "", badQuery(path, "must be a string, not "+v.Kind().String())
	}
	return v.Text(), nil
}

func textsOf(path string, v canonical.Value) ([]string, error) {
	if v.Kind() != canonical.Array {
		return nil, badQuery(path, "must be an array of strings, not "+v.Kind().String())
	}
	list := make([]string, v.Len())
	for i := range list {
		text, err := textOf(path+"."+strconv.Itoa(i), v.At(i))
		if err != nil {
			return nil, err
		}
		list[i] = text
	}
	return list, nil
}

// readSort reads "field" and {"field": "asc" or "desc"}.
func readSort(v canonical.Value) ([]statedb.SortField, error) {
	if v.Kind() != canonical.Array {
		return nil, badQuery("sort", "must be an array, not "+v.Kind().String())
	}
	list := make([]statedb.SortField, v.Len())
	for i := range list {
		entry := v.At(i)
		switch {
		case entry.Kind() == canonical.String:
			list[i].Field = entry.Text()
		case entry.Kind() == canonical.Object && entry.Len() == 1 &&
			entry.At(0).Kind() == canonical.String && (entry.At(0).Text() == "asc" || entry.At(0).Text() == "desc"):
			list[i] = statedb.SortField{Field: entry.Key(0), Descending: entry.At(0).Text() == "desc"}
		default:
			return nil, badQuery("sort."+strconv.Itoa(i), `must be "field", or {"field": "asc"} or {"field": "desc"}`)
		}
	}
	return list, nil
}

// readUseIndex reads "name", "ddoc", "_design/ddoc", ["ddoc"] and
// ["ddoc", "name"].
func (q *postedQuery) readUseIndex(v canonical.Value) error {
	const designPrefix = "_design/"
	parts := []string{v.Text()}
	if v.Kind() == canonical.Array {
		var err error
		if parts, err = textsOf("use_index", v); err != nil {
			return err
		}
	} else if v.Kind() != canonical.String {
		return badQuery("use_index", "must be a string or an array, not "+v.Kind().String())
	}
	if len(parts) == 0 || len(parts) > 2 || slices.Contains(parts, "") || parts[0] == designPrefix {
		return badQuery("use_index", `must be "name" or ["design document", "name"]`)
	}
	ddoc, isDesign := strings.CutPrefix(parts[0], designPrefix)
	if isDesign || v.Kind() == canonical.Array {
		q.DesignDoc = ddoc
		q.UseIndex = strings.Join(parts[1:], "")
		return nil
	}
	q.UseIndex = parts[0]
	return nil
}
