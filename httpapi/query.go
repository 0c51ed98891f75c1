package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/node/ledger"
)

// query holds the parameters of a request, each known to its route, given
// once and not empty.
type query struct {
	list []parameter
}

type parameter struct{ name, value string }

// parseQuery reads a raw query string. A parameter that is not in allowed,
// that is repeated, empty or not properly encoded gives the 400 that names it.
func parseQuery(raw string, allowed []string) (query, error) {
	var q query
	for raw != "" {
		var part string
		part, raw, _ = strings.Cut(raw, "&")
		if part == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return query{}, failure(http.StatusBadRequest, "Malformed query: the parameter name "+quote(rawName)+" is not properly encoded")
		}
		if !slices.Contains(allowed, name) {
			return query{}, badParameter(quote(name), "this resource does not take it")
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return query{}, badParameter(name, "it is not properly encoded")
		}
		if value == "" {
			return query{}, badParameter(name, "it is empty")
		}
		if _, repeated := q.get(name); repeated {
			return query{}, badParameter(name, "it is given more than once")
		}
		q.list = append(q.list, parameter{name, value})
	}
	return q, nil
}

// quote shows a client its own text, cut to a harmless length.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most]
	}
	return strconv.Quote(s)
}

func (q query) get(name string) (string, bool) {
	for _, p := range q.list {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// id returns a parameter that is a transaction's or block's id, in lower case.
func (q query) id(name string) (string, error) {
	value, ok := q.get(name)
	if !ok {
		return "", badParameter(name, "it is required")
	}
	id, ok := normalID(value)
	if !ok {
		return "", badParameter(name, "must be 64 hexadecimal digits")
	}
	return id, nil
}

// normalID gives an id in lower case, and false for what is none.
func normalID(s string) (string, bool) {
	if !ledger.IsID(s) {
		s = strings.ToLower(s)
	}
	return s, ledger.IsID(s)
}

// oneOf returns a parameter that is one of the words given in upper case; in
// the request either letter case will do. "" stands for an absent one.
func (q query) oneOf(name string, words ...string) (string, error) {
	value, ok := q.get(name)
	if !ok {
		return "", nil
	}
	for _, word := range words {
		if strings.EqualFold(value, word) {
			return word, nil
		}
	}
	return "", badParameter(name, "must be one of "+strings.Join(words, ", "))
}

// flag returns a parameter that is true or false, as the documents write it.
func (q query) flag(name string) (bool, error) {
	switch value, ok := q.get(name); {
	case !ok || value == "false":
		return false, nil
	case value == "true":
		return true, nil
	default:
		return false, badParameter(name, "must be true or false")
	}
}

// MaxLimit is the longest page that a list gives.
const MaxLimit = 1000

// limit returns the page length asked for, 0 when none is.
func (q query) limit() (int, error) {
	value, ok := q.get("limit")
	if !ok {
		return 0, nil
	}
	n := 0
	for _, c := range []byte(value) {
		if c < '0' || c > '9' || n > MaxLimit {
			n = 0
			break
		}
		n = n*10 + int(c-'0')
	}
	if n < 1 || n > MaxLimit {
		return 0, badParameter("limit", "must be a number from 1 to "+strconv.Itoa(MaxLimit))
	}
	return n, nil
}
