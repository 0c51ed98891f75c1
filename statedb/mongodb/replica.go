package mongodb

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/couchledger/couchledger/statedb"
)

// setPause is the time between two looks at a replica set that changes.
const setPause = 200 * time.Millisecond

// initiate makes a replica set of one member of a server that was started with
// --replSet and is in none yet, and waits until it is the primary.
func (db *DB) initiate(ctx context.Context, admin *mongo.Database) (greeting, error) {
	name := db.opts.ReplicaSet
	if name == "" {
		return greeting{}, refuse("MongoDB at %s waits for its replica set to be initiated: name the set in database.replicaset", db.address)
	}
	config := bson.D{{Key: "_id", Value: name}, {Key: "members", Value: bson.A{
		bson.D{{Key: "_id", Value: int32(0)}, {Key: "host", Value: db.address}},
	}}}
	err := admin.RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
	if code := codeOf(err); err != nil && code != codeAlreadyInitiated {
		if code != 0 && code != codeUnauthorized {
			err = refuse("MongoDB at %s cannot be made the first member of the replica set %q of database.replicaset: %v", db.address, name, err)
		}
		return greeting{}, err
	}
	db.log.Info("initiated the replica set", "name", name, "member", db.address)
	for {
		g, err := greetingOf(ctx, admin)
		if err != nil || g.Primary {
			return g, err
		}
		if err := statedb.Sleep(ctx, setPause); err != nil {
			return g, err
		}
	}
}

var _ statedb.ReplicaSet = (*DB)(nil)

// Members lists the replica set's members as host:port, in the order of its
// configuration; none when the server is in no set.
func (db *DB) Members(outer context.Context) ([]string, error) {
	if db.server.set == "" {
		return nil, nil
	}
	config, err := db.setConfig(outer)
	if err != nil {
		return nil, err
	}
	members, err := readMembers(config)
	if err != nil {
		return nil, err
	}
	hosts := make([]string, len(members))
	for i, m := range members {
		hosts[i] = m.host
	}
	return hosts, nil
}

// AddMembers adds the hosts (host:port, or a host with MongoDB's own port) that
// are no members yet to the replica set, one after the other: MongoDB changes a
// majority safely only so. Each is to run mongod with --replSet and the set's name.
func (db *DB) AddMembers(ctx context.Context, hosts []string) error {
	return db.reconfigure(ctx, hosts, addMember)
}

// RemoveMembers takes the hosts that are members out of the replica set, one
// after the other. It refuses to take the primary out.
func (db *DB) RemoveMembers(ctx context.Context, hosts []string) error {
	if db.server.set != "" {
		bounded, cancel := db.bound(ctx)
		defer cancel()
		g, err := greetingOf(bounded, db.client.Database("admin"))
		if err != nil {
			return fmt.Errorf("ask for the replica set's primary: %w", db.fault(ctx, err))
		}
		if err := sparesPrimary(g.PrimaryHost, hosts); err != nil {
			return err
		}
	}
	return db.reconfigure(ctx, hosts, removeMember)
}

// sparesPrimary refuses hosts of which one is the primary.
func sparesPrimary(primary string, hosts []string) error {
	for _, host := range hosts {
		if withPort(host) == primary {
			return refuse("%s is the replica set's primary and is not removed: have it step down first (rs.stepDown() in mongosh)", host)
		}
	}
	return nil
}

// reconfigure changes the set host by host. The server returns when a majority
// of the members has taken the new configuration over, and refuses the next one
// until what was decided before is known to the new majority; that passes.
func (db *DB) reconfigure(outer context.Context, hosts []string, change func(bson.D, string) (bson.D, bool, error)) error {
	for _, host := range hosts {
		deadline := time.Now().Add(db.opts.RequestTimeout)
		for {
			config, err := db.setConfig(outer)
			if err != nil {
				return err
			}
			changed, needed, err := change(config, withPort(host))
			if err != nil || !needed {
				if err != nil {
					return err
				}
				break
			}
			ctx, cancel := db.bound(outer)
			err = db.client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetReconfig", Value: changed}}).Err()
			cancel()
			if err == nil {
				break
			}
			// Another one may have changed it meanwhile, or the last change is
			// not with a majority yet.
			if code := codeOf(err); code != codeConfigInProgress && code != codeConfigNotCommitted && code != codeConfigIncompatible || time.Now().After(deadline) {
				return fmt.Errorf("change the replica set for %s: %w", host, db.fault(outer, err))
			}
			if err := statedb.Sleep(outer, setPause); err != nil {
				return err
			}
		}
	}
	return nil
}

// Codes of a replSetReconfig that may be tried again.
const (
	codeConfigIncompatible = 103 // the version is not newer than that of another's change
	codeConfigInProgress   = 109
	codeConfigNotCommitted = 308
)

// setConfig asks for the replica set's configuration.
func (db *DB) setConfig(outer context.Context) (bson.D, error) {
	if db.server.set == "" {
		return nil, refuse("%s at %s is not in a replica set, so it has no members to add or remove", db.server.String(), db.address)
	}
	ctx, cancel := db.bound(outer)
	defer cancel()
	var answer struct {
		Config bson.D `bson:"config"`
	}
	if err := db.client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Decode(&answer); err != nil {
		return nil, fmt.Errorf("ask for the replica set's configuration: %w", db.fault(outer, err))
	}
	return answer.Config, nil
}

// withPort adds MongoDB's own port to a host without one.
func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(host, fmt.Sprint(defaultPort))
}

// member is one of a configuration.
type member struct {
	id   int64
	host string
}

func readMembers(config bson.D) ([]member, error) {
	list, ok := fieldOf(config, "members").(bson.A)
	if !ok {
		return nil, malformed("the replica set's configuration has no members")
	}
	members := make([]member, len(list))
	for i, element := range list {
		d, ok := element.(bson.D)
		if !ok {
			return nil, malformed("a member of the replica set is no document")
		}
		id, isNumber := integer(fieldOf(d, fieldID))
		host, isText := fieldOf(d, "host").(string)
		if !isNumber || !isText {
			return nil, malformed("a member of the replica set has no _id or host")
		}
		members[i] = member{id, host}
	}
	return members, nil
}

func fieldOf(d bson.D, key string) any {
	for _, e := range d {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int32:
		return int64(n), true
	case int64:
		return n, true
	case float64:
		return int64(n), true
	}
	return 0, false
}

// addMember gives the configuration with one more member, and whether that is
// needed. Everything else in it stays as it is.
func addMember(config bson.D, host string) (bson.D, bool, error) {
	members, err := readMembers(config)
	if err != nil {
		return nil, false, err
	}
	id := int64(-1)
	for _, m := range members {
		if m.host == host {
			return config, false, nil
		}
		id = max(id, m.id)
	}
	// An id is never used again while the set knows it.
	added := bson.D{{Key: fieldID, Value: int32(id + 1)}, {Key: "host", Value: host}}
	list := append(slices.Clone(fieldOf(config, "members").(bson.A)), added)
	changed, err := nextConfig(config, list)
	return changed, true, err
}

// removeMember gives the configuration without a member, and whether it is one.
func removeMember(config bson.D, host string) (bson.D, bool, error) {
	members, err := readMembers(config)
	if err != nil {
		return nil, false, err
	}
	at := slices.IndexFunc(members, func(m member) bool { return m.host == host })
	if at < 0 {
		return config, false, nil
	}
	if len(members) == 1 {
		return nil, false, refuse("%s is the replica set's only member and cannot be removed", host)
	}
	list := slices.Delete(slices.Clone(fieldOf(config, "members").(bson.A)), at, at+1)
	changed, err := nextConfig(config, list)
	return changed, true, err
}

// nextConfig gives the configuration with other members and the next version.
func nextConfig(config bson.D, members bson.A) (bson.D, error) {
	version, ok := integer(fieldOf(config, "version"))
	if !ok {
		return nil, malformed("the replica set's configuration has no version")
	}
	next := slices.Clone(config)
	for i := range next {
		switch next[i].Key {
		case "version":
			next[i].Value = version + 1
		case "members":
			next[i].Value = members
		}
	}
	return next, nil
}
