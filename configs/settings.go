// Package configs holds the node's settings: their defaults, the config file
// and the environment they come from, and what is wrong with them.
//
// A setting's value is the environment's, else the config file's, else the
// default. All settings stand in one table (table.go), from which environment
// names, defaults, the file that configure writes, the sample and show-config
// are made: a new setting is a field of Settings and a row of that table.
//
// Viper is not used: it lower-cases keys (the names under
// log.granular_levels are case-sensitive), silently takes the last of
// duplicate keys, turns integers into float64 and cannot tell a key that
// nobody documented. The decoders beneath it are used directly.
package configs

import (
	"log/slog"
	"time"
)

// Settings are all settings of a node. Paths are absolute, with ~ and relative
// paths resolved: from a file they are relative to its folder, from elsewhere
// to the working directory.
type Settings struct {
	KeyPair              KeyPair
	Keyring              []string // base58 public keys of the other nodes: no repeats, not one's own
	Database             Database
	State                State
	Indexes              Indexes
	Server               Server
	BacklogReassignDelay time.Duration // at least a second
	ConsensusPlugin      string        // a registered name
	Log                  Log

	// File is where the settings were looked for, "" when there is no place
	// to look (no -c, no BIGCHAINDB_CONFIG_PATH, no HOME).
	File string
	// FileExists tells that File was there and was read.
	FileExists bool
}

// KeyPair is the node's identity in base58. Public alone, or neither, may be
// set; where Private is set Public is its public key.
type KeyPair struct {
	Public  string
	Private Secret
}

// Database tells which database holds the ledger and how to reach it.
type Database struct {
	Backend string // one of Backends
	Host    string // a name or an IP address
	Port    int    // 0 with the embedded backend
	Name    string
	Path    string // folder of the embedded database

	ReplicaSet        string // MongoDB's
	SSL               bool
	Login             string // "" for none
	Password          Secret // "" for none
	CACert            string // path of a PEM file, "" for none, as the three below
	CertFile          string
	KeyFile           string
	KeyFilePassphrase Secret
	CRLFile           string

	ConnectionTimeout  time.Duration // of one attempt to connect
	MaxTries           int           // attempts to connect at start, 0 for ever
	MaxRetries         int           // of one request
	RequestTimeout     time.Duration // of one request
	InternalQueryLimit int           // rows asked of the database at a time
	TotalQueryLimit    int           // rows that one request may return
	AllowScans         bool          // whether a query may read a whole table
	MaxBatchUpdateSize int           // documents of one bulk write
	Shards             int           // at creation, 0 for the server's own default
	Replicas           int           // at creation, 0 for the server's own default
}

// State tells where the node's own derived state is.
type State struct{ Path string }

// Indexes tells where the operator's own index files are; "" for none.
type Indexes struct{ Path string }

// Server tells how the HTTP and WebSocket server listens.
type Server struct {
	Bind           string // host:port
	LogLevel       string // one of Levels
	Workers        int    // 0 when not set
	Threads        int    // 0 when not set
	TrustForwarded bool   // whether X-Forwarded-* headers are believed
	TLS            ServerTLS
	Limits         Limits
	CORSOrigins    []string // scheme://host[:port] in lower case, or "*" alone
	Tokens         []Token
	Anonymous      []string // of Rights: what may be done without a token where Tokens are set
}

// URL is the address that the server listens on, as a client on this machine
// writes it.
func (s Server) URL() string {
	if s.TLS.CertFile != "" {
		return "https://" + s.Bind
	}
	return "http://" + s.Bind
}

// ServerTLS names the server's certificate and its key; without a certificate
// the server speaks plain HTTP.
type ServerTLS struct {
	CertFile          string // path of a PEM file, "" for none
	KeyFile           string // path of a PEM file, "" when CertFile holds the key
	KeyFilePassphrase Secret
}

// Limits are what the server bears of its clients. They decide only what this
// node's API accepts, never what is valid. 0 is no limit, or what the server
// works out itself, where the field says so.
type Limits struct {
	HeaderTimeout        time.Duration // a request's header
	ReadTimeout          time.Duration // a whole request
	WriteTimeout         time.Duration // one write to a client that does not read
	IdleTimeout          time.Duration // between two requests of a connection
	BodyBytes            int           // a request's body
	HeaderBytes          int           // a request's header
	Connections          int           // open at once; 0 goes by the files that the process may open
	ConnectionsPerClient int           // open at once from one address; 0 is no limit
	RequestsPerSecond    int           // of one address in the long run; 0 is no limit
	Burst                int           // of one address at once; 0 is twice RequestsPerSecond
	Backlog              int           // undecided transactions; 0 is as many as memory allows
}

// Token is who may use the API. The token itself is not kept.
type Token struct {
	Name string   // for the log
	Hash string   // SHA-256 of the token, 64 hexadecimal digits in lower case
	May  []string // of Rights, in their order
}

// Rights is what a token may be for: posting transactions, and reading.
var Rights = []string{"post", "query"}

// MaxConcurrent is the most requests served at a time, 0 for no limit: workers
// times threads when both are set.
func (s Server) MaxConcurrent() int { return s.Workers * s.Threads }

// Log tells what is logged, where and in what form. Levels are of Levels,
// forms are Python's: strftime for dates, %(name)s for lines.
type Log struct {
	File           string // path, "" for none
	ErrorFile      string // path, "" for none
	LevelConsole   string
	LevelLogfile   string
	DatefmtConsole string
	DatefmtLogfile string
	FmtConsole     string
	FmtLogfile     string
	GranularLevels map[string]string // level by component; nil when none is given
}

// The backends.
const (
	Embedded  = "embedded"
	CouchDB   = "couchdb"
	MongoDB   = "mongodb"
	RethinkDB = "rethinkdb"
)

// Backends lists the values of database.backend.
var Backends = []string{Embedded, CouchDB, MongoDB, RethinkDB}

// Levels lists the log levels, the highest first.
var Levels = []string{"critical", "error", "warning", "info", "debug", "notset"}

// Secret is a text that is not to be seen: printing and logging it give Mask.
type Secret string

// Mask stands for a secret that is set.
const Mask = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

// String gives the mask, or "" when the secret is not set.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return Mask
}

// GoString keeps %#v from showing the secret.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps the log from showing the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
