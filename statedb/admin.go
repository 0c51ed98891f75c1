package statedb

import "context"

// What some databases let an operator change about where documents are kept.
// An adapter has these methods or has not; callers ask by type assertion.

// TableLayout is how a table is spread over the database's servers.
type TableLayout struct {
	Table    string // one of Tables
	Shards   int    // parts that the table is split into by primary key, at least 1
	Replicas int    // copies of each shard, each on a server of its own, at least 1
}

// Sharder is an adapter whose tables can be spread anew while they are in use:
// RethinkDB's. Its methods return ErrNoDatabase when the ledger is not there.
type Sharder interface {
	// Layout tells of every table, in the order of Tables.
	Layout(ctx context.Context) ([]TableLayout, error)

	// SetShards splits every table into n shards, 1 to 64, and leaves their
	// replicas as they are. It returns when all tables can be used again. The
	// error of one table names it; those before it are changed then.
	SetShards(ctx context.Context, n int) error

	// SetReplicas keeps n copies of each shard of every table, and leaves the
	// shards as they are; else it is like SetShards. An n above the number of
	// servers is an error that names both numbers, and nothing is changed.
	SetReplicas(ctx context.Context, n int) error
}

// IndexMender is an adapter that keeps the rows of its indexes itself: the
// embedded one.
type IndexMender interface {
	// MendIndexes compares the rows of a table's indexes with its documents,
	// while both are in use, and returns how many were missing and are there
	// now, and how many were of nothing and are gone. progress is told now and
	// then how many were looked at.
	MendIndexes(ctx context.Context, table string, progress func(done int)) (added, removed int, err error)
}

// ReplicaSet is an adapter whose database copies itself whole to the members of
// a set: MongoDB's. Hosts are host:port, IPv6 addresses in brackets, spelled as
// the members are to reach one another. With a server that is in no set all
// methods return an error that says so.
type ReplicaSet interface {
	// Members lists the set's members in the order of its configuration.
	Members(ctx context.Context) ([]string, error)

	// AddMembers makes hosts members, one after the other. Hosts that are
	// members are left. The error of one host names it; those before it are
	// members then.
	AddMembers(ctx context.Context, hosts []string) error

	// RemoveMembers takes hosts out of the set, one after the other; hosts that
	// are no members are left. The primary stays, and so does the last member.
	RemoveMembers(ctx context.Context, hosts []string) error
}

// Peer is another operator's database of the same ledger, of which this one's
// tables are copies.
type Peer struct {
	URL      string // http://host:port or https://host:port, no more
	Name     string // the ledger's name there
	User     string // who may read there
	Password string
}

// CopiedTable is a table that peers copy from each other.
type CopiedTable struct {
	Table string
	IDs   string // a regular expression, in what JavaScript and PCRE share: which documents
	// Guarded has the database itself refuse what a peer's server may send besides
	// new documents: edits and deletions. It costs something with every write.
	Guarded bool
	// MaxBytes is how large a document may be that the guard lets in; 0 for any size.
	MaxBytes int
}

// Copy is one table that is copied from a peer, as it stands.
type Copy struct {
	Table   string
	State   string // CouchDB's word: running, pending, crashing, failed, …
	Lag     int    // changes there that have not been looked at here; -1 where the peer does not tell
	Copied  int    // documents since the copying last began
	Refused int    // documents that this side's guard did not take, in the same time
	Error   string // the last one; "" for none
}

// Copies is what is copied from one peer.
type Copies struct {
	Peer   Peer // without the password
	Tables []Copy
}

// Replicated is an adapter whose documents may also come from other operators'
// databases: CouchDB's.
type Replicated interface {
	// HasPeers reports whether tables are copied from anywhere.
	HasPeers(ctx context.Context) (bool, error)

	// TendPeers does so as well, and has copying that broke off go on where the
	// peer answers again. The database would do so by itself, after minutes. It is
	// called every few seconds, by one caller at a time.
	TendPeers(ctx context.Context) (bool, error)

	// ReadRevisions reads revisions of one document, in order, with a nil Body
	// where somebody has removed one. It may end early, as Get may.
	ReadRevisions(ctx context.Context, table, id string, revs []string) ([]Revision, error)
}

// Replicator is an adapter that has its tables copied from other operators'
// databases: CouchDB's.
type Replicator interface {
	Replicated

	// ReadPeer reads a document of a peer's, to see whether it can be read: nil
	// where the peer does not have it, ErrDenied, ErrNoDatabase, ErrUnavailable.
	ReadPeer(ctx context.Context, p Peer, table, id string) (body []byte, err error)

	// AddPeer copies tables from a peer from now on, for ever, as a user that may
	// add documents and do nothing else. A peer that is there is copied from its
	// beginning again.
	AddPeer(ctx context.Context, p Peer, tables []CopiedTable) error

	// RemovePeer ends that; false when there is no such peer. What was copied stays.
	RemovePeer(ctx context.Context, p Peer) (there bool, err error)

	// Peers tells of all peers, by address.
	Peers(ctx context.Context) ([]Copies, error)

	// AllowReader makes a user that may read the tables and write none that is
	// guarded, and returns the password. It makes a new password for one that is
	// there; a user of the name that others made is an error.
	AllowReader(ctx context.Context, name string, tables []CopiedTable) (password string, err error)

	// ForbidReader deletes such a user; false when there is none.
	ForbidReader(ctx context.Context, name string) (there bool, err error)
}
