package mongodb

import (
	"context"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// server is what the server said of itself when Open reached it.
type server struct {
	version string
	set     string // the replica set's name; "" for a stand-alone server
	router  bool   // mongos, of a sharded cluster
	// substitute is set for FerretDB, whose version that is. FerretDB 1 over SQLite is
	// for trying out and for tests. It differs in this:
	//
	//   - it holds no array in an array, and no negative zero (Check says so)
	//   - it reads all of a collection for every command, some 0.1 ms a document.
	//     Where a filter is nothing but one _id SQLite does that, in some 5 µs
	//     a document, as its index of ids is of another expression than is asked
	//     for; so a few documents are read and replaced one by one
	//   - what it replaces it first reads, without a lock: revisions are compared
	//     here, one writer after the other, and two nodes that update one document
	//     at the same moment may both succeed
	//   - it has no change streams. Once a collection local.oplog.rs is there it
	//     records changes in it, but after the change and not together with it, so
	//     that a kill between loses one for ever; and each look at it reads all of
	//     it. Changes are followed by polling the collection instead
	//   - it has no partial indexes, and uses none for queries; a page is read in
	//     one command and sorted here
	substitute bool
}

// cautious reports whether the server gets commands made for FerretDB.
func (db *DB) cautious() bool { return db.server.substitute && !db.opts.likeMongoDB }

// String names the server for the log.
func (s *server) String() string {
	switch {
	case s.substitute:
		return "FerretDB " + s.version
	case s.router:
		return "MongoDB " + s.version + ", a sharded cluster"
	case s.set == "":
		return "MongoDB " + s.version + ", stand-alone"
	}
	return "MongoDB " + s.version + ", replica set " + s.set
}

// streams reports whether changes come as a change stream.
func (s *server) streams(opts Options) bool {
	return !opts.poll && !s.substitute && (s.set != "" || s.router)
}

// feed tells how changes are followed, and why.
func (s *server) feed(opts Options) string {
	if s.streams(opts) {
		return "change streams"
	}
	return "polling, as only replica sets have change streams: for trying out, not for a large ledger"
}

// greeting is the answer to isMaster, which all versions know.
type greeting struct {
	Primary     bool   `bson:"ismaster"`
	PrimaryHost string `bson:"primary"`
	SetName     string `bson:"setName"`
	Uninitiated bool   `bson:"isreplicaset"`
	Message     string `bson:"msg"`
}

// build is the answer to buildInfo.
type build struct {
	Version  string  `bson:"version"`
	Numbers  []int32 `bson:"versionArray"`
	FerretDB string  `bson:"ferretdbVersion"`
}

// oldest is the first version that is used: the oldest that MongoDB's driver
// still speaks with, and the first that changes a replica set's members safely,
// one after the other.
var oldest = [2]int32{4, 4}

// greet asks the server what it is, and initiates its replica set if that is
// still to be done. It says nothing of the user: none may be there yet.
func (db *DB) greet(ctx context.Context) error {
	client, err := mongo.Connect(db.clientOptions("", ""))
	if err != nil {
		return refuse("the settings for MongoDB do not fit: %v", err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }() // nothing is left to be done with it
	admin := client.Database("admin")
	var b build
	if err := admin.RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&b); err != nil {
		return err
	}
	db.server = server{version: b.Version, substitute: b.FerretDB != ""}
	if db.server.substitute {
		db.server.version = strings.TrimPrefix(b.FerretDB, "v")
	} else if len(b.Numbers) < 2 || b.Numbers[0] < oldest[0] || b.Numbers[0] == oldest[0] && b.Numbers[1] < oldest[1] {
		return refuse("MongoDB at %s is version %s; version %d.%d or newer is needed", db.address, b.Version, oldest[0], oldest[1])
	}
	g, err := greetingOf(ctx, admin)
	if err != nil {
		return err
	}
	if g.Uninitiated {
		if g, err = db.initiate(ctx, admin); err != nil {
			return err
		}
	}
	db.server.router = g.Message == "isdbgrid"
	db.server.set = g.SetName
	return db.checkSet()
}

func greetingOf(ctx context.Context, admin *mongo.Database) (g greeting, err error) {
	err = admin.RunCommand(ctx, bson.D{{Key: "isMaster", Value: 1}}).Decode(&g)
	return g, err
}

// checkSet compares the replica set's name with the one that is wanted. A
// server that is in none does for trying out.
func (db *DB) checkSet() error {
	want, got := db.opts.ReplicaSet, db.server.set
	switch {
	case want == "" || want == got || db.server.router:
	case got == "":
		db.log.Warn("MongoDB is not in a replica set: what it acknowledges is on one machine only, and changes are polled for", "address", db.address, "database.replicaset", want)
	default:
		return refuse("MongoDB at %s is in the replica set %q, and database.replicaset names %q", db.address, got, want)
	}
	return nil
}
