package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/statedb"
)

// Whoever has another backend is told which one has the command, and nothing is
// connected: there is no server.
func TestClusterCommandsOfOtherBackends(t *testing.T) {
	for _, backend := range []string{"embedded", "couchdb", "mongodb", "rethinkdb"} {
		u := newUser(t, "BIGCHAINDB_DATABASE_BACKEND="+backend, "BIGCHAINDB_DATABASE_HOST=nowhere.invalid")
		for line, has := range map[string]string{
			"set-shards 4": "rethinkdb", "set-replicas 64": "rethinkdb", "set-shards --dry-run 1": "rethinkdb",
			"add-replicas a.com:27017": "couchdb and mongodb", "remove-replicas a.com:27017 b.com:1 --dry-run": "couchdb and mongodb",
			"replicas": "couchdb", "allow-peer bob": "couchdb", "forbid-peer bob": "couchdb",
		} {
			if strings.Contains(has, backend) {
				continue
			}
			command, _, _ := strings.Cut(line, " ")
			want := "bigchaindb: " + command + " is for the backend " + has + " alone, and database.backend is " + backend + "\n"
			if strings.Contains(has, " and ") {
				want = "bigchaindb: " + command + " is for the backends " + has + ", and database.backend is " + backend + "\n"
			}
			code, stdout, stderr := u.run(line, "")
			if code != 1 || stdout != "" || stderr != want {
				t.Errorf("%s with %s: got %d, %q, %q, want %q", line, backend, code, stdout, stderr, want)
			}
		}
		if exists(u.file(".bigchaindb-data")) {
			t.Error("a database was made")
		}
	}
}

func TestClusterUsage(t *testing.T) {
	// The arguments are judged first, and no server is asked.
	u := newUser(t, "BIGCHAINDB_DATABASE_BACKEND=mongodb", "BIGCHAINDB_DATABASE_HOST=nowhere.invalid")
	for _, command := range []string{"set-shards", "set-replicas"} {
		for _, n := range []string{"", "0", "65", "x", "1.5", "4 4", "99999999999999999999", "-- -1"} {
			u.must(2, command+" "+n, "", "from 1 to 64", "Usage: bigchaindb "+command+" N")
		}
		u.must(2, command+" -1", "", "Usage: bigchaindb "+command+" N")
	}
	for _, command := range []string{"add-replicas", "remove-replicas"} {
		u.must(2, command, "", "at least one address", "Usage: bigchaindb "+command+" ADDRESS...")
		for args, part := range map[string]string{
			"a.com":                             "missing port",
			"a.com:1 b.com":                     "missing port",
			"a.com:0":                           "from 1 to 65535",
			"a.com:65536":                       "from 1 to 65535",
			"a.com:":                            "from 1 to 65535",
			"a.com:+1":                          "from 1 to 65535",
			"a.com:01":                          "from 1 to 65535",
			"a.com:mongo":                       "from 1 to 65535",
			":27017":                            "a name of letters",
			"mongodb://a.com:27017":             "too many colons",
			"bob@a.com:1":                       "a name of letters",
			"a..com:1":                          "a name of letters",
			"x.-a.com:1":                        "a name of letters",
			"a/b:1":                             "a name of letters",
			"a,b:1":                             "a name of letters",
			"ä.com:1":                           "a name of letters",
			strings.Repeat("a", 64) + ":1":      "a name of letters",
			strings.Repeat("a.", 130) + "com:1": "at most 253",
			"1.2.3:1":                           "no IPv4",
			"1.2.3.256:1":                       "no IPv4",
			"::1:27017":                         "too many colons",
			"[::1]":                             "missing port",
			"[1.2.3.4]:1":                       "IPv6",
			"[a.com]:1":                         "IPv6",
			"[fe80::1%eth0]:1":                  "zone",
			"a.com:1 A.com:1":                   `"A.com:1" is given twice`,
			"[::1]:1 [0::1]:1":                  "given twice",
		} {
			u.must(2, command+" "+args, "", command+":", part)
		}
	}
	good := []string{"server1.com:27017", "localhost:1", "mongo_1:65535", "a.com.:1", "10.0.0.1:27017", "[::1]:27017", "1.example:2"}
	if hosts, err := memberHosts(good); err != nil || !slices.Equal(hosts, good) {
		t.Errorf("got %q, %v", hosts, err)
	}
}

// tooMany is a number of replicas that there are no servers for.
const tooMany = 64

// tables has a layout that can be changed; it stands for what RethinkDB does
// with its tables, so that what the commands say of it can be seen.
type tables struct {
	layout  []statedb.TableLayout
	changes int
	err     error
}

func (s *tables) Layout(context.Context) ([]statedb.TableLayout, error) {
	return slices.Clone(s.layout), s.err
}

func (s *tables) change(n int, field func(*statedb.TableLayout) *int) error {
	s.changes++
	if n == tooMany {
		return errors.New("too few servers")
	}
	for i := range s.layout {
		*field(&s.layout[i]) = n
	}
	return nil
}

func (s *tables) SetShards(_ context.Context, n int) error {
	return s.change(n, func(l *statedb.TableLayout) *int { return &l.Shards })
}

func (s *tables) SetReplicas(_ context.Context, n int) error {
	return s.change(n, func(l *statedb.TableLayout) *int { return &l.Replicas })
}

func (s *tables) String() string {
	var parts []string
	for _, l := range s.layout {
		parts = append(parts, fmt.Sprintf("%d/%d", l.Shards, l.Replicas))
	}
	return strings.Join(parts, " ")
}

// saying runs a part of a command and returns what it wrote; an error is the
// end of stderr.
func saying(do func(*app) error) (stdout, stderr string) {
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs}
	if err := do(a); err != nil {
		a.say("error: %v", err)
	}
	return out.String(), errs.String()
}

func TestSetShardsAndReplicas(t *testing.T) {
	db := &tables{layout: []statedb.TableLayout{{Table: "backlog", Shards: 1, Replicas: 1}, {Table: "bigchain", Shards: 4, Replicas: 2}}}
	for i, c := range []struct {
		what           spread
		n              int
		dryRun         bool
		stdout, stderr string
		after          string // shards and replicas of the tables
		changes        int    // asked of the database so far
	}{
		{shards, 4, true, "TABLE     SHARDS  AFTER\nbacklog   1       4\nbigchain  4       4\n", "Nothing was changed (--dry-run).\n", "1/1 4/2", 0},
		{shards, 4, false, "", "`backlog`: 4 shards, before 1.\nNow every table has 4 shards.\n", "4/1 4/2", 1},
		{shards, 4, false, "", "There is nothing to change: every table has 4 shards already.\n", "4/1 4/2", 1},
		{shards, 4, true, "TABLE     SHARDS  AFTER\nbacklog   4       4\nbigchain  4       4\n",
			"There is nothing to change: every table has 4 shards already.\n", "4/1 4/2", 1},
		{replicas, 1, true, "TABLE     REPLICAS  AFTER\nbacklog   1         1\nbigchain  2         1\n", "Nothing was changed (--dry-run).\n", "4/1 4/2", 1},
		{replicas, 1, false, "", "`bigchain`: 1 replica, before 2.\nNow each shard of every table has 1 replica.\n", "4/1 4/1", 2},
		{replicas, tooMany, false, "", "error: too few servers\n", "4/1 4/1", 3},
	} {
		stdout, stderr := saying(func(a *app) error { return a.setSpread(t.Context(), db, c.what, c.n, c.dryRun) })
		if stdout != c.stdout || stderr != c.stderr || db.String() != c.after || db.changes != c.changes {
			t.Errorf("%d: stdout %q, stderr %q, tables %v after %d changes, want %q, %q, %s after %d", i, stdout, stderr, db, db.changes, c.stdout, c.stderr, c.after, c.changes)
		}
	}
	db.err = statedb.ErrNoDatabase
	if err := new(app).setSpread(t.Context(), db, shards, 1, true); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("no ledger: %v", err)
	}
}

// set is a replica set's list of members, as MongoDB keeps it.
type set struct {
	members []string
	changes int
}

func (s *set) Members(context.Context) ([]string, error) { return slices.Clone(s.members), nil }

func (s *set) AddMembers(_ context.Context, hosts []string) error {
	s.changes++
	s.members = append(s.members, hosts...)
	return nil
}

func (s *set) RemoveMembers(_ context.Context, hosts []string) error {
	s.changes++
	s.members = slices.DeleteFunc(s.members, func(m string) bool { return slices.Contains(hosts, m) })
	return nil
}

func TestAddAndRemoveReplicas(t *testing.T) {
	db := &set{members: []string{"db1:1"}}
	for i, c := range []struct {
		add            bool
		hosts          string
		dryRun         bool
		stdout, stderr string
		after          string
		changes        int // asked of the database so far
	}{
		{true, "db2:1 DB1:1", true, "MEMBER  NOW  AFTER\ndb1:1   yes  yes\ndb2:1   no   yes\n",
			"DB1:1 is a member of the replica set already.\nNothing was changed (--dry-run).\n", "db1:1", 0},
		{true, "DB2:1 db1:1 db3:1", false, "", "db1:1 is a member of the replica set already.\nAdded to the replica set: DB2:1, db3:1.\n", "db1:1 DB2:1 db3:1", 1},
		{true, "db2:1", false, "", "db2:1 is a member of the replica set already.\nThere is nothing to change.\n", "db1:1 DB2:1 db3:1", 1},
		{false, "db2:1", true, "MEMBER  NOW  AFTER\ndb1:1   yes  yes\nDB2:1   yes  no\ndb3:1   yes  yes\n",
			"Nothing was changed (--dry-run).\n", "db1:1 DB2:1 db3:1", 1},
		{false, "db2:1 db4:1", false, "", "db4:1 is no member of the replica set.\nRemoved from the replica set: DB2:1.\n", "db1:1 db3:1", 2},
		{false, "db2:1", false, "", "db2:1 is no member of the replica set.\nThere is nothing to change.\n", "db1:1 db3:1", 2},
		{false, "db3:1 db1:1", true, "", "error: the replica set would have no member left; `bigchaindb drop` deletes the ledger\n", "db1:1 db3:1", 2},
	} {
		stdout, stderr := saying(func(a *app) error {
			change := a.removeMembers
			if c.add {
				change = a.addMembers
			}
			return change(t.Context(), db, strings.Fields(c.hosts), c.dryRun)
		})
		if after := strings.Join(db.members, " "); stdout != c.stdout || stderr != c.stderr || after != c.after || db.changes != c.changes {
			t.Errorf("%d: stdout %q, stderr %q, members %s after %d changes, want %q, %q, %s after %d", i, stdout, stderr, after, db.changes, c.stdout, c.stderr, c.after, c.changes)
		}
	}
}
