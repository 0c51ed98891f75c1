package couchdb

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"github.com/couchledger/couchledger/statedb"
)

// TendPeers ends the pauses that CouchDB makes after a replication crashed, which
// grow up to hours, and restarts those from a peer that did not answer when it was
// asked before: they may not have noticed yet.
func (db *DB) TendPeers(ctx context.Context) (some bool, err error) {
	list, err := db.listPeers(ctx)
	if err != nil || len(list) == 0 {
		return false, err
	}
	return true, db.revive(ctx, list)
}

func (db *DB) revive(ctx context.Context, list []replication) error {
	jobs, err := db.jobs(ctx)
	if err != nil {
		return err
	}
	was := map[statedb.Peer]bool{}
	for p, w := range db.watched {
		was[p] = w.away
	}
	db.probe(ctx, list)
	for _, r := range list {
		p := r.peer()
		w := db.watched[p]
		if w.away || !was[p] && !w.broke && jobs[r.ID].State != crashing {
			continue
		}
		r.Patience = firstPatience + (r.Patience-firstPatience+1)%patiences
		body, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = db.do(ctx, request{method: http.MethodPut, path: path(replicatorDatabase, r.ID), body: body})
		if err != nil && statusOf(err) != http.StatusConflict { // somebody has changed or removed it
			return err
		}
		db.log.Info("a peer that was away answers again; copying goes on", "peer", p.URL, "table", r.Ledger.Table)
	}
	return nil
}

// watched is a peer that is asked now and then whether it lets its reader read.
type watched struct {
	client *http.Client
	away   bool // it did not answer the last time
	// kept counts the answers in a row that came over one connection, and broke says
	// that a connection which had held ended since the last question: the peer, or the
	// line to it, was away for a moment.
	kept  int
	broke bool
}

// held is how many answers over one connection show that this peer keeps them.
const held = 3

// probe asks all peers at once.
func (db *DB) probe(ctx context.Context, list []replication) {
	now := map[statedb.Peer]*watched{}
	var group sync.WaitGroup
	for _, r := range list {
		p := r.peer()
		if now[p] != nil {
			continue
		}
		w := db.watched[p]
		if w == nil {
			w = &watched{client: db.toPeer(true)}
		}
		now[p] = w
		group.Go(func() {
			reused := false
			ctx := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
			_, err := db.fromPeer(ctx, w.client, p, path(p.Name+"_"+r.Ledger.Table), nil)
			w.away = err != nil
			if w.broke = !reused && w.kept >= held; reused && err == nil {
				w.kept++
			} else {
				w.kept = 0
			}
		})
	}
	group.Wait()
	for p, w := range db.watched {
		if now[p] == nil {
			w.client.CloseIdleConnections()
		}
	}
	db.watched = now
}

// maxPeerBody bounds what a peer's server can make this side hold. The largest
// that is asked for is a genesis block with all members' keys.
const maxPeerBody = 1 << 20

// idleLine is how long an unused connection to a peer is kept.
const idleLine = 30 * time.Second

// toPeer makes a client for a peer, which keeps its connection or asks only once.
func (db *DB) toPeer(keeps bool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: db.opts.PeerTLS, MaxConnsPerHost: 1, IdleConnTimeout: idleLine, DisableKeepAlives: !keeps},
		// Where a peer may send this side's requests is not the peer's to say.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fromPeer reads something at a peer's server.
func (db *DB) fromPeer(ctx context.Context, client *http.Client, p statedb.Peer, path string, query url.Values) ([]byte, error) {
	ctx, cancel := db.bound(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, db.opts.ConnectTimeout)
	defer cancelTimeout()
	address := p.URL + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(p.User, p.Password)
	response, err := client.Do(request)
	if untrusted := (*tls.CertificateVerificationError)(nil); errors.As(err, &untrusted) {
		return nil, fmt.Errorf("%w: the certificate of %s is not trusted; database.ca_cert names the file of its authority: %w", statedb.ErrUnavailable, p.URL, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", statedb.ErrUnavailable, err)
	}
	defer response.Body.Close()
	if response.StatusCode < http.StatusMultipleChoices {
		body, err := io.ReadAll(io.LimitReader(response.Body, maxPeerBody+1))
		if err == nil && len(body) > maxPeerBody {
			err = malformed(fmt.Sprintf("%s sends more than %d bytes", p.URL, maxPeerBody))
		}
		return body, err
	}
	err = readError(response)
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%w: %s does not let the user %q read the ledger %s; its operator has to call `bigchaindb allow-peer` (%w)", statedb.ErrDenied, p.URL, p.User, p.Name, err)
	case http.StatusNotFound:
		if !isMissingDocument(err) {
			return nil, fmt.Errorf("%w: %s has no ledger %s (%w)", statedb.ErrNoDatabase, p.URL, p.Name, err)
		}
	}
	return nil, err
}
