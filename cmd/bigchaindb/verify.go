package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/archive"
	"github.com/couchledger/couchledger/node/verify"
)

// uncheckedError ends a verify that cannot tell whether the ledger is sound.
type uncheckedError struct{ reason error }

func (e *uncheckedError) Error() string { return e.reason.Error() }
func (e *uncheckedError) Unwrap() error { return e.reason }

// verifyTimeout is how long a remote node may take for one page.
const verifyTimeout = 2 * time.Minute

// verifyCall is one call of verify.
type verifyCall struct {
	a       *app
	node    nodeAccess
	scratch string
	asJSON  bool
}

func (a *app) verifyCommand() *cobra.Command {
	c := &verifyCall{a: a}
	cmd := &cobra.Command{
		Use:   "verify [FILE...]",
		Short: "Check the whole ledger, and report what is wrong",
		Long: `Check the whole ledger, and report what is wrong: hashes, signatures, makers,
voters, transactions, what they spend, votes and what follows from them, and the
documents for queries. docs/operations.md lists the rules.

It reads the database of the settings; a node may run on it meanwhile, except
that the embedded database can be open in one process only. With --url it reads
the blocks and votes that a running node serves, and needs no settings. With
backup files it reads those, and needs neither: the full one first, then those
that follow it; those before the first are looked for beside it.

Interrupted with Ctrl-C, or otherwise, it goes on when it is called again.

Exit code: 0 the ledger is sound, 1 there are findings, 2 it could not be checked.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if c.node.url != "" && len(args) > 0 {
				return &usageError{cmd, errors.New("verify reads from --url or from files, not both")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			err := c.run(ctx, args)
			if err == nil || errors.Is(err, errFindings) {
				return err
			}
			return &uncheckedError{err}
		},
	}
	flags := cmd.Flags()
	c.node.flags(flags, "read from the running node at this `URL` instead of the database")
	flags.StringVar(&c.scratch, "scratch", "", "the `folder` for what it keeps on disk while it works (default: state.path; with --url a temporary one)")
	flags.BoolVar(&c.asJSON, "json", false, "print the report as JSON")
	return cmd
}

// verifyFolder is where a run on the database of the settings keeps what it
// goes on from.
func verifyFolder(settings configs.Settings) string { return verifyIn(settings.State.Path) }

// verifyIn makes the folder one of its own, as it is deleted in the end.
func verifyIn(folder string) string { return filepath.Join(folder, "verify") }

func (c *verifyCall) run(ctx context.Context, files []string) error {
	tuneMemory()
	switch {
	case c.node.url != "":
		return c.remote(ctx)
	case len(files) > 0:
		return c.files(ctx, files)
	}
	settings, err := c.a.load()
	if err != nil {
		return err
	}
	o := verify.Options{Ledger: nameOf(settings.Database), Derived: true, Scratch: verifyFolder(settings)}
	if c.scratch != "" {
		o.Scratch = verifyIn(c.scratch)
	}
	return c.a.withLogger(settings, func(logger *slog.Logger) (err error) {
		db, err := openExisting(ctx, settings, logger)
		if err == nil {
			defer func() { err = errors.Join(err, db.Close()) }()
			err = c.verify(ctx, db, o)
		}
		return explainOpen(settings, "verify", "checks", err)
	})
}

// nameOf says which database it is.
func nameOf(s configs.Database) string {
	if s.Backend == configs.Embedded {
		return "embedded " + s.Path
	}
	return s.Backend + " " + net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) + " " + s.Name
}

// remote verifies what a node serves.
func (c *verifyCall) remote(ctx context.Context) error {
	source, err := c.a.nodeClient(c.node, verifyTimeout)
	if err != nil {
		return err
	}
	o := verify.Options{Ledger: c.node.url}
	if c.scratch != "" {
		o.Scratch = verifyIn(c.scratch)
	}
	return c.verify(ctx, source, o)
}

// files verifies what backup files hold.
func (c *verifyCall) files(ctx context.Context, paths []string) (err error) {
	chain, err := archive.OpenChain(paths...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	if err := c.a.checkFiles(ctx, chain); err != nil {
		return err
	}
	o := verify.Options{Ledger: "backup " + chain.Identity() + " " + chain.String()}
	if c.scratch != "" {
		o.Scratch = verifyIn(c.scratch)
	}
	return c.verify(ctx, chain, o)
}

// verify runs and writes the report.
func (c *verifyCall) verify(ctx context.Context, source verify.Source, o verify.Options) error {
	progress := c.a.stepProgress()
	var out verifyReport = &verifyText{out: c.a.stdout}
	if c.asJSON {
		out = &verifyJSON{out: c.a.stdout}
	}
	o.Progress, o.Finding = progress.tell, out.finding
	report, err := verify.Run(ctx, source, o)
	progress.leave()
	switch {
	case err != nil && ctx.Err() != nil && o.Scratch != "":
		return fmt.Errorf("interrupted; called again it goes on from what it keeps in %s", o.Scratch)
	case err != nil && ctx.Err() != nil:
		return errors.New("interrupted; with --scratch it could go on when it is called again")
	case err != nil:
		return err
	}
	if err := out.end(o, report); err != nil {
		return err
	}
	if report.Findings > 0 {
		return errFindings
	}
	return nil
}

// errFindings ends a verify whose report has findings.
var errFindings = errors.New("the ledger is not sound: see the report")

// stepProgress shows how far something that has several steps is.
type stepProgress struct {
	progressLine
	step      int
	stepBegan time.Time
}

func (a *app) stepProgress() *stepProgress {
	p := &stepProgress{progressLine: a.progressLine()}
	p.began = p.now()
	return p
}

func (p *stepProgress) tell(now verify.Progress) {
	if now.Step != p.step {
		p.step, p.stepBegan = now.Step, p.now()
	}
	if !p.due() {
		return
	}
	text := fmt.Sprintf("Step %d of %d, %s: %.0f %%", now.Step, now.Steps, now.Name, 100*now.Fraction)
	took := p.now().Sub(p.stepBegan)
	if now.Count > 0 && took > 0 {
		text += fmt.Sprintf(", %d %s, %.0f/s", now.Count, now.Unit, float64(now.Count)/took.Seconds())
	}
	if now.Fraction > 0 {
		left := time.Duration(float64(took) * (1 - now.Fraction) / now.Fraction)
		text += fmt.Sprintf(", %s to go", max(left.Round(time.Second), time.Second))
	}
	p.line(text)
}
