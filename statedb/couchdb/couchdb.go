// Package couchdb keeps a ledger's documents in CouchDB 3: a database for each
// table, named <ledger>_<table>. It passes the conformance suite of statedbtest.
//
// Requests go through kivik's couchdb driver where that is exact, and through
// its chttp package where it is not: bulk writes (of a document refused the
// driver keeps no reason), the changes feed (it ends in a panic and notices no
// hanging server), and Mango (numbers become float64).
//
// Strings sort by ICU's collation in indexes and by their bytes in ranges over
// ids, as CouchDB has it.
package couchdb

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kivik/kivik/v4"
	"github.com/go-kivik/kivik/v4/couchdb"
	"github.com/go-kivik/kivik/v4/couchdb/chttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/statedb"
)

// Options of Open. Zero values stand for the defaults given.
type Options struct {
	Host     string // "localhost"
	Port     int    // 5984
	Name     string // the ledger's name: databases are <Name>_<table>
	Login    string // "" sends no credentials
	Password string
	TLS      *tls.Config // nil is plain HTTP
	PeerTLS  *tls.Config // for peers at https addresses; nil trusts the system's authorities

	ConnectTimeout time.Duration // of one attempt to connect; 5 s
	RequestTimeout time.Duration // of one request; 35 s
	MaxTries       int           // attempts to reach the server in Open; 0 for ever
	MaxRetries     int           // of a request that only reads
	MaxBatch       int           // documents of one bulk write; 1000
	Shards         int           // q of the databases made; 0 is the server's own
	Replicas       int           // n of the databases made; 0 is the server's own

	// Logger gets what an operator should know: a server that does not answer
	// yet, a database that anybody may read. Nil drops it.
	Logger *slog.Logger
	// Registry gets the counters of requests; nil for none.
	Registry prometheus.Registerer

	// heartbeat is how often the server shows in a silent feed that it is
	// there; of tests, 0 is 10 s.
	heartbeat time.Duration
	// maxAnswer is how many bytes of documents are read at once; of tests, 0 is 32 MB.
	maxAnswer int
}

// DB is one ledger in a CouchDB server.
type DB struct {
	opts    Options
	url     string
	client  *kivik.Client
	http    *chttp.Client
	log     *slog.Logger
	metrics *metrics
	server  server
	peers   atomic.Bool               // tables are copied from others, as far as was asked
	watched map[statedb.Peer]*watched // TendPeers' own

	closed context.Context // done when Close was called
	close  context.CancelFunc

	mu       sync.Mutex
	catalogs map[string]catalog // by table
	revs     revisions
}

var (
	_ statedb.DB         = (*DB)(nil)
	_ statedb.Replicator = (*DB)(nil)
)

// server is what the server said of itself when Open reached it.
type server struct {
	version      string
	maxDocument  atomic.Int64
	maxPurge     atomic.Int64 // documents of one _purge
	maxPurgeRevs atomic.Int64 // revisions of all of them
	// substitute is set for what speaks CouchDB's protocol and is not CouchDB.
	// It may lack bookmarks, purging and _security.
	substitute bool
}

// Defaults of Options.
const (
	defaultHost           = "localhost"
	defaultPort           = 5984
	defaultConnectTimeout = 5 * time.Second
	defaultRequestTimeout = 35 * time.Second
	defaultMaxBatch       = 1000
	defaultHeartbeat      = 10 * time.Second
	defaultMaxAnswer      = 32 << 20
	// writers: CouchDB writes a database's batches one after the other, and a
	// large batch costs much less than two of half its size.
	writers = 1
	// idleConnections is how many connections are kept for the next requests.
	idleConnections = 32
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
	if o.Host == "" {
		o.Host = defaultHost
	}
	if o.Port == 0 {
		o.Port = defaultPort
	}
	if o.maxAnswer == 0 {
		o.maxAnswer = defaultMaxAnswer
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = defaultMaxBatch
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// validName is what CouchDB takes as the name of a database.
var validName = regexp.MustCompile(`^[a-z][a-z0-9_$()+-]*$`)

// CheckName says whether CouchDB takes a ledger's name.
func CheckName(name string) error {
	// CouchDB's limit is 238 bytes, of which the table's name takes some.
	const longest = 200
	if !validName.MatchString(name) || len(name) > longest {
		return fmt.Errorf("%q is no name for a CouchDB database: it begins with a lower-case letter and goes on with lower-case letters, digits and _$()+-, %d characters at most", name, longest)
	}
	return nil
}

// Open reaches the server, tries again with doubling delay while it does not
// answer, and makes sure that it is one that can be used and that the user has
// the rights it takes. The ledger's databases need not exist yet.
//
// Errors wrap statedb.ErrUnavailable when the server does not answer and
// statedb.ErrDenied when it does not let the user in.
func Open(ctx context.Context, opts Options) (*DB, error) {
	opts.setDefaults()
	if err := CheckName(opts.Name); err != nil {
		return nil, err
	}
	address := url.URL{Scheme: "http", Host: net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port))}
	if opts.TLS != nil {
		address.Scheme = "https"
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: opts.ConnectTimeout}).DialContext,
		TLSClientConfig:     opts.TLS,
		TLSHandshakeTimeout: opts.ConnectTimeout,
		MaxIdleConnsPerHost: idleConnections,
		IdleConnTimeout:     time.Minute,
	}
	db := &DB{opts: opts, url: address.String(), log: opts.Logger, catalogs: map[string]catalog{}}
	db.metrics = newMetrics(opts.Registry)
	db.closed, db.close = context.WithCancel(context.Background())

	// Compressing requests costs more than it saves but on the slowest of
	// networks: a core makes about 20 MB/s of it.
	options := []kivik.Option{couchdb.OptionNoRequestCompression()}
	if opts.Login != "" {
		options = append(options, couchdb.BasicAuth(opts.Login, opts.Password))
	}
	var err error
	counted := countingTransport{transport, db.metrics}
	db.client, err = kivik.New("couch", db.url, append(options, couchdb.OptionHTTPClient(&http.Client{Transport: counted}))...)
	if err != nil {
		return nil, fmt.Errorf("couchdb: %w", err)
	}
	all := allOptions(options)
	db.http, err = chttp.New(&http.Client{Transport: counted}, db.url, all)
	if err != nil {
		return nil, fmt.Errorf("couchdb: %w", err)
	}
	if err := db.connect(ctx); err != nil {
		transport.CloseIdleConnections()
		return nil, err
	}
	return db, nil
}

type allOptions []kivik.Option

func (o allOptions) Apply(target any) {
	for _, option := range o {
		option.Apply(target)
	}
}

// connect waits for the server.
func (db *DB) connect(ctx context.Context) error {
	server := statedb.Server{Product: "CouchDB", Address: db.url, MaxTries: db.opts.MaxTries, Log: db.log}
	return server.Reach(ctx, db.greet)
}

// Close releases the connection. Open feeds end with ErrClosed.
func (db *DB) Close() error {
	db.close()
	db.client.Close()
	db.http.CloseIdleConnections()
	return nil
}

// Limits tells what the server can hold.
func (db *DB) Limits() statedb.Limits {
	return statedb.Limits{MaxDocumentBytes: int(db.server.maxDocument.Load()), MaxBatch: db.opts.MaxBatch, Writers: writers}
}

// database is the name of a table's database; ErrNoDatabase for no table's.
func (db *DB) database(table string) (string, error) {
	if db.closed.Err() != nil {
		return "", statedb.ErrClosed
	}
	for _, t := range statedb.Tables {
		if t == table {
			return db.opts.Name + "_" + table, nil
		}
	}
	return "", fmt.Errorf("%w: there is no table %q", statedb.ErrNoDatabase, table)
}
