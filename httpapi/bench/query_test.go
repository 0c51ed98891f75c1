package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// library answers POST /api/v1/query with a number of full pages.
type library struct {
	pages   int
	far     time.Duration // what a page costs beyond the first ten
	longer  string        // in documents beyond the first page
	warning string
}

func (l library) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Table    string
		Selector map[string]string
		UseIndex string `json:"use_index"`
		Limit    int
		Bookmark string
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/api/v1/query" ||
		q.Table != "transactions" || q.Selector["operation"] != "CREATE" || q.UseIndex != "by_operation" {
		http.Error(w, `{"message":"a query that is not expected"}`, http.StatusBadRequest)
		return
	}
	page, _ := strconv.Atoi(q.Bookmark) // "" is 0
	rows, text := q.Limit, ""
	if page >= l.pages {
		rows = 3
	}
	if page > 0 {
		text = l.longer
	}
	if page > 10 {
		time.Sleep(l.far)
	}
	docs := strings.Repeat(`{"operation":"CREATE","text":"`+text+`"},`, rows)
	fmt.Fprintf(w, `{"docs":[%s],"bookmark":"%d","warning":%q}`, strings.TrimSuffix(docs, ","), page+1, l.warning)
}

func TestQueryPages(t *testing.T) {
	const ratio = "Query, page 1000 / page 1"
	for name, test := range map[string]struct {
		library library
		figure  string
		judged  bool
		missed  bool
		failure string
		err     string
	}{
		"a thousand pages":  {library: library{pages: 2000}, figure: ratio, judged: true},
		"dearer at the end": {library: library{pages: 2000, far: 3 * time.Millisecond}, figure: ratio, judged: true, missed: true},
		"seven pages":       {library: library{pages: 7}, figure: "Query, page 7 (there are no more) / page 1"},
		"none":              {library: library{}, err: "not even one page"},
		"no index":          {library: library{pages: 7, warning: "all was read"}, err: "uses no index: all was read"},
		"longer documents":  {library: library{pages: 7, longer: "something else"}, figure: "Query, page 7 (there are no more) / page 1", failure: "differ in size"},
	} {
		server := httptest.NewServer(test.library)
		opts := Options{URL: server.URL, CouchDB: &CouchDB{}}
		r := &run{opts: opts, goals: opts.goals(), progress: newProgress(&bytes.Buffer{}), errors: map[string]int{}}
		var report Report
		err := r.query(t.Context(), &report)
		server.Close()
		if test.err != "" || err != nil {
			if err == nil || test.err == "" || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got error %v, want %q", name, err, test.err)
			}
			continue
		}
		last := report.Figures[len(report.Figures)-1]
		// That pages cost the same may fail on a busy machine: only the other
		// verdict is certain.
		if last.Name != test.figure || (last.OK != nil) != test.judged || test.missed && *last.OK {
			t.Errorf("%s: got %+v", name, last)
		}
		if fmt.Sprint(r.errors) != "map[]" != (test.failure != "") || !strings.Contains(fmt.Sprint(r.errors), test.failure) {
			t.Errorf("%s: got failures %v, want %q", name, r.errors, test.failure)
		}
	}
}
