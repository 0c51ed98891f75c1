package couchdb

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-kivik/kivik/v4"

	"github.com/couchledger/couchledger/statedb"
)

const (
	// oldestMajor is the first version with what is used here: purging in
	// databases of several shards, and databases that only admins read.
	oldestMajor = 3
	// defaultMaxDocument is CouchDB's max_document_size when it is not set.
	defaultMaxDocument = 8_000_000
	// defaultMaxPurge is CouchDB's purge.max_document_id_number, and
	// defaultMaxPurgeRevs its purge.max_revisions_number.
	defaultMaxPurge     = 100
	defaultMaxPurgeRevs = 1000
	// documentMargin is left below it, for _id, _rev and how CouchDB counts.
	documentMargin = 4096
	// createTries is how often making a database is tried again.
	createTries = 4
	// serverAdmin is the role that creates databases and purges documents.
	serverAdmin = "_admin"
)

// greet asks the server what it is and whether it knows the user.
func (db *DB) greet(ctx context.Context) error {
	body, err := db.once(ctx, request{method: http.MethodGet, path: "/"})
	if err != nil {
		return err
	}
	var welcome struct {
		CouchDB    string `json:"couchdb"`
		Version    string `json:"version"`
		Substitute string `json:"express-pouchdb"`
	}
	if json.Unmarshal(body, &welcome) != nil || welcome.CouchDB == "" && welcome.Substitute == "" {
		return fmt.Errorf("what answers at %s is not CouchDB", db.url)
	}
	db.server.version = welcome.Version
	db.server.substitute = welcome.CouchDB == ""
	major, _, _ := strings.Cut(welcome.Version, ".")
	if n, err := strconv.Atoi(major); !db.server.substitute && (err != nil || n < oldestMajor) {
		return fmt.Errorf("CouchDB at %s is version %s; version %d or newer is needed", db.url, welcome.Version, oldestMajor)
	}
	if err := db.checkRights(ctx); err != nil {
		return err
	}
	return db.readLimits(ctx)
}

// checkRights makes sure that the user is a server admin: nobody else may
// create databases, say who reads them, or purge documents.
func (db *DB) checkRights(ctx context.Context) error {
	body, err := db.once(ctx, request{method: http.MethodGet, path: "/_session"})
	if err != nil {
		return err
	}
	var session struct {
		User struct {
			Roles []string `json:"roles"`
		} `json:"userCtx"`
	}
	if err := json.Unmarshal(body, &session); err != nil {
		return malformed("_session")
	}
	if db.server.substitute || slices.Contains(session.User.Roles, serverAdmin) {
		return nil
	}
	if db.opts.Login == "" {
		return db.denied(errors.New("no user was given"))
	}
	return fmt.Errorf("%w: the CouchDB user %q is not a server admin; a node needs one, as it creates databases, says who may read them, and purges the backlog", statedb.ErrDenied, db.opts.Login)
}

// readLimits asks how large a document may be and how many are purged at once.
func (db *DB) readLimits(ctx context.Context) error {
	size, err := db.configured(ctx, "couchdb/max_document_size", defaultMaxDocument)
	if err != nil {
		return err
	}
	// A limit that leaves no room is the server's to complain about.
	db.server.maxDocument.Store(max(size-documentMargin, 1))
	purge, err := db.configured(ctx, "purge/max_document_id_number", defaultMaxPurge)
	if err != nil {
		return err
	}
	revs, err := db.configured(ctx, "purge/max_revisions_number", defaultMaxPurgeRevs)
	if err != nil {
		return err
	}
	db.server.maxPurge.Store(max(min(purge, revs, int64(db.opts.MaxBatch)), 1))
	db.server.maxPurgeRevs.Store(max(revs, 1))
	return nil
}

// configured reads a number of the server's configuration, or gives its
// default when it is not set or not shown.
func (db *DB) configured(ctx context.Context, setting string, byDefault int64) (int64, error) {
	text, err := db.configuredText(ctx, setting)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return byDefault, nil
	}
	return n, nil
}

// configuredText reads a setting of the server's, "" when it is not set or not shown.
func (db *DB) configuredText(ctx context.Context, setting string) (text string, err error) {
	body, err := db.once(ctx, request{method: http.MethodGet, path: "/_node/_local/_config/" + setting})
	if errors.Is(err, statedb.ErrUnavailable) {
		return "", err
	}
	if err == nil {
		_ = json.Unmarshal(body, &text)
	}
	return text, nil
}

// shards is q of a table's database: bigchain and votes have one, so that
// their feeds are in the order of writing.
func (db *DB) shards(table string) int {
	if table == statedb.Bigchain || table == statedb.Votes {
		return 1
	}
	return db.opts.Shards
}

// Create makes the databases that are missing.
func (db *DB) Create(ctx context.Context) (created bool, err error) {
	for i, table := range statedb.Tables {
		made, err := db.createTable(ctx, table)
		if err != nil {
			return created, fmt.Errorf("create the database %s_%s: %w", db.opts.Name, table, err)
		}
		created = created || made && i == 0
	}
	return created, nil
}

func (db *DB) createTable(ctx context.Context, table string) (made bool, err error) {
	name, err := db.database(table)
	if err != nil {
		return false, err
	}
	values := map[string]any{}
	if q := db.shards(table); q > 0 {
		values["q"] = q
	}
	if db.opts.Replicas > 0 {
		values["n"] = db.opts.Replicas
	}
	for try := 0; ; try++ {
		err = db.admin(ctx, func(ctx context.Context) error { return db.client.CreateDB(ctx, name, kivik.Params(values)) })
		// Where several nodes make it at the same moment some get a 500, "conflict".
		if statusOf(err) != http.StatusInternalServerError || try == createTries {
			break
		}
		if err := db.pause(ctx, firstPause<<try); err != nil {
			return false, err
		}
	}
	switch {
	case err == nil:
		made = true
		err = db.keepPrivate(ctx, name)
	case statusOf(err) == http.StatusPreconditionFailed:
		err = db.inspect(ctx, name)
	}
	if err == nil {
		_, err = db.marker(ctx, name)
	}
	return made, err
}

// keepPrivate lets only the node's user and server admins read and write a
// database. That is CouchDB's default, too, unless its configuration says
// otherwise.
func (db *DB) keepPrivate(ctx context.Context, name string) error {
	members := kivik.Members{Roles: []string{serverAdmin}}
	if db.opts.Login != "" {
		members.Names = []string{db.opts.Login}
	}
	if db.server.substitute {
		return nil // there is nobody to keep it from
	}
	return db.admin(ctx, func(ctx context.Context) error {
		return db.client.DB(name).SetSecurity(ctx, &kivik.Security{Admins: members, Members: members})
	})
}

// inspect looks at a database that others made.
func (db *DB) inspect(ctx context.Context, name string) error {
	if db.server.substitute {
		return nil
	}
	body, err := db.do(ctx, request{method: http.MethodGet, path: path(name), reads: true})
	if err != nil {
		return err
	}
	var info struct {
		Props struct {
			Partitioned bool `json:"partitioned"`
		} `json:"props"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return malformed("the database's description")
	}
	if info.Props.Partitioned {
		return fmt.Errorf("it is partitioned, and ids of transactions and blocks name no partition: delete it and let the node make it")
	}
	var security *kivik.Security
	err = db.admin(ctx, func(ctx context.Context) (err error) {
		security, err = db.client.DB(name).Security(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if len(security.Members.Names)+len(security.Members.Roles) == 0 {
		// An operator may want this; a reader who can also write is no danger
		// to what is signed, but to everything that is not.
		db.log.Warn("anybody may read and write this database: its _security names no members", "database", name)
	}
	return nil
}

// admin runs a call of kivik with the time that a request may take.
func (db *DB) admin(ctx context.Context, do func(context.Context) error) error {
	outer := ctx
	ctx, cancel := db.bound(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, db.opts.RequestTimeout)
	defer cancelTimeout()
	if err := do(ctx); err != nil {
		return db.fault(outer, err)
	}
	return nil
}

// Drop deletes the databases, and what copies into them.
func (db *DB) Drop(ctx context.Context) error {
	found := false
	if !db.server.substitute {
		list, err := db.replications(ctx)
		if err != nil {
			return err
		}
		for _, r := range list {
			if _, err := db.RemovePeer(ctx, r.peer()); err != nil {
				return fmt.Errorf("end the copying from %s: %w", r.Ledger.URL, err)
			}
		}
	}
	for _, table := range statedb.Tables {
		name, err := db.database(table)
		if err != nil {
			return err
		}
		err = db.admin(ctx, func(ctx context.Context) error {
			return db.client.DestroyDB(ctx, name)
		})
		switch {
		case err == nil:
			found = true
		case !errors.Is(err, statedb.ErrNoDatabase):
			return fmt.Errorf("delete the database %s: %w", name, err)
		}
	}
	db.forgetIndexes()
	if !found {
		return statedb.ErrNoDatabase
	}
	return nil
}

// Health asks for all databases.
func (db *DB) Health(ctx context.Context) error {
	for _, table := range statedb.Tables {
		name, err := db.database(table)
		if err != nil {
			return err
		}
		if _, err := db.do(ctx, request{method: http.MethodHead, path: path(name), reads: true}); err != nil {
			return fmt.Errorf("the database %s: %w", name, err)
		}
	}
	return nil
}

// markerID is a document that replication leaves alone, in every database.
const markerID = "_local/couchledger"

// marker returns a text that tells this database from another one of the same
// name: one that was dropped and made again, or restored from elsewhere. A
// database without one gets one.
func (db *DB) marker(ctx context.Context, name string) (string, error) {
	for {
		body, err := db.do(ctx, request{method: http.MethodGet, path: path(name) + "/" + markerID, reads: true})
		if err == nil {
			var document struct {
				Marker string `json:"marker"`
			}
			if json.Unmarshal(body, &document) != nil || document.Marker == "" {
				return "", malformed(name + "/" + markerID)
			}
			return document.Marker, nil
		}
		if !isMissingDocument(err) {
			return "", err
		}
		text := make([]byte, 8)
		rand.Read(text)
		document := []byte(fmt.Sprintf(`{"marker":%q}`, hex.EncodeToString(text)))
		_, err = db.do(ctx, request{method: http.MethodPut, path: path(name) + "/" + markerID, body: document})
		if err != nil && statusOf(err) != http.StatusConflict {
			return "", err
		}
		// Read it back: another node may have been first.
	}
}

// isMissingDocument tells a 404 of a document from one of its database.
func isMissingDocument(err error) bool {
	var answer *serverError
	return errors.As(err, &answer) && answer.status == http.StatusNotFound &&
		(answer.Reason == "missing" || answer.Reason == "deleted")
}
