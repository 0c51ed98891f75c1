package statedb

// TableLayout is how a table is spread over the database's servers.
type TableLayout struct {
	Table    string // one of Tables
	Shards   int    // parts that the table is split into by primary key, at least 1
	Replicas int    // copies of each shard, each on a server of its own, at least 1
}
