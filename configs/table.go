package configs

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// Defaults.
const (
	// DefaultBackend needs nothing but this program.
	DefaultBackend = Embedded
	// DefaultHost is the database's machine.
	DefaultHost = "localhost"
	// DefaultCouchDBPort is CouchDB's HTTP port.
	DefaultCouchDBPort = 5984
	// DefaultMongoDBPort is mongod's port.
	DefaultMongoDBPort = 27017
	// DefaultRethinkDBPort is RethinkDB's client driver port.
	DefaultRethinkDBPort = 28015
	// DefaultName is the database's name.
	DefaultName = "bigchain"
	// DefaultReplicaSet is the MongoDB replica set's name.
	DefaultReplicaSet = "bigchain-rs"
	// DefaultConnectionTimeout is of one attempt to connect.
	DefaultConnectionTimeout = 5000 * time.Millisecond
	// DefaultMaxTries is attempts to connect at start.
	DefaultMaxTries = 3
	// DefaultCouchDBMaxTries is higher, since the delay between them doubles.
	DefaultCouchDBMaxTries = 10
	// DefaultMaxRetries is of one request to CouchDB.
	DefaultMaxRetries = 3
	// DefaultRequestTimeout is of one request to the database.
	DefaultRequestTimeout = 35 * time.Second
	// DefaultInternalQueryLimit is rows asked of the database at a time.
	DefaultInternalQueryLimit = 1000
	// DefaultTotalQueryLimit is rows that one request may return.
	DefaultTotalQueryLimit = 10000
	// DefaultMaxBatchUpdateSize is documents of one bulk write.
	DefaultMaxBatchUpdateSize = 1000
	// DefaultBind serves this machine only.
	DefaultBind = "localhost:9984"
	// DefaultHeaderTimeout is of a request's header.
	DefaultHeaderTimeout = 10 * time.Second
	// DefaultReadTimeout is of a whole request.
	DefaultReadTimeout = 30 * time.Second
	// DefaultWriteTimeout is of one write.
	DefaultWriteTimeout = 30 * time.Second
	// DefaultIdleTimeout is between two requests of a connection.
	DefaultIdleTimeout = 2 * time.Minute
	// DefaultBodyBytes leaves the largest transaction room for white space and
	// escapes that its canonical form does not have.
	DefaultBodyBytes = 2 * ledger.MaxTransactionBytes
	// DefaultHeaderBytes is of a request's header.
	DefaultHeaderBytes = 32 << 10
	// DefaultBacklogReassignDelay is how long a transaction waits for its assignee.
	DefaultBacklogReassignDelay = 120 * time.Second
	// DefaultConsensusPlugin names the documents' rules, as package consensus does.
	DefaultConsensusPlugin = "majority"
	// DefaultLevel is that of every log.
	DefaultLevel = "info"
	// DefaultDatefmt is the strftime form of %(asctime)s.
	DefaultDatefmt = "%Y-%m-%d %H:%M:%S"
	// DefaultFmt is the form of a log line.
	DefaultFmt = "[%(asctime)s] [%(levelname)s] (%(name)s) %(message)s (%(processName)-10s - pid: %(process)d)"

	// dataSuffix and stateSuffix follow the config file's whole name, so that
	// two config files in one folder never share their data.
	dataSuffix  = "-data"
	stateSuffix = "-state"
)

// setting is one row of the table.
type setting struct {
	path     string // such as database.host
	doc      string // one sentence, with the unit
	fallback string // the default in words, where it is not one value
	prompt   string // what configure asks; "" when it does not
	backends []string
	secret   bool // never shown, and never taken from the environment into a file
	unquoted bool // errors do not show the value: they name the part that is wrong
	located  bool // the default depends on where the config file is

	set       func(*Settings, canonical.Value, origin) error
	value     func(*Settings) canonical.Value // null when not set
	byDefault func(*Settings)
	mask      func(*Settings) // only a secret's
}

// env is the setting's name in the environment.
func (s *setting) env() string { return EnvName(s.path) }

// EnvName is the name in the environment of a setting's path.
func EnvName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// of reports whether the setting means something to the backend.
func (s *setting) of(backend string) bool {
	return s.backends == nil || slices.Contains(s.backends, backend)
}

// row makes a setting from the field it fills, how it is written and its default.
func row[T any](path string, k kind[T], field func(*Settings) *T, byDefault func(*Settings) T, doc string, more ...func(*setting)) *setting {
	s := &setting{path: path, doc: doc}
	s.set = func(all *Settings, v canonical.Value, from origin) error {
		value, err := k.parse(v, from)
		if err != nil {
			return err
		}
		*field(all) = value
		return nil
	}
	s.value = func(all *Settings) canonical.Value { return k.print(*field(all)) }
	s.byDefault = func(all *Settings) { *field(all) = byDefault(all) }
	for _, change := range more {
		change(s)
	}
	return s
}

// secret is a row that is not set by default and never shown.
func secret(path string, k kind[Secret], field func(*Settings) *Secret, doc string, more ...func(*setting)) *setting {
	s := row(path, k, field, always(Secret("")), doc, more...)
	s.secret = true
	s.mask = func(all *Settings) { *field(all) = Secret(field(all).String()) }
	return s
}

// always is a default that depends on nothing.
func always[T any](value T) func(*Settings) T { return func(*Settings) T { return value } }

// asked is a setting that configure asks for.
func asked(question string) func(*setting)   { return func(s *setting) { s.prompt = question } }
func only(backends ...string) func(*setting) { return func(s *setting) { s.backends = backends } }
func unquoted(s *setting)                    { s.unquoted = true }
func otherwise(words string) func(*setting)  { return func(s *setting) { s.fallback = words } }
func besideFile(suffix string) func(*setting) {
	return func(s *setting) {
		s.located = true
		s.fallback = "beside the config file: its name and " + suffix
	}
}

// table lists every setting, in the order of the sample; defaults are filled in
// this order too, so that database.backend stands before what depends on it.
var table = []*setting{
	row("keypair.public", publicKeyKind, func(s *Settings) *string { return &s.KeyPair.Public }, always(""),
		"The node's public key, base58: how others know this node.", otherwise("none; `configure` makes a pair")),
	secret("keypair.private", secretKind, func(s *Settings) *Secret { return &s.KeyPair.Private },
		"The node's private key, base58: keep it to yourself.", otherwise("none; `configure` makes a pair")),
	row("keyring", keyringKind, func(s *Settings) *[]string { return &s.Keyring }, always([]string(nil)),
		"Public keys of the federation's other nodes, base58.", unquoted),

	row("server.bind", bindKind, func(s *Settings) *string { return &s.Server.Bind }, always(DefaultBind),
		"Address of the HTTP API and of the WebSocket streams, host:port; 0.0.0.0:9984 takes requests from everywhere.", asked("API Server bind?")),
	row("server.loglevel", levelKind, func(s *Settings) *string { return &s.Server.LogLevel }, always(DefaultLevel),
		"Lowest level of the HTTP server's own log lines."),
	row("server.workers", optionalKind(maxWorkers), func(s *Settings) *int { return &s.Server.Workers }, always(0),
		"With server.threads set too, their product is the most requests served at a time.", otherwise("no limit")),
	row("server.threads", optionalKind(maxWorkers), func(s *Settings) *int { return &s.Server.Threads }, always(0),
		"See server.workers.", otherwise("no limit")),
	row("server.trust_forwarded", boolKind, func(s *Settings) *bool { return &s.Server.TrustForwarded }, always(false),
		"Whether X-Forwarded-* headers are believed; only behind a proxy that sets them itself."),
	row("server.tls.certfile", pathKind, func(s *Settings) *string { return &s.Server.TLS.CertFile }, always(""),
		"PEM file of the server's certificate, and of those between it and the authority; with it the API is served over TLS only."),
	row("server.tls.keyfile", pathKind, func(s *Settings) *string { return &s.Server.TLS.KeyFile }, always(""),
		"PEM file of that certificate's private key; none when the certificate's file holds it, too."),
	secret("server.tls.keyfile_passphrase", secretTextKind, func(s *Settings) *Secret { return &s.Server.TLS.KeyFilePassphrase },
		"What that private key is encrypted with; better in the environment than in a file."),
	row("server.limits.header_timeout", durationKind, func(s *Settings) *time.Duration { return &s.Server.Limits.HeaderTimeout },
		always(DefaultHeaderTimeout), "How long a request's header may take to arrive, with its unit."),
	row("server.limits.read_timeout", durationKind, func(s *Settings) *time.Duration { return &s.Server.Limits.ReadTimeout },
		always(DefaultReadTimeout), "How long a whole request may take to arrive."),
	row("server.limits.write_timeout", durationKind, func(s *Settings) *time.Duration { return &s.Server.Limits.WriteTimeout },
		always(DefaultWriteTimeout), "How long a client may leave one part of an answer or of a stream unread."),
	row("server.limits.idle_timeout", durationKind, func(s *Settings) *time.Duration { return &s.Server.Limits.IdleTimeout },
		always(DefaultIdleTimeout), "How long a connection is kept for the next request."),
	row("server.limits.body_bytes", numberKind(1024, maxNumber), func(s *Settings) *int { return &s.Server.Limits.BodyBytes },
		always(DefaultBodyBytes), "Longest body of a request, in bytes."),
	row("server.limits.header_bytes", numberKind(4096, maxHeaderBytes), func(s *Settings) *int { return &s.Server.Limits.HeaderBytes },
		always(DefaultHeaderBytes), "Longest header of a request, in bytes, about."),
	row("server.limits.connections", optionalKind(maxNumber), func(s *Settings) *int { return &s.Server.Limits.Connections }, always(0),
		"Connections open at once; beyond it those give way that keep the node waiting for longest.",
		otherwise("10,000, or fewer when the process may open fewer files")),
	row("server.limits.connections_per_client", optionalKind(maxNumber), func(s *Settings) *int { return &s.Server.Limits.ConnectionsPerClient }, always(0),
		"The same for one client address, an IPv6 /64 being one; not with server.trust_forwarded.", otherwise("no limit")),
	row("server.limits.requests_per_second", optionalKind(maxRate), func(s *Settings) *int { return &s.Server.Limits.RequestsPerSecond }, always(0),
		"Requests per second of one client address in the long run; more are answered with 429.", otherwise("no limit")),
	row("server.limits.burst", optionalKind(maxRate), func(s *Settings) *int { return &s.Server.Limits.Burst }, always(0),
		"Requests that a client address may make at once before that counts.", otherwise("twice server.limits.requests_per_second")),
	row("server.limits.backlog", optionalKind(maxNumber), func(s *Settings) *int { return &s.Server.Limits.Backlog }, always(0),
		"Undecided transactions beyond which posts are answered with 503.", otherwise("as many as fit into 48 MB")),
	row("server.cors.origins", originsKind, func(s *Settings) *[]string { return &s.Server.CORSOrigins }, always([]string(nil)),
		"Web pages that may use the API and the streams from a browser, as https://app.example, or * for all; in the environment separated by commas."),
	row("server.tokens", tokensKind, func(s *Settings) *[]Token { return &s.Server.Tokens }, always([]Token(nil)),
		"Who may use the API, as `bigchaindb token NAME` prints it: {\"name\", \"hash\", \"may\": [\"post\", \"query\"]}; in the environment name=post+query=hash, separated by colons. None: everybody.", unquoted),
	row("server.anonymous", rightsKind, func(s *Settings) *[]string { return &s.Server.Anonymous }, always([]string(nil)),
		"What may be done without a token where server.tokens has any: post, query."),

	row("database.backend", oneOf(Backends), func(s *Settings) *string { return &s.Database.Backend }, always(DefaultBackend),
		"Where the ledger is kept: embedded, couchdb, mongodb or rethinkdb."),
	row("database.path", pathKind, func(s *Settings) *string { return &s.Database.Path },
		func(s *Settings) string { return beside(s.File, dataSuffix) },
		"Folder of the embedded database.", only(Embedded), asked("Database path?"), besideFile(dataSuffix)),
	row("database.host", hostKind, func(s *Settings) *string { return &s.Database.Host }, always(DefaultHost),
		"The database's host name or IP address.", servers, asked("Database host?")),
	row("database.port", optionalKind(65535), func(s *Settings) *int { return &s.Database.Port }, defaultPort,
		"The database's port.", servers, asked("Database port?"), otherwise("5984 for couchdb, 27017 for mongodb, 28015 for rethinkdb")),
	row("database.name", nameKind, func(s *Settings) *string { return &s.Database.Name }, always(DefaultName),
		"The ledger's name in the database.", asked("Database name?")),
	row("database.replicaset", textKind, func(s *Settings) *string { return &s.Database.ReplicaSet }, always(DefaultReplicaSet),
		"The MongoDB replica set's name.", only(MongoDB), asked("Database replicaset?")),
	row("database.ssl", boolKind, func(s *Settings) *bool { return &s.Database.SSL }, always(false),
		"Whether the database is reached over TLS.", servers, asked("Database over TLS?")),
	row("database.login", textKind, func(s *Settings) *string { return &s.Database.Login }, always(""),
		"The user's name in the database.", servers, asked("Database login?")),
	secret("database.password", secretTextKind, func(s *Settings) *Secret { return &s.Database.Password },
		"The user's password in the database; better in the environment than in a file.", servers, asked("Database password?")),
	row("database.ca_cert", pathKind, func(s *Settings) *string { return &s.Database.CACert }, always(""),
		"PEM file of the authorities that sign the certificates of the database and of peers.", servers),
	row("database.certfile", pathKind, func(s *Settings) *string { return &s.Database.CertFile }, always(""),
		"PEM file of the node's own certificate for the database.", servers),
	row("database.keyfile", pathKind, func(s *Settings) *string { return &s.Database.KeyFile }, always(""),
		"PEM file of that certificate's private key; none when the certificate's file holds it, too.", servers),
	secret("database.keyfile_passphrase", secretTextKind, func(s *Settings) *Secret { return &s.Database.KeyFilePassphrase },
		"What that private key is encrypted with; better in the environment than in a file.", servers),
	row("database.crlfile", pathKind, func(s *Settings) *string { return &s.Database.CRLFile }, always(""),
		"PEM or DER file of the authority's list of revoked certificates, which must be in force; none checks nothing.", servers),
	row("database.connection_timeout", unitKind(time.Millisecond), func(s *Settings) *time.Duration { return &s.Database.ConnectionTimeout },
		always(DefaultConnectionTimeout), "How long one attempt to connect may take, in milliseconds."),
	row("database.max_tries", numberKind(0, maxNumber), func(s *Settings) *int { return &s.Database.MaxTries }, defaultMaxTries,
		"Attempts to connect at start; 0 for ever.", otherwise("10 for couchdb, else 3")),
	row("database.max_retries", numberKind(0, maxNumber), func(s *Settings) *int { return &s.Database.MaxRetries },
		always(DefaultMaxRetries), "How often a failed request is tried again.", only(CouchDB)),
	row("database.request_timeout", durationKind, func(s *Settings) *time.Duration { return &s.Database.RequestTimeout },
		always(DefaultRequestTimeout), "How long one request to the database may take, with its unit.", servers),
	row("database.internal_query_limit", numberKind(1, maxNumber), func(s *Settings) *int { return &s.Database.InternalQueryLimit },
		always(DefaultInternalQueryLimit), "Rows asked of the database at a time."),
	row("database.total_query_limit", numberKind(1, maxNumber), func(s *Settings) *int { return &s.Database.TotalQueryLimit },
		always(DefaultTotalQueryLimit), "Rows that one request may return; a bookmark goes on from there."),
	row("database.allow_scans", boolKind, func(s *Settings) *bool { return &s.Database.AllowScans }, always(true),
		"Whether a query that no index serves may read its whole table."),
	row("database.max_batch_update_size", numberKind(1, maxNumber), func(s *Settings) *int { return &s.Database.MaxBatchUpdateSize },
		always(DefaultMaxBatchUpdateSize), "Documents of one bulk write."),
	row("database.shards", optionalKind(maxNumber), func(s *Settings) *int { return &s.Database.Shards }, always(0),
		"Shards of a table when it is created, on couchdb (q) and rethinkdb.", servers, otherwise("the server's own")),
	row("database.replicas", optionalKind(maxNumber), func(s *Settings) *int { return &s.Database.Replicas }, always(0),
		"Copies of a shard when it is created, on couchdb (n) and rethinkdb.", servers, otherwise("the server's own")),

	row("state.path", pathKind, func(s *Settings) *string { return &s.State.Path },
		func(s *Settings) string { return beside(s.File, stateSuffix) },
		"Folder of the node's own state: its record of votes, and what it derived from the ledger.", besideFile(stateSuffix)),
	row("indexes.path", pathKind, func(s *Settings) *string { return &s.Indexes.Path }, always(""),
		"Folder of your own index files, <table>/<name>.json."),

	row("backlog_reassign_delay", unitKind(time.Second), func(s *Settings) *time.Duration { return &s.BacklogReassignDelay },
		always(DefaultBacklogReassignDelay), "How long a transaction waits for its node before it goes to another, in seconds.",
		asked("Stale transaction reassignment delay (in seconds)?")),
	row("consensus_plugin", textKind, func(s *Settings) *string { return &s.ConsensusPlugin }, always(DefaultConsensusPlugin),
		"How blocks are decided: by the majority of the members, or by two-thirds where some may lie. The first node writes it into the genesis block; all others must have the same."),

	row("log.file", pathKind, func(s *Settings) *string { return &s.Log.File }, always(""),
		"File to log to; at 200 MB it becomes <file>.1, and five of these are kept."),
	row("log.error_file", pathKind, func(s *Settings) *string { return &s.Log.ErrorFile }, always(""),
		"File for errors alone, rotated alike."),
	row("log.level_console", levelKind, func(s *Settings) *string { return &s.Log.LevelConsole }, always(DefaultLevel),
		"Lowest level shown on the console: critical, error, warning, info, debug or notset."),
	row("log.level_logfile", levelKind, func(s *Settings) *string { return &s.Log.LevelLogfile }, always(DefaultLevel),
		"Lowest level written to log.file."),
	row("log.datefmt_console", datefmtKind, func(s *Settings) *string { return &s.Log.DatefmtConsole }, always(DefaultDatefmt),
		"Form of %(asctime)s on the console, as strftime has it."),
	row("log.datefmt_logfile", datefmtKind, func(s *Settings) *string { return &s.Log.DatefmtLogfile }, always(DefaultDatefmt),
		"Form of %(asctime)s in the files."),
	row("log.fmt_console", fmtKind, func(s *Settings) *string { return &s.Log.FmtConsole }, always(DefaultFmt),
		"Form of a line on the console, in the attributes of Python's LogRecord."),
	row("log.fmt_logfile", fmtKind, func(s *Settings) *string { return &s.Log.FmtLogfile }, always(DefaultFmt),
		"Form of a line in the files."),
	row("log.granular_levels", levelsKind, func(s *Settings) *map[string]string { return &s.Log.GranularLevels }, always(map[string]string(nil)),
		"Levels of components, in place of the levels above: {\"chainstate\": \"debug\"}; in the environment chainstate=debug:http=error."),
}

// servers marks settings of the backends that are reached over the network.
var servers = only(CouchDB, MongoDB, RethinkDB)

// byPath finds a setting.
var byPath = func() map[string]*setting {
	index := make(map[string]*setting, len(table))
	for _, s := range table {
		index[s.path] = s
	}
	return index
}()

func defaultPort(s *Settings) int {
	switch s.Database.Backend {
	case CouchDB:
		return DefaultCouchDBPort
	case MongoDB:
		return DefaultMongoDBPort
	case RethinkDB:
		return DefaultRethinkDBPort
	}
	return 0
}

func defaultMaxTries(s *Settings) int {
	if s.Database.Backend == CouchDB {
		return DefaultCouchDBMaxTries
	}
	return DefaultMaxTries
}

// beside is the path of file with a suffix, "" when there is no file to be
// beside of.
func beside(file, suffix string) string {
	if file == "" {
		return ""
	}
	absolute, err := filepath.Abs(file)
	if err != nil { // the working directory is gone: what is opened says so
		absolute = file
	}
	return absolute + suffix
}
