// Package rethinkdb keeps a ledger's documents in RethinkDB 2.4: a database
// with a table for each of the ledger's. It passes the conformance suite of
// statedbtest.
//
// Queries are made of the terms of the rethinkdb-go driver (v6.2.1). Its
// connections are not used: their handshake has no deadline, whatever timeouts
// are set, so that every attempt to reach a server that hangs leaves a
// goroutine and a socket behind; and its session sends a query up to three
// times when connections break, a write too, which makes a document conflict
// with itself. The protocol is small: see wire.go and handshake.go.
//
// A document is stored with its fields at the top, _id and _rev beside them.
// A deleted one leaves its _id, its _rev and _deleted. Strings sort by bytes.
package rethinkdb

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/statedb"
)

// Options of Open. Zero values stand for the defaults given.
type Options struct {
	Host     string // "localhost"
	Port     int    // 28015
	Name     string // the ledger's name, which is the database's
	Login    string // "admin"
	Password string
	TLS      *tls.Config // nil is plain TCP

	ConnectTimeout time.Duration // of one attempt to connect; 5 s
	RequestTimeout time.Duration // of one request; 35 s
	MaxTries       int           // attempts to reach the server in Open; 0 for ever
	MaxBatch       int           // documents of one write; 1000
	Shards         int           // of the tables made; 1
	Replicas       int           // of each shard of the tables made; 1

	// Logger gets what an operator should know: a server that does not answer
	// yet. Nil drops it.
	Logger *slog.Logger
	// Registry gets the counters of requests; nil for none.
	Registry prometheus.Registerer

	// heartbeat is how often a feed asks whether the server is there; of
	// tests, 0 is 10 s.
	heartbeat time.Duration
	// feedQueue is how many changes the server keeps for a feed that does not
	// take them; of tests, 0 is feedQueue.
	feedQueue int
}

// DB is one ledger in a RethinkDB server or cluster.
type DB struct {
	opts    Options
	address string
	log     *slog.Logger
	metrics *metrics
	salted  saltedPassword

	closed context.Context // done when Close was called
	close  context.CancelFunc

	mu         sync.Mutex
	idle       []*conn
	catalogs   map[string]*catalog // by table
	replicated map[string]replicated
}

var (
	_ statedb.DB      = (*DB)(nil)
	_ statedb.Sharder = (*DB)(nil)
)

// Defaults of Options.
const (
	defaultHost           = "localhost"
	defaultPort           = 28015
	defaultLogin          = "admin"
	defaultConnectTimeout = 5 * time.Second
	defaultRequestTimeout = 35 * time.Second
	defaultMaxBatch       = 1000
	defaultHeartbeat      = 10 * time.Second
	// writers: small batches at a time that are durable soonest together; the
	// server syncs what several connections write at once.
	writers = 4
	// maxDocument in bytes. RethinkDB advises 16 MB at most, and takes 24 MB; a
	// query may have 128 MB, in which a document's quotation marks take two
	// bytes. What is larger than this makes every page and batch with it slow.
	maxDocument = 8 << 20
)

func (o *Options) setDefaults() {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&o.ConnectTimeout, defaultConnectTimeout)
	set(&o.RequestTimeout, defaultRequestTimeout)
	set(&o.heartbeat, defaultHeartbeat)
	number := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	number(&o.Port, defaultPort)
	number(&o.MaxBatch, defaultMaxBatch)
	number(&o.Shards, 1)
	number(&o.Replicas, 1)
	number(&o.feedQueue, feedQueue)
	if o.Host == "" {
		o.Host = defaultHost
	}
	if o.Login == "" {
		o.Login = defaultLogin
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// validName is what RethinkDB takes as the name of a database.
var validName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// CheckName says whether RethinkDB takes a ledger's name.
func CheckName(name string) error {
	const longest = 127
	if !validName.MatchString(name) || len(name) > longest || name == systemDatabase {
		return fmt.Errorf("%q is no name for a RethinkDB database: it has letters, digits, _ and - only, %d characters at most, and is not %s", name, longest, systemDatabase)
	}
	return nil
}

// systemDatabase holds RethinkDB's own tables.
const systemDatabase = "rethinkdb"

// Open reaches the server, tries again with doubling delay while it does not
// answer, and makes sure that it is one that can be used. The ledger's database
// need not exist yet.
//
// Errors wrap statedb.ErrUnavailable when the server does not answer and
// statedb.ErrDenied when it does not let the user in.
func Open(ctx context.Context, opts Options) (*DB, error) {
	opts.setDefaults()
	if err := CheckName(opts.Name); err != nil {
		return nil, err
	}
	db := &DB{
		opts: opts, address: net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port)),
		log: opts.Logger, metrics: newMetrics(opts.Registry), catalogs: map[string]*catalog{}, replicated: map[string]replicated{},
	}
	db.closed, db.close = context.WithCancel(context.Background())
	if err := db.connect(ctx); err != nil {
		return nil, err
	}
	return db, nil
}

// connect waits for the server.
func (db *DB) connect(ctx context.Context) error {
	server := statedb.Server{Product: "RethinkDB", Address: db.address, MaxTries: db.opts.MaxTries, Log: db.log}
	return server.Reach(ctx, func(ctx context.Context) error {
		c, err := db.acquire(ctx)
		if err == nil {
			db.release(c)
		}
		return err
	})
}

// Close releases the connections. Open feeds end with ErrClosed.
func (db *DB) Close() error {
	db.close()
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, c := range db.idle {
		c.close()
	}
	db.idle = nil
	return nil
}

// Limits tells what the server can hold.
func (db *DB) Limits() statedb.Limits {
	return statedb.Limits{MaxDocumentBytes: maxDocument, MaxBatch: db.opts.MaxBatch, Writers: writers}
}

// checkTable refuses what is none of the ledger's tables.
func (db *DB) checkTable(table string) error {
	if db.closed.Err() != nil {
		return statedb.ErrClosed
	}
	if !slices.Contains(statedb.Tables, table) {
		return fmt.Errorf("%w: there is no table %q", statedb.ErrNoDatabase, table)
	}
	return nil
}
