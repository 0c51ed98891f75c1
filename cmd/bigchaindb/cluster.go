package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/statedb"
)

// mostParts is the most shards, and the most replicas, that a table may have:
// RethinkDB's own limit of shards is 64.
const mostParts = 64

// spread is one of the two numbers that say how RethinkDB spreads tables.
type spread struct {
	command string // set-shards
	one     string // shard
	of      string // what has that many of them, at the end of a sentence
	now     func(statedb.TableLayout) int
	set     func(statedb.Sharder, context.Context, int) error
}

var (
	shards = spread{"set-shards", "shard", "every table",
		func(l statedb.TableLayout) int { return l.Shards }, statedb.Sharder.SetShards}
	replicas = spread{"set-replicas", "replica", "each shard of every table",
		func(l statedb.TableLayout) int { return l.Replicas }, statedb.Sharder.SetReplicas}
)

func (s spread) count(n int) string {
	if n == 1 {
		return "1 " + s.one
	}
	return strconv.Itoa(n) + " " + s.one + "s"
}

func (a *app) setShardsCommand() *cobra.Command {
	return a.spreadCommand(shards, "Split RethinkDB's tables into N shards", `Split every table into N shards, 1 to 64, while the node may go on serving.
Shards are parts of a table on different servers; more of them than servers
gain nothing.`)
}

func (a *app) setReplicasCommand() *cobra.Command {
	return a.spreadCommand(replicas, "Keep N copies of each shard of RethinkDB's tables", `Keep N copies of each shard of every table, 1 to 64, each on a server of its
own: there must be as many servers.`)
}

func (a *app) spreadCommand(s spread, short, long string) *cobra.Command {
	var n int
	var dryRun bool
	cmd := &cobra.Command{
		Use:   s.command + " N",
		Short: short,
		Long:  long,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) == 1 {
				n, err = strconv.Atoi(args[0])
			}
			if len(args) != 1 || err != nil || n < 1 || n > mostParts {
				return &usageError{cmd, fmt.Errorf("%s takes one number of %ss from 1 to %d, got %q", s.command, s.one, mostParts, strings.Join(args, " "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, a, configs.RethinkDB, func(ctx context.Context, db statedb.Sharder) error {
				return a.setSpread(ctx, db, s, n, dryRun)
			})
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func dryRunFlag(cmd *cobra.Command, dryRun *bool) {
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "show what would change, and change nothing")
}

// setSpread makes every table have n shards, or replicas.
func (a *app) setSpread(ctx context.Context, db statedb.Sharder, s spread, n int, dryRun bool) error {
	layout, err := db.Layout(ctx)
	if err != nil {
		return err
	}
	different := slices.ContainsFunc(layout, func(l statedb.TableLayout) bool { return s.now(l) != n })
	if dryRun {
		out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintf(out, "TABLE\t%sS\tAFTER\n", strings.ToUpper(s.one))
		for _, table := range layout {
			fmt.Fprintf(out, "%s\t%d\t%d\n", table.Table, s.now(table), n)
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	switch {
	case !different:
		a.say("There is nothing to change: %s has %s already.", s.of, s.count(n))
		return nil
	case dryRun:
		a.say("Nothing was changed (--dry-run).")
		return nil
	}
	if err := s.set(db, ctx, n); err != nil {
		return err
	}
	for _, table := range layout {
		if before := s.now(table); before != n {
			a.say("`%s`: %s, before %d.", table.Table, s.count(n), before)
		}
	}
	a.say("Now %s has %s.", s.of, s.count(n))
	return nil
}

// replicasArgs is how the commands for copies are used.
const replicasArgs = "ADDRESS..."

func (a *app) addReplicasCommand() *cobra.Command {
	var dryRun, guardBacklog bool
	cmd := &cobra.Command{
		Use:   "add-replicas " + replicasArgs,
		Short: "CouchDB: copy a peer's ledger from now on. MongoDB: add members to the replica set",
		Long: `With CouchDB, have it copy backlog, blocks and votes from the CouchDBs of other
members of the federation, from now on, for ever. ADDRESS is http://USER@HOST:5984,
or https, with the user that the peer's operator has made with allow-peer; the
password is asked for. A peer whose ledger has another name has it as the path. A
peer that is there already is copied from its beginning again, which a ledger that
was restored from a dump needs. What is copied can add documents, and can neither
change nor delete any; for the backlog only with --guard-backlog, which costs some
speed and holds off peers whose server lies.

With MongoDB, add members to the replica set, one after the other. ADDRESS is
HOST:PORT of a mongod that runs with the set's name (--replSet) and is reached by
all others there.`,
		Args: someReplicas,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withReplicas(cmd, args,
				func(ctx context.Context, db peersDB, peers []statedb.Peer) error {
					return a.addPeers(ctx, db, peers, guardBacklog, dryRun)
				},
				func(ctx context.Context, set statedb.ReplicaSet, hosts []string) error {
					return a.addMembers(ctx, set, hosts, dryRun)
				})
		},
	}
	cmd.Flags().BoolVar(&guardBacklog, "guard-backlog", false, "CouchDB: have the backlog guarded, too")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) removeReplicasCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "remove-replicas " + replicasArgs,
		Short: "CouchDB: copy a peer's ledger no more. MongoDB: remove members from the replica set",
		Long: `With CouchDB, end the copying from peers; what was copied stays. ADDRESS is
http://HOST:5984.

With MongoDB, remove members from the replica set, one after the other. ADDRESS is
HOST:PORT. The primary is not removed.`,
		Args: someReplicas,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withReplicas(cmd, args,
				func(ctx context.Context, db peersDB, peers []statedb.Peer) error {
					return a.removePeers(ctx, db, peers, dryRun)
				},
				func(ctx context.Context, set statedb.ReplicaSet, hosts []string) error {
					return a.removeMembers(ctx, set, hosts, dryRun)
				})
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func someReplicas(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return nil
	}
	return &usageError{cmd, fmt.Errorf("%s: expected at least one address: http://USER@HOST:5984 for CouchDB, HOST:PORT for MongoDB", cmd.Name())}
}

// withReplicas judges the addresses by the settings' backend, and calls what is to
// be done there.
func (a *app) withReplicas(cmd *cobra.Command, args []string,
	couch func(context.Context, peersDB, []statedb.Peer) error, mongo func(context.Context, statedb.ReplicaSet, []string) error) error {
	settings, err := a.load()
	if err != nil {
		return err
	}
	wrong := func(err error) error { return &usageError{cmd, fmt.Errorf("%s: %w", cmd.Name(), err)} }
	switch settings.Database.Backend {
	case configs.CouchDB:
		peers, err := peerAddresses(args, settings.Database.Name)
		if err != nil {
			return wrong(err)
		}
		return withAdmin(cmd, a, configs.CouchDB, func(ctx context.Context, db peersDB) error { return couch(ctx, db, peers) })
	case configs.MongoDB:
		hosts, err := memberHosts(args)
		if err != nil {
			return wrong(err)
		}
		return withAdmin(cmd, a, configs.MongoDB, func(ctx context.Context, set statedb.ReplicaSet) error { return mongo(ctx, set, hosts) })
	}
	return fmt.Errorf("%s is for the backends %s and %s, and database.backend is %s", cmd.Name(), configs.CouchDB, configs.MongoDB, settings.Database.Backend)
}

// addMembers adds the hosts that are no members yet.
func (a *app) addMembers(ctx context.Context, set statedb.ReplicaSet, hosts []string, dryRun bool) error {
	members, err := set.Members(ctx)
	if err != nil {
		return err
	}
	var missing []string
	for _, host := range hosts {
		if memberAt(members, host) >= 0 {
			a.say("%s is a member of the replica set already.", host)
		} else {
			missing = append(missing, host)
		}
	}
	return a.changeMembers(members, slices.Concat(members, missing), dryRun, func() error {
		if err := set.AddMembers(ctx, missing); err != nil {
			return err
		}
		a.say("Added to the replica set: %s.", strings.Join(missing, ", "))
		return nil
	})
}

// removeMembers removes the hosts that are members.
func (a *app) removeMembers(ctx context.Context, set statedb.ReplicaSet, hosts []string, dryRun bool) error {
	members, err := set.Members(ctx)
	if err != nil {
		return err
	}
	after := slices.Clone(members)
	var there []string // as the set spells them
	for _, host := range hosts {
		if at := memberAt(after, host); at >= 0 {
			there = append(there, after[at])
			after = slices.Delete(after, at, at+1)
		} else {
			a.say("%s is no member of the replica set.", host)
		}
	}
	if len(there) > 0 && len(after) == 0 {
		return errors.New("the replica set would have no member left; `bigchaindb drop` deletes the ledger")
	}
	return a.changeMembers(members, after, dryRun, func() error {
		if err := set.RemoveMembers(ctx, there); err != nil {
			return err
		}
		a.say("Removed from the replica set: %s.", strings.Join(there, ", "))
		return nil
	})
}

// changeMembers does what makes the members those after, or shows it.
func (a *app) changeMembers(now, after []string, dryRun bool, change func() error) error {
	if dryRun {
		out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(out, "MEMBER\tNOW\tAFTER")
		all := slices.Concat(now, after)
		for i, host := range all {
			if slices.Contains(all[:i], host) {
				continue
			}
			fmt.Fprintf(out, "%s\t%s\t%s\n", host, yesNo(slices.Contains(now, host)), yesNo(slices.Contains(after, host)))
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	switch {
	case slices.Equal(now, after):
		a.say("There is nothing to change.")
		return nil
	case dryRun:
		a.say("Nothing was changed (--dry-run).")
		return nil
	}
	return change()
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// memberAt finds a host among the members, however either is spelled; -1 when
// it is not there.
func memberAt(members []string, host string) int {
	return slices.IndexFunc(members, func(member string) bool { return sameHost(member, host) })
}

// withAdmin calls work with the database of the settings as what only one
// backend is. With another backend nothing is connected.
func withAdmin[T any](cmd *cobra.Command, a *app, backend string, work func(context.Context, T) error) error {
	settings, err := a.load()
	if err != nil {
		return err
	}
	if settings.Database.Backend != backend {
		return fmt.Errorf("%s is for the backend %s alone, and database.backend is %s", cmd.Name(), backend, settings.Database.Backend)
	}
	return a.withLogger(settings, func(logger *slog.Logger) (err error) {
		db, err := openExisting(cmd.Context(), settings, logger)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		admin, ok := db.(T)
		if !ok {
			return fmt.Errorf("%s: the backend %s cannot do this", cmd.Name(), backend)
		}
		err = work(cmd.Context(), admin)
		if errors.Is(err, statedb.ErrNoDatabase) {
			return noLedger(settings)
		}
		return err
	})
}
