package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/archive"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// backupCall is one call of backup.
type backupCall struct {
	a       *app
	node    nodeAccess
	since   []string
	scratch string
	backlog bool
	force   bool
	asJSON  bool
}

func (a *app) backupCommand() *cobra.Command {
	c := &backupCall{a: a}
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the ledger into a file",
		Long: `Write the ledger, its blocks and votes, into a compressed file with checksums,
which restore makes a ledger of again, on any backend. With - it goes to stdout.

It reads the database of the settings; nodes may run on it meanwhile, except
that the embedded database can be open in one process only. With --url it reads
what a running node serves, and needs no settings. What it writes is sound at one
moment, however much is posted meanwhile.

Keys and settings are not in the file. docs/operations.md has more.`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			err := c.run(ctx, args[0])
			if err != nil && ctx.Err() != nil {
				return errors.New("interrupted; no file was written")
			}
			return err
		},
	}
	flags := cmd.Flags()
	c.node.flags(flags, "read from the running node at this `URL` instead of the database")
	flags.StringArrayVar(&c.since, "since", nil, "write only what the backup `FILE` does not hold; those that it follows are looked for beside it, or given before it")
	flags.BoolVar(&c.backlog, "backlog", false, "with the transactions that wait in the backlog for a block")
	flags.BoolVar(&c.force, "force", false, "replace FILE if it exists")
	flags.StringVar(&c.scratch, "scratch", "", "the `folder` for what it keeps on disk while it works (default: that of FILE)")
	flags.BoolVar(&c.asJSON, "json", false, "print the summary as JSON")
	return cmd
}

// oneFile takes one argument.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{cmd, fmt.Errorf("%s takes one FILE, got %q", cmd.Name(), args)}
	}
	return nil
}

func (c *backupCall) run(ctx context.Context, path string) (err error) {
	tuneMemory()
	begin := time.Now()
	var o archive.BackupOptions
	if len(c.since) > 0 {
		if o.Since, err = archive.OpenChain(c.since...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Since.Close()) }()
		if err := c.a.checkFiles(ctx, o.Since); err != nil {
			return err
		}
	}
	progress := c.a.stepProgress()
	left := 0
	o.Backlog, o.Scratch, o.Progress = c.backlog, c.scratch, progress.tell
	o.Left = func(table, id string, why error) {
		if left++; left <= shownFindings {
			c.a.say("bigchaindb: warning: %s/%.100q is not the ledger's, and not in the backup: %v", table, id, why)
		}
	}
	if o.Scratch == "" && path != "-" {
		o.Scratch = filepath.Dir(path)
	}
	var summary archive.Summary
	err = c.withSource(ctx, &o, func(source verify.Source) error {
		return c.withFile(path, func(out io.Writer) (err error) {
			summary, err = archive.Backup(ctx, source, out, o)
			return err
		})
	})
	progress.leave()
	if err != nil {
		return err
	}
	if left > 0 {
		c.a.say("bigchaindb: warning: %d documents are not the ledger's and were left out; `bigchaindb verify` tells of them", left)
	}
	out := c.a.stdout
	if path == "-" {
		out = c.a.stderr
	}
	if c.asJSON {
		return json.NewEncoder(out).Encode(struct {
			archive.Summary
			Left    int     `json:"left_out"`
			Seconds float64 `json:"seconds"`
		}{summary, left, time.Since(begin).Seconds()})
	}
	return printSummary(out, "backup", path, summary, time.Since(begin))
}

// withSource opens what is backed up.
func (c *backupCall) withSource(ctx context.Context, o *archive.BackupOptions, do func(verify.Source) error) error {
	if c.node.url != "" {
		source, err := c.a.nodeClient(c.node, verifyTimeout)
		if err != nil {
			return err
		}
		return do(source)
	}
	settings, err := c.a.load()
	if err != nil {
		return err
	}
	return c.a.withLogger(settings, func(logger *slog.Logger) (err error) {
		db, err := openExisting(ctx, settings, logger)
		if err == nil {
			defer func() { err = errors.Join(err, db.Close()) }()
			err = do(db)
		}
		return explainOpen(settings, "backup FILE", "saves", err)
	})
}

// explainOpen says what to do about a database that cannot be read: command
// takes --url, and does what the verb says with what a node serves.
func explainOpen(settings configs.Settings, command, verb string, err error) error {
	switch {
	case errors.Is(err, statedb.ErrLocked):
		return fmt.Errorf("the database in %s is open in another process, perhaps the running node; `bigchaindb %s --url %s` %s what that serves",
			settings.Database.Path, command, settings.Server.URL(), verb)
	case errors.Is(err, statedb.ErrNoDatabase):
		return noLedger(settings)
	}
	return err
}

// withFile has a file written beside its place, and puts it there when it is
// complete and on disk.
func (c *backupCall) withFile(path string, write func(io.Writer) error) (err error) {
	if path == "-" {
		return write(c.a.stdout)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) && !c.force {
		if err != nil {
			return err
		}
		return fmt.Errorf("%s exists already; --force replaces it", path)
	}
	folder := filepath.Dir(path)
	out, err := os.CreateTemp(folder, filepath.Base(path)+".partial-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	if err := errors.Join(write(out), out.Sync(), out.Close()); err != nil {
		return err
	}
	if err := c.place(out.Name(), path); err != nil {
		return err
	}
	return syncFolder(folder)
}

// place gives a complete file its name. Unlike a rename, a link never takes the
// place of another file; not all file systems have links.
func (c *backupCall) place(partial, path string) error {
	if c.force {
		return os.Rename(partial, path)
	}
	switch err := os.Link(partial, path); {
	case err == nil:
		return os.Remove(partial)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	return os.Rename(partial, path)
}

// syncFolder makes names in a folder durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// checkFiles reads backup files whole.
func (a *app) checkFiles(ctx context.Context, chain *archive.Chain) error {
	progress := a.progressLine()
	progress.began = progress.now()
	all := chain.Summary().FileBytes
	err := chain.Check(ctx, func(done int64) {
		if progress.due() {
			took := progress.now().Sub(progress.began).Seconds()
			left := time.Duration(took * float64(all-done) / float64(max(done, 1)) * float64(time.Second))
			progress.line(fmt.Sprintf("Checking %s: %.0f %%, %.0f MB/s, %s to go", chain, 100*float64(done)/float64(all),
				float64(done)/1e6/took, max(left.Round(time.Second), time.Second)))
		}
	})
	progress.leave()
	return err
}

// printSummary tells people what is in a file, or was in it.
func printSummary(out io.Writer, what, path string, s archive.Summary, took time.Duration) error {
	w := &lines{out: out}
	w.add("%-13s %s", what, path)
	w.add("identity      %s", s.Identity)
	if s.Since != "" {
		w.add("follows       %s", s.Since)
	}
	w.add("first block   %s", s.Genesis)
	w.add("documents     %d of blocks, %d votes", s.Documents[statedb.Bigchain], s.Documents[statedb.Votes])
	if s.Backlog {
		w.add("backlog       %d transactions", s.Documents[statedb.Backlog])
	} else {
		w.add("backlog       not in it")
	}
	w.add("size          %.1f MB, %.1f MB unpacked", float64(s.FileBytes)/1e6, float64(s.Bytes)/1e6)
	w.add("took          %s, %.1f MB unpacked per second", took.Round(100*time.Millisecond), float64(s.Bytes)/1e6/took.Seconds())
	return w.err
}
