package bench

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/couchledger/couchledger/statedb"
)

// CouchDB tells where the node that is measured keeps its ledger, so that its
// rates can be put in proportion to what that server manages alone. The user
// must be a server admin, as the node's is.
type CouchDB struct {
	URL      string // http or https, without credentials
	Name     string // the ledger's: its databases are <Name>_<table>
	Login    string // "" sends no credentials
	Password string
	TLS      *tls.Config // nil is Go's own for https
}

// How the raw rate is measured.
const (
	rawDocumentBytes = 700 // its JSON with _id, as it is sent
	rawBatch         = 1000
	rawWriters       = 2
	// dropTime bounds how long an interrupted run stays to delete what it made.
	dropTime = 20 * time.Second
	// couchTimeout bounds a request.
	couchTimeout = time.Minute
)

// couch sends plain HTTP to a CouchDB.
type couch struct {
	CouchDB
	http *http.Client
}

func newCouch(address CouchDB) *couch {
	transport := &http.Transport{TLSClientConfig: address.TLS, MaxIdleConnsPerHost: rawWriters}
	return &couch{CouchDB: address, http: &http.Client{Transport: transport, Timeout: couchTimeout}}
}

func (c *couch) close() { c.http.CloseIdleConnections() }

// couchError is an answer other than 2xx.
type couchError struct {
	request string
	status  int
	text    string
}

func (e *couchError) Error() string {
	return fmt.Sprintf("bench: CouchDB answers %d to %s: %s", e.status, e.request, e.text)
}

// do sends a request and gives the body of its answer.
func (c *couch) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+"/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("bench: CouchDB: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.Login != "" {
		req.SetBasicAuth(c.Login, c.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: CouchDB: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("bench: CouchDB: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, &couchError{method + " /" + path, resp.StatusCode, strings.TrimSpace(string(answer))}
	}
	return answer, nil
}

// rawRate writes documents to a fresh database and gives how many per second
// it took. The database is deleted afterwards, also on an error and when ctx
// ends. at hears how many are written.
func (c *couch) rawRate(ctx context.Context, documents int, at func(done int)) (rate float64, err error) {
	batches := rawBatches(documents)
	name := url.PathEscape(c.Name + "_raw_" + strings.ToLower(rand.Text()))
	defer func() {
		// Nobody else knows the name.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
		defer cancel()
		_, dropped := c.do(ctx, http.MethodDelete, name, nil)
		if e := (*couchError)(nil); !errors.As(dropped, &e) || e.status != http.StatusNotFound {
			err = errors.Join(err, dropped)
		}
	}()
	if _, err := c.do(ctx, http.MethodPut, name, nil); err != nil {
		return 0, err
	}
	var (
		next, done atomic.Int64
		wg         sync.WaitGroup
		failed     [rawWriters]error
	)
	begin := time.Now()
	for writer := range rawWriters {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(batches); i = int(next.Add(1)) - 1 {
				stored, err := c.write(ctx, name, batches[i])
				if err != nil {
					failed[writer] = err
					return
				}
				at(int(done.Add(int64(stored))))
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if ctx.Err() != nil {
		return 0, fmt.Errorf("bench: %w", ctx.Err())
	}
	if err := cmp.Or(failed[:]...); err != nil {
		return 0, err
	}
	if int(done.Load()) != documents {
		return 0, fmt.Errorf("bench: CouchDB stored %d of %d documents", done.Load(), documents)
	}
	return perSecond(documents, took), nil
}

// write sends one batch and gives how many documents were stored.
func (c *couch) write(ctx context.Context, name string, batch []byte) (stored int, err error) {
	answer, err := c.do(ctx, http.MethodPost, name+"/_bulk_docs", batch)
	if err != nil {
		return 0, err
	}
	return bytes.Count(answer, []byte(`"ok":true`)), nil
}

// rawBatches makes the bodies of _bulk_docs requests: documents of
// rawDocumentBytes with random ids in the form of a transaction's, and text
// that does not compress well, like keys and signatures.
func rawBatches(documents int) [][]byte {
	const (
		idBytes = 32
		form    = `{"_id":"%s","data":"%s"}`
		fill    = rawDocumentBytes - len(`{"_id":"","data":""}`) - 2*idBytes
	)
	var batches [][]byte
	id, text := make([]byte, idBytes), make([]byte, (fill+1)/2)
	for documents > 0 {
		n := min(documents, rawBatch)
		body := []byte(`{"docs":[`)
		for i := range n {
			if i > 0 {
				body = append(body, ',')
			}
			_, _ = rand.Read(id) // never fails
			_, _ = rand.Read(text)
			body = fmt.Appendf(body, form, hex.EncodeToString(id), hex.EncodeToString(text)[:fill])
		}
		batches = append(batches, append(body, `]}`...))
		documents -= n
	}
	return batches
}

// footprint is what a ledger takes in CouchDB.
type footprint struct {
	file, active int64 // bytes, of all its databases
	backlog      int   // documents in the backlog
}

// footprint asks for all of the ledger's databases.
func (c *couch) footprint(ctx context.Context) (f footprint, err error) {
	for _, table := range statedb.Tables {
		answer, err := c.do(ctx, http.MethodGet, url.PathEscape(c.Name+"_"+table), nil)
		if err != nil {
			return f, err
		}
		var info struct {
			Documents int `json:"doc_count"`
			Sizes     struct {
				File   int64 `json:"file"`
				Active int64 `json:"active"`
			} `json:"sizes"`
		}
		if err := json.Unmarshal(answer, &info); err != nil {
			return f, fmt.Errorf("bench: CouchDB: the description of %s_%s: %w", c.Name, table, err)
		}
		f.file += info.Sizes.File
		f.active += info.Sizes.Active
		if table == statedb.Backlog {
			f.backlog = info.Documents
		}
	}
	return f, nil
}

// settled waits until the backlog is as short as it was before a load, which
// tells that the load's whole work is done: what is decided is written to the
// transactions table first and leaves the backlog then. It reports false when
// that takes longer than patience.
func (c *couch) settled(ctx context.Context, before int, patience time.Duration) (bool, error) {
	const pause = 100 * time.Millisecond
	for begin := time.Now(); ; {
		f, err := c.footprint(ctx)
		if err != nil || f.backlog <= before {
			return err == nil, err
		}
		if time.Since(begin) > patience {
			return false, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, fmt.Errorf("bench: %w", ctx.Err())
		}
	}
}

// couchRequests adds up the node's counter of requests to CouchDB in
// Prometheus's text format.
func couchRequests(metrics []byte) (total float64) {
	for line := range bytes.Lines(metrics) {
		if !bytes.HasPrefix(line, []byte("couchledger_couchdb_requests_total{")) {
			continue
		}
		if i := bytes.LastIndexByte(line, ' '); i > 0 {
			n, err := strconv.ParseFloat(string(bytes.TrimSpace(line[i:])), 64)
			if err == nil {
				total += n
			}
		}
	}
	return total
}
