package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb"
)

// peersDB is a database that can be copied from others'.
type peersDB interface {
	statedb.DB
	statedb.Replicator
}

// peerAddresses takes addresses such as http://user@host:5984, each once. name is
// this side's name of the ledger.
func peerAddresses(args []string, name string) (peers []statedb.Peer, err error) {
	for _, arg := range args {
		p, err := peerAddress(arg, name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(peers, func(other statedb.Peer) bool { return other.URL == p.URL && other.Name == p.Name }) {
			return nil, fmt.Errorf("%q is given twice", arg)
		}
		peers = append(peers, p)
	}
	return peers, nil
}

func peerAddress(arg, name string) (p statedb.Peer, err error) {
	const like = "such as http://reader@couch.example.com:5984"
	u, err := url.Parse(arg)
	if err != nil {
		return p, fmt.Errorf("expected an address %s", like) // the text may hold a password
	}
	if _, set := u.User.Password(); set {
		return p, errors.New("an address holds a password, which others see in the list of processes: leave it out, it is asked for")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return p, fmt.Errorf("%q is no address %s", arg, like)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "5984", "https": "6984"}[u.Scheme]
	}
	host := u.Hostname() + ":" + port
	if strings.Contains(u.Hostname(), ":") {
		host = "[" + u.Hostname() + "]:" + port
	}
	if err := checkHostPort(host); err != nil {
		return p, fmt.Errorf("%q is no address %s: %w", arg, like, err)
	}
	p = statedb.Peer{URL: u.Scheme + "://" + canonicalHost(host), Name: name, User: u.User.Username()}
	if path := strings.Trim(u.Path, "/"); path != "" {
		p.Name = path
		if err := couchdb.CheckName(path); err != nil {
			return p, fmt.Errorf("the ledger in %q: %w", arg, err)
		}
	}
	return p, nil
}

// addPeers has the ledger copied from peers. All are looked at before anything is
// changed.
func (a *app) addPeers(ctx context.Context, db peersDB, peers []statedb.Peer, guardBacklog, dryRun bool) error {
	for i := range peers {
		p := &peers[i]
		if p.User == "" {
			return fmt.Errorf("%s: whose password is it to be? The peer's operator makes a user with `bigchaindb allow-peer`; write it as http://USER@HOST:5984", p.URL)
		}
		var err error
		if p.Password, err = a.askSecret(fmt.Sprintf("Password of %s at %s: ", p.User, p.URL)); err != nil {
			return err
		}
		if err := node.CheckPeer(ctx, db, db, *p); err != nil {
			return fmt.Errorf("%s: %v", p.URL, err) // a database that is not there is the peer's
		}
	}
	if dryRun {
		for _, p := range peers {
			a.say("The ledger `%s` would be copied from %s as its user %s.", p.Name, p.URL, p.User)
		}
		a.say("Nothing was changed (--dry-run).")
		return nil
	}
	if _, err := db.Create(ctx); err != nil {
		return err
	}
	for _, p := range peers {
		if err := db.AddPeer(ctx, p, node.Copied(guardBacklog)); err != nil {
			return fmt.Errorf("%s: %w", p.URL, err)
		}
		a.say("The ledger `%s` is copied from %s from now on. `bigchaindb replicas` tells how that goes.", p.Name, p.URL)
	}
	return nil
}

// removePeers ends the copying from peers.
func (a *app) removePeers(ctx context.Context, db peersDB, peers []statedb.Peer, dryRun bool) error {
	known, err := db.Peers(ctx)
	if err != nil {
		return err
	}
	for _, p := range peers {
		there := slices.ContainsFunc(known, func(c statedb.Copies) bool { return c.Peer.URL == p.URL && c.Peer.Name == p.Name })
		if there && dryRun {
			a.say("Copying the ledger `%s` from %s would end.", p.Name, p.URL)
			continue
		}
		if !dryRun {
			if there, err = db.RemovePeer(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", p.URL, err)
			}
		}
		if there {
			a.say("The ledger `%s` is copied from %s no more.", p.Name, p.URL)
		} else {
			a.say("The ledger `%s` is not copied from %s.", p.Name, p.URL)
		}
	}
	if dryRun {
		a.say("Nothing was changed (--dry-run).")
	}
	return nil
}

func (a *app) replicasCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "replicas",
		Short: "CouchDB: list the peers that are copied from, with state, lag and last error",
		Long: `List what CouchDB copies from peers: its state, how many changes of the peer's have
not been looked at here (? while the peer does not answer), how many documents were
copied and how many this side's guard refused since the copying last began, and the
last error.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, a, configs.CouchDB, func(ctx context.Context, db peersDB) error {
				all, err := db.Peers(ctx)
				if err != nil {
					return err
				}
				return a.showPeers(all, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object for each table of each peer, in a line")
	return cmd
}

func (a *app) showPeers(all []statedb.Copies, asJSON bool) error {
	if asJSON {
		for _, peer := range all {
			for _, c := range peer.Tables {
				line, err := json.Marshal(map[string]any{
					"peer": peer.Peer.URL, "ledger": peer.Peer.Name, "user": peer.Peer.User, "table": c.Table, "state": c.State,
					"lag": c.Lag, "copied": c.Copied, "refused": c.Refused, "error": c.Error,
				})
				if err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, string(line))
			}
		}
		return nil
	}
	if len(all) == 0 {
		a.say("The ledger is copied from nowhere; `bigchaindb add-replicas` changes that.")
		return nil
	}
	out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "PEER\tTABLE\tSTATE\tLAG\tCOPIED\tREFUSED\tLAST ERROR")
	for _, peer := range all {
		for _, c := range peer.Tables {
			lag := "?"
			if c.Lag >= 0 {
				lag = fmt.Sprint(c.Lag)
			}
			fmt.Fprintf(out, "%s/%s\t%s\t%s\t%s\t%d\t%d\t%s\n", peer.Peer.URL, peer.Peer.Name, c.Table, c.State, lag, c.Copied, c.Refused,
				printable(c.Error))
		}
	}
	return out.Flush()
}

// printable makes one line of a text that a peer's server may have had a hand in,
// with nothing in it that a terminal obeys.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, strings.Join(strings.Fields(text), " "))
}

func (a *app) allowPeerCommand() *cobra.Command {
	return a.readerCommand("allow-peer", "CouchDB: make a user as which a peer may copy this ledger",
		`Make a user in CouchDB that may read backlog, blocks and votes, for a peer to copy
them. Its password goes to stdout, once; tell both to the peer's operator, who calls
add-replicas. A user that is there gets a new password.`,
		func(ctx context.Context, db peersDB, name string) error {
			if _, err := db.Create(ctx); err != nil {
				return err
			}
			password, err := db.AllowReader(ctx, name, node.Copied(false))
			if err != nil {
				return err
			}
			a.say("The user %s may read this ledger. The password, which is shown only now:", name)
			fmt.Fprintln(a.stdout, password)
			return nil
		})
}

func (a *app) forbidPeerCommand() *cobra.Command {
	return a.readerCommand("forbid-peer", "CouchDB: delete a user that allow-peer made", `Delete a user that allow-peer made. The peer can copy no more.`,
		func(ctx context.Context, db peersDB, name string) error {
			there, err := db.ForbidReader(ctx, name)
			if err != nil {
				return err
			}
			if there {
				a.say("The user %s is deleted.", name)
			} else {
				a.say("There is no user %s.", name)
			}
			return nil
		})
}

func (a *app) readerCommand(name, short, long string, do func(ctx context.Context, db peersDB, user string) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " USER",
		Short: short,
		Long:  long,
		Args: func(cmd *cobra.Command, args []string) error {
			const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"
			if len(args) != 1 || args[0] == "" || strings.Trim(args[0], allowed) != "" {
				return &usageError{cmd, fmt.Errorf("%s takes the name of one user, of letters, digits, dots and hyphens, got %q", name, strings.Join(args, " "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return withAdmin(cmd, a, configs.CouchDB, func(ctx context.Context, db peersDB) error { return do(ctx, db, args[0]) })
		},
	}
}
