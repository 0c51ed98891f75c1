package httpapi

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
)

// openAPIDoc is what the tests read of openapi.json.
type openAPIDoc struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components map[string]map[string]json.RawMessage
}

type operation struct {
	Parameters []struct {
		Ref  string `json:"$ref"`
		Name string
		In   string
	}
	Responses map[string]json.RawMessage
	Security  []map[string]json.RawMessage
}

// TestOpenAPIIsTrue: every route is described with its query parameters, and
// everything described is a route.
func TestOpenAPIIsTrue(t *testing.T) {
	var doc openAPIDoc
	_, base := start(t, fakenode.New(), Options{})
	got := get(t, base+"/api/v1/openapi.json")
	decode(t, got.body, &doc)
	if !strings.HasPrefix(doc.OpenAPI, "3.") {
		t.Errorf("got OpenAPI version %q", doc.OpenAPI)
	}
	described := map[string]operation{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			described[strings.ToUpper(method)+" "+path] = op
		}
	}
	for _, r := range New(fakenode.New(), Options{}).routes() {
		path := strings.ReplaceAll(r.path, ":id", "{id}")
		key := r.method + " " + path
		op, ok := described[key]
		if !ok {
			t.Errorf("%s is not described", key)
			continue
		}
		delete(described, key)
		var params []string
		for _, p := range op.Parameters {
			if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
				params = append(params, name)
			} else if p.In == "query" {
				params = append(params, p.Name)
			}
		}
		slices.Sort(params)
		want := slices.Sorted(slices.Values(r.params))
		if !slices.Equal(params, want) {
			t.Errorf("%s: described with parameters %v, takes %v", key, params, want)
		}
	}
	checkGuards(t, doc)
	for key := range described {
		t.Errorf("%s is described but not served", key)
	}
	for _, part := range strings.Split(got.body, `"$ref": "#/components/`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		kind, name, _ := strings.Cut(ref, "/")
		if doc.Components[kind][name] == nil {
			t.Errorf("a reference to %s leads nowhere", ref)
		}
	}
}

// checkGuards: what needs a token says so, and all but probes may be too many.
func checkGuards(t *testing.T, doc openAPIDoc) {
	t.Helper()
	for _, r := range New(fakenode.New(), Options{}).routes() {
		op := doc.Paths[strings.ReplaceAll(r.path, ":id", "{id}")][strings.ToLower(r.method)]
		for status, want := range map[string]bool{"401": r.needs != 0, "403": r.needs != 0, "429": r.path != "/healthz" && r.path != "/readyz"} {
			if (op.Responses[status] != nil) != want {
				t.Errorf("%s %s: %s is described: %v, want %v", r.method, r.path, status, !want, want)
			}
		}
		if (len(op.Security) > 0) != (r.needs != 0) {
			t.Errorf("%s %s: described with security %v", r.method, r.path, op.Security)
		}
	}
}
