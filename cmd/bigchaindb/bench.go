package main

import (
	"errors"
	"net"
	"net/url"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/httpapi/bench"
)

// errMissed ends a run whose report shows a missed target or an error.
var errMissed = errors.New("not every target was met, or something failed: see the report")

// benchCommand measures a node that runs, over HTTP, from this process.
func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	var asJSON bool
	var node nodeAccess
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a running node.",
		Long: "Measure a running node: it signs transactions, posts them, and waits until they are valid.\n" +
			"The transactions stay on the ledger, so use a node that is there to be measured.\n\n" +
			"When the settings' backend is couchdb, the rate of that CouchDB alone is measured, too, before\n" +
			"and after the load, in databases that are deleted again, and the node's rates are put in\n" +
			"proportion to the lower one. The settings must be the node's own.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := a.load()
			if err != nil {
				return err
			}
			if o.URL = node.url; o.URL == "" {
				o.URL = settings.Server.URL()
			}
			if o.TLS, err = node.tlsConfig(); err != nil {
				return err
			}
			o.Token = a.apiToken()
			if o.CouchDB, err = couchOf(settings.Database); err != nil {
				return err
			}
			o.NoGoals = settings.Database.Backend != configs.Embedded && o.CouchDB == nil
			tuneMemory()
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			report, err := bench.Run(ctx, o, a.stderr)
			if err != nil {
				return err
			}
			write := report.WriteTable
			if asJSON {
				write = report.WriteJSON
			}
			if err := write(a.stdout); err != nil {
				return err
			}
			if !report.OK() {
				return errMissed
			}
			return nil
		},
	}
	flags := cmd.Flags()
	node.flags(flags, "the node's `URL` (default: server.bind of the settings)")
	flags.IntVar(&o.Count, "count", 0, "how many CREATEs of a load, then as many TRANSFERs (default 20000)")
	flags.IntSliceVar(&o.Connections, "connections", nil, "how many connections post at once, in one load after the other (default 32; with couchdb 256,32)")
	flags.BoolVar(&o.Full, "full", false, "100,000 transactions, an owner with 100,000 outputs, an asset with 20,000 transfers, 1000 pages of a query")
	flags.BoolVar(&o.PreSign, "presign", false, "sign everything before the clock starts")
	flags.BoolVar(&o.AllowRemote, "allow-remote", false, "measure a node on another machine")
	flags.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

// couchOf tells the load tool where CouchDB is; nil for another backend.
func couchOf(s configs.Database) (*bench.CouchDB, error) {
	if s.Backend != configs.CouchDB {
		return nil, nil
	}
	security, err := tlsConfig(s)
	if err != nil {
		return nil, err
	}
	address := url.URL{Scheme: "http", Host: net.JoinHostPort(s.Host, strconv.Itoa(s.Port))}
	if security != nil {
		address.Scheme = "https"
	}
	return &bench.CouchDB{URL: address.String(), Name: s.Name, Login: s.Login, Password: string(s.Password), TLS: security}, nil
}
