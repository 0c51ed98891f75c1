package main

import (
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/httpapi/bench"
)

// errMissed ends a run whose report shows a missed target or an error.
var errMissed = errors.New("not every target was met, or something failed: see the report")

// benchCommand measures a node that runs, over HTTP, from this process.
func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a running node.",
		Long: "Measure a running node: it signs transactions, posts them, and waits until they are valid.\n" +
			"The transactions stay on the ledger, so use a node that is there to be measured.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.URL == "" {
				settings, err := a.load()
				if err != nil {
					return err
				}
				o.URL = "http://" + settings.Server.Bind
			}
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
	flags.StringVar(&o.URL, "url", "", "the node's `URL` (default: server.bind of the settings)")
	flags.IntVar(&o.Count, "count", 0, "how many CREATEs, then as many TRANSFERs (default 20000)")
	flags.IntVar(&o.Connections, "connections", 0, "how many connections post at once (default 32)")
	flags.BoolVar(&o.Full, "full", false, "100,000 transactions, an owner with 100,000 outputs, an asset with 20,000 transfers")
	flags.BoolVar(&o.PreSign, "presign", false, "sign everything before the clock starts")
	flags.BoolVar(&o.AllowRemote, "allow-remote", false, "measure a node on another machine")
	flags.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}
