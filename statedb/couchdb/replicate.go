package couchdb

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/statedb"
)

// A peer's tables are copied by CouchDB's own replicator, one document in
// _replicator for each. It pulls, so that a peer that is gone holds up nobody
// else; what it brings is written by the copier, a user made for that peer, who is
// no admin. The selector leaves at the peer what is no ledger's, deletions, and
// edits. A server that lies sends them all the same: see guard.

const replicatorDatabase = "_replicator"

// replication is a document of _replicator.
type replication struct {
	ID         string   `json:"_id,omitempty"`
	Rev        string   `json:"_rev,omitempty"`
	Source     endpoint `json:"source"`
	Target     endpoint `json:"target"`
	Continuous bool     `json:"continuous"`
	Selector   selector `json:"selector"`
	// Patience is in milliseconds, firstPatience and a little: CouchDB takes the
	// document for another one when it changes. It is also how long a line that
	// broke is held for good.
	Patience int `json:"connection_timeout"`
	// What the commands want to know of it again.
	Ledger replicationOf `json:"couchledger"`
}

type replicationOf struct {
	URL   string `json:"url"`
	Name  string `json:"name"`
	Table string `json:"table"`
}

type endpoint struct {
	URL  string `json:"url"`
	Auth struct {
		Basic struct {
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"basic"`
	} `json:"auth"`
}

func endpointAt(server, database, user, password string) (e endpoint) {
	e.URL = server + path(database)
	e.Auth.Basic.Username, e.Auth.Basic.Password = user, password
	return e
}

// selector is which of a peer's documents are asked for. Beginning is another one
// each time: CouchDB goes on where a replication with the same selector ended, and
// what this side has lost since would never come again.
type selector struct {
	ID struct {
		Regex     string `json:"$regex"`
		Beginning string `json:"$ne"`
	} `json:"_id"`
	Rev struct {
		Regex string `json:"$regex"`
	} `json:"_rev"`
	Deleted struct {
		Exists bool `json:"$exists"`
	} `json:"_deleted"`
}

func selectorOf(t statedb.CopiedTable) (s selector) {
	s.ID.Regex, s.ID.Beginning = t.IDs, rand.Text()
	s.Rev.Regex = "^1-"
	return s
}

const (
	firstPatience = 10_000
	patiences     = 100 // how many there are
)

// peerKey names a peer in documents' ids.
func peerKey(p statedb.Peer) string {
	sum := sha256.Sum256([]byte(p.URL + "/" + p.Name))
	return fmt.Sprintf("%x", sum[:8])
}

// replicationPrefix begins the ids of this ledger's documents in _replicator. No
// ledger's name holds a colon.
func (db *DB) replicationPrefix() string { return "couchledger:" + db.opts.Name + ":" }

func (db *DB) replicationPath(p statedb.Peer, table string) string {
	return path(replicatorDatabase, db.replicationPrefix()+peerKey(p)+":"+table)
}

func (db *DB) copier(p statedb.Peer) string { return "couchledger-" + db.opts.Name + "-" + peerKey(p) }

// ReadPeer reads a document of a peer's.
func (db *DB) ReadPeer(ctx context.Context, p statedb.Peer, table, id string) ([]byte, error) {
	if err := db.canReplicate(); err != nil {
		return nil, err
	}
	var own struct{ Marker string }
	name := p.Name + "_" + table
	text, err := db.fromPeer(ctx, db.toPeer(false), p, path(name)+"/"+markerID, nil)
	if err == nil {
		err = json.Unmarshal(text, &own)
	}
	if err != nil && !isMissingDocument(err) {
		return nil, err
	}
	if local, err := db.database(table); err == nil && own.Marker != "" {
		if marker, err := db.marker(ctx, local); err == nil && marker == own.Marker {
			return nil, errors.New("that is this node's own database")
		}
	}
	text, err = db.fromPeer(ctx, db.toPeer(false), p, path(name, id), nil)
	if isMissingDocument(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := readDocument(text)
	return d.Body, err
}

// AddPeer copies tables from a peer from now on.
func (db *DB) AddPeer(ctx context.Context, p statedb.Peer, tables []statedb.CopiedTable) error {
	if err := db.canReplicate(); err != nil {
		return err
	}
	if err := db.ensureSystem(ctx, replicatorDatabase); err != nil {
		return err
	}
	if strings.HasPrefix(p.URL, "https:") {
		checks, err := db.configuredText(ctx, "replicator/verify_ssl_certificates")
		if err != nil {
			return err
		}
		if checks != "true" {
			db.log.Warn("CouchDB does not check whose certificate a peer shows: set verify_ssl_certificates and ssl_trusted_certificates_file in its section [replicator]", "peer", p.URL)
		}
	}
	password, err := db.putUser(ctx, db.copier(p), db.copierRole())
	if err != nil {
		return err
	}
	if err := db.open(ctx, tables, db.copierRole()); err != nil {
		return err
	}
	for _, t := range tables {
		name, err := db.database(t.Table)
		if err != nil {
			return err
		}
		document, err := asFields(replication{
			Source: endpointAt(p.URL, p.Name+"_"+t.Table, p.User, p.Password), Target: endpointAt(db.url, name, db.copier(p), password),
			Continuous: true, Selector: selectorOf(t), Patience: firstPatience, Ledger: replicationOf{URL: p.URL, Name: p.Name, Table: t.Table},
		})
		if err == nil {
			err = db.upsert(ctx, db.replicationPath(p, t.Table), document)
		}
		if err != nil {
			return fmt.Errorf("have the table %s copied: %w", t.Table, err)
		}
	}
	return nil
}

func asFields(v any) (fields map[string]any, err error) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	return fields, err
}

// RemovePeer ends that. The guards stay: they hold off nobody who may write.
func (db *DB) RemovePeer(ctx context.Context, p statedb.Peer) (there bool, err error) {
	if err := db.canReplicate(); err != nil {
		return false, err
	}
	all, err := db.replications(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range all {
		if r.Ledger.URL == p.URL && r.Ledger.Name == p.Name {
			there = true
			if err := db.delete(ctx, path(replicatorDatabase, r.ID), r.Rev); err != nil {
				return true, err
			}
		}
	}
	user, err := db.dropUser(ctx, db.copier(p), db.copierRole())
	return there || user, err
}

// replications lists this ledger's documents in _replicator.
func (db *DB) replications(ctx context.Context) (list []replication, err error) {
	prefix := db.replicationPrefix()
	start, _ := json.Marshal(prefix)
	end, _ := json.Marshal(prefix + "\ufff0")
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path(replicatorDatabase, "_all_docs"), reads: true,
		query: url.Values{"include_docs": {"true"}, "startkey": {string(start)}, "endkey": {string(end)}}})
	if errors.Is(err, statedb.ErrNoDatabase) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var result struct {
		Rows []struct{ Doc replication }
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return nil, malformed(replicatorDatabase)
	}
	for _, row := range result.Rows {
		list = append(list, row.Doc)
	}
	return list, nil
}

// HasPeers reports whether tables are copied from anywhere.
func (db *DB) HasPeers(ctx context.Context) (bool, error) {
	list, err := db.listPeers(ctx)
	return len(list) > 0, err
}

// listPeers lists what is copied, and remembers whether anything is.
func (db *DB) listPeers(ctx context.Context) (list []replication, err error) {
	if db.server.substitute {
		return nil, nil
	}
	list, err = db.replications(ctx)
	if err == nil {
		db.peers.Store(len(list) > 0)
	}
	return list, err
}

// Peers tells of all peers.
func (db *DB) Peers(ctx context.Context) (all []statedb.Copies, err error) {
	if err := db.canReplicate(); err != nil {
		return nil, err
	}
	list, err := db.replications(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b replication) int {
		return cmp.Or(strings.Compare(a.Ledger.URL, b.Ledger.URL), strings.Compare(a.Ledger.Name, b.Ledger.Name),
			slices.Index(statedb.Tables, a.Ledger.Table)-slices.Index(statedb.Tables, b.Ledger.Table))
	})
	jobs, err := db.jobs(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		p := r.peer()
		p.Password = ""
		if len(all) == 0 || all[len(all)-1].Peer != p {
			all = append(all, statedb.Copies{Peer: p})
		}
		last := &all[len(all)-1]
		last.Tables = append(last.Tables, db.copyOf(ctx, r, jobs[r.ID]))
	}
	return all, nil
}

func (r *replication) peer() statedb.Peer {
	return statedb.Peer{URL: r.Ledger.URL, Name: r.Ledger.Name, User: r.Source.Auth.Basic.Username, Password: r.Source.Auth.Basic.Password}
}

// job is what CouchDB's scheduler says of a replication.
type job struct {
	ID          string `json:"doc_id"`
	Replication string `json:"id"` // of its checkpoint, and a suffix
	State       string
	Info        struct {
		Error        string
		DocsWritten  int             `json:"docs_written"`
		Failures     int             `json:"doc_write_failures"`
		Through      json.RawMessage `json:"through_seq"`
		Checkpointed json.RawMessage `json:"checkpointed_source_seq"`
	}
}

const (
	crashing  = "crashing" // a job's state while CouchDB makes a pause
	beginning = "0"        // before all changes of a database
	mostJobs  = "10000"
)

// jobs returns the replications that the scheduler knows, by the ids of their
// documents.
func (db *DB) jobs(ctx context.Context) (map[string]job, error) {
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path("_scheduler", "docs", replicatorDatabase), reads: true,
		query: url.Values{"limit": {mostJobs}}})
	if err != nil {
		return nil, err
	}
	var result struct{ Docs []job }
	if err := json.Unmarshal(answer, &result); err != nil {
		return nil, malformed("_scheduler/docs")
	}
	jobs := map[string]job{}
	for _, j := range result.Docs {
		jobs[j.ID] = j
	}
	return jobs, nil
}

// copyOf tells how a replication stands.
func (db *DB) copyOf(ctx context.Context, r replication, job job) statedb.Copy {
	c := statedb.Copy{Table: r.Ledger.Table}
	p := r.peer()
	c.State, c.Copied, c.Refused = cmp.Or(job.State, "starting"), job.Info.DocsWritten, job.Info.Failures
	c.Error = withoutSecrets(job.Info.Error, p.Password, r.Target.Auth.Basic.Password)
	since := cmp.Or(sequence(job.Info.Through), sequence(job.Info.Checkpointed))
	var err error
	if since == "" {
		since, err = db.checkpoint(ctx, r.Ledger.Table, job.Replication)
	}
	if err == nil {
		c.Lag, err = db.behind(ctx, p, r.Ledger.Table, since)
	}
	if err != nil {
		c.Lag = -1
		c.Error = cmp.Or(c.Error, err.Error())
	}
	return c
}

// checkpoint is up to where a replication has come that tells nothing of itself: one
// that was begun, or begun anew, and has found nothing to do since.
func (db *DB) checkpoint(ctx context.Context, table, replication string) (string, error) {
	name, err := db.database(table)
	if err != nil {
		return "", err
	}
	id, _, _ := strings.Cut(replication, "+")
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path(name) + "/_local/" + url.PathEscape(id), reads: true})
	if isMissingDocument(err) {
		return beginning, nil
	}
	var document struct {
		Last json.RawMessage `json:"source_last_seq"`
	}
	if err == nil && json.Unmarshal(answer, &document) != nil {
		err = malformed("_local")
	}
	return cmp.Or(sequence(document.Last), beginning), err
}

// behind counts the changes at a peer after a sequence.
func (db *DB) behind(ctx context.Context, p statedb.Peer, table, since string) (int, error) {
	answer, err := db.fromPeer(ctx, db.toPeer(false), p, path(p.Name+"_"+table, "_changes"), url.Values{"since": {since}, "limit": {"1"}})
	if err != nil {
		return 0, err
	}
	var changes struct {
		Results []json.RawMessage
		Pending int
	}
	if err := json.Unmarshal(answer, &changes); err != nil {
		return 0, malformed("_changes")
	}
	return len(changes.Results) + changes.Pending, nil
}
