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
