// Package mongodb keeps a ledger's documents in MongoDB 4.4 or newer: a database
// for each ledger, with a collection for each table. It passes the conformance
// suite of statedbtest.
//
// A document is stored as it is, with its id under _id and its revision under
// _rev. A deletion leaves {_id, _rev, _deleted: true}, so that the feed tells of
// it; Remove leaves nothing.
//
// Strings sort by their bytes. Queries are Mango's to the letter: MongoDB is
// asked for what may match, in an order that is Mango's, and package keyset
// matches and cuts the pages.
package mongodb

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/couchledger/couchledger/statedb"
)

// Options of Open. Zero values stand for the defaults given.
type Options struct {
	Host string // "localhost"
	Port int    // 27017
	Name string // the ledger's name: that of its database
	// ReplicaSet is the name that the server's replica set must have; "" takes
	// whatever the server is. A set of this name that was not initiated yet is.
	ReplicaSet string
	// Login is a user of the ledger's database or of admin; "" sends no
	// credentials. Without a Password it is the subject of TLS's certificate.
	Login    string
	Password string
	TLS      *tls.Config // nil is no TLS

	ConnectTimeout time.Duration // of one attempt to connect; 5 s
	RequestTimeout time.Duration // of one command; 35 s
	MaxTries       int           // attempts to reach the server in Open; 0 for ever
	MaxBatch       int           // documents of one write; 1000

	// Logger gets what an operator should know: a server that does not answer
	// yet, how changes are followed. Nil drops it.
	Logger *slog.Logger
	// Registry gets the counters of commands; nil for none.
	Registry prometheus.Registerer

	// poll follows changes by reading the collection again and again where the
	// server could do better; of tests.
	poll bool
	// likeMongoDB sends FerretDB the commands that MongoDB gets wherever it
	// knows them; of tests.
	likeMongoDB bool
	// patience is how long a feed waits for an answer to what should have one
	// at once; of tests, 0 is 30 s.
	patience time.Duration
}

// DB is one ledger in a MongoDB server.
type DB struct {
	opts    Options
	address string
	client  *mongo.Client
	mongo   *mongo.Database
	log     *slog.Logger
	metrics *metrics
	server  server

	closed context.Context // done when Close was called
	close  context.CancelFunc

	mu       sync.Mutex
	tables   map[string]identity
	catalogs map[string]*catalog // by table
}

var _ statedb.DB = (*DB)(nil)

// Defaults of Options.
const (
	defaultHost           = "localhost"
	defaultPort           = 27017
	defaultConnectTimeout = 5 * time.Second
	defaultRequestTimeout = 35 * time.Second
	defaultMaxBatch       = 1000
	defaultPatience       = 30 * time.Second
	// writers: MongoDB writes batches side by side; each waits for the disk,
	// and for a majority of the members.
	writers = 4
	// maxDocumentBytes of JSON are at most 16 MiB of BSON, which is MongoDB's
	// limit. The worst is an array of small numbers: two bytes each in JSON, up
	// to thirteen in BSON, which writes every element's place as digits.
	maxDocumentBytes = 2_500_000
)

func (o *Options) setDefaults() {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&o.ConnectTimeout, defaultConnectTimeout)
	set(&o.RequestTimeout, defaultRequestTimeout)
	set(&o.patience, defaultPatience)
	if o.Host == "" {
		o.Host = defaultHost
	}
	if o.Port == 0 {
		o.Port = defaultPort
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = defaultMaxBatch
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// longestName is MongoDB's limit for the name of a database, in bytes.
const longestName = 63

// CheckName says whether MongoDB takes a ledger's name.
func CheckName(name string) error {
	switch {
	case name == "" || len(name) > longestName || strings.ContainsAny(name, "/\\. \"$*<>:|?\x00"):
		return fmt.Errorf("%q is no name for a MongoDB database: it has 1 to %d bytes and none of /\\. \"$*<>:|?", name, longestName)
	case name == "admin" || name == "local" || name == "config":
		return fmt.Errorf("the database %q is MongoDB's own: name the ledger otherwise in database.name", name)
	}
	return nil
}

// Open reaches the server, tries again with doubling delay while it does not
// answer, and makes sure that it is one that can be used. A replica set that
// was not initiated yet is. The ledger's database need not exist.
//
// Errors wrap statedb.ErrUnavailable when the server does not answer and
// statedb.ErrDenied when it does not let the user in.
func Open(ctx context.Context, opts Options) (*DB, error) {
	opts.setDefaults()
	if err := CheckName(opts.Name); err != nil {
		return nil, err
	}
	db := &DB{
		opts: opts, address: net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port)), log: opts.Logger,
		tables: map[string]identity{}, catalogs: map[string]*catalog{}, metrics: newMetrics(opts.Registry),
	}
	db.closed, db.close = context.WithCancel(context.Background())
	if err := db.connect(ctx); err != nil {
		return nil, err
	}
	db.log.Info("connected to MongoDB", "address", db.address, "server", db.server.String(), "feed", db.server.feed(opts))
	return db, nil
}

// connect waits for the server.
func (db *DB) connect(ctx context.Context) error {
	server := statedb.Server{Product: "MongoDB", Address: db.address, MaxTries: db.opts.MaxTries, Log: db.log}
	return server.Reach(ctx, db.reach)
}

// reach greets the server over a connection of its own, which needs nothing to
// be in order yet, and then opens the client that is used from then on. The user
// is one of the ledger's database, as in 0.10.0, or of admin, as is MongoDB's
// custom.
func (db *DB) reach(outer context.Context) error {
	ctx, cancel := context.WithTimeout(outer, db.opts.RequestTimeout)
	defer cancel()
	if err := db.greet(ctx); err != nil {
		return db.fault(outer, err)
	}
	var err error
	for _, source := range []string{db.opts.Name, "admin"} {
		if err = db.logIn(ctx, source); codeOf(err) != codeLoginFailed {
			break
		}
	}
	return db.fault(outer, err)
}

// logIn opens the client, and looks whether it is let in.
func (db *DB) logIn(ctx context.Context, source string) error {
	client, err := mongo.Connect(db.clientOptions(source, db.server.set))
	if err != nil {
		return refuse("the settings for MongoDB do not fit: %v", err)
	}
	database := client.Database(db.opts.Name)
	if _, err := database.ListCollectionNames(ctx, bson.D{}); err != nil {
		_ = client.Disconnect(context.WithoutCancel(ctx)) // it is of no use
		if db.server.set != "" && codeOf(err) == 0 {
			err = fmt.Errorf("the members of the replica set %s must be reachable under the names it has for them: %w", db.server.set, err)
		}
		return err
	}
	db.client, db.mongo = client, database
	return nil
}

// clientOptions make a client: of a replica set by its name, or of just the
// one server. source is the database that knows the user, "" sends none.
func (db *DB) clientOptions(source, set string) *options.ClientOptions {
	journal := true
	opts := options.Client().SetHosts([]string{db.address}).SetAppName("couchledger").
		SetConnectTimeout(db.opts.ConnectTimeout).SetServerSelectionTimeout(db.opts.ConnectTimeout).
		SetMonitor(db.metrics.monitor()).SetWriteConcern(&writeconcern.WriteConcern{W: "majority", Journal: &journal})
	if db.opts.TLS != nil {
		opts.SetTLSConfig(db.opts.TLS)
	}
	if set != "" {
		// What was read is never rolled back, and what was written is read.
		opts.SetReplicaSet(set).SetReadConcern(readconcern.Majority())
	} else {
		opts.SetDirect(true).SetRetryWrites(false)
	}
	switch {
	case source == "":
	case db.opts.Login != "" && db.opts.Password != "":
		opts.SetAuth(options.Credential{AuthSource: source, Username: db.opts.Login, Password: db.opts.Password})
	case db.opts.Login != "" && db.opts.TLS != nil:
		opts.SetAuth(options.Credential{AuthMechanism: "MONGODB-X509", AuthSource: "$external", Username: db.opts.Login})
	}
	return opts
}

// Close releases the connection. Open feeds end with ErrClosed.
func (db *DB) Close() error {
	if db.closed.Err() != nil {
		return nil
	}
	db.close()
	ctx, cancel := context.WithTimeout(context.Background(), db.opts.ConnectTimeout)
	defer cancel()
	return db.client.Disconnect(ctx)
}

// Limits tells what the server can hold.
func (db *DB) Limits() statedb.Limits {
	limits := statedb.Limits{MaxDocumentBytes: maxDocumentBytes, MaxBatch: db.opts.MaxBatch, Writers: writers}
	if db.server.substitute {
		limits.Writers = 1 // SQLite writes one batch after the other
	}
	return limits
}
