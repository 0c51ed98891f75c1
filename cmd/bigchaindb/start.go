package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/indexes"
	"github.com/couchledger/couchledger/logging"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make the database, the genesis block and the indexes",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := a.load()
			if err != nil {
				return err
			}
			if err := requireKeyPair(settings); err != nil {
				return err
			}
			return a.withLogger(settings, func(logger *slog.Logger) error {
				progress := a.buildProgress()
				created, err := initNode(cmd.Context(), settings, logger, progress.tell)
				if err != nil {
					progress.broken()
					return err
				}
				progress.end()
				if !created {
					a.say("The database `%s` already exists.", settings.Database.Name)
					a.say("If you wish to make it anew, first drop it.")
					return nil
				}
				a.say("The database `%s` is made.", settings.Database.Name)
				return nil
			})
		},
	}
}

func (a *app) dropCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drop",
		Short: "Delete the database with all it holds",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := a.load()
			if err != nil {
				return err
			}
			name := settings.Database.Name
			if !a.yes {
				sure, err := a.confirm(fmt.Sprintf("Do you want to drop `%s` database? [y/n]: ", name))
				if err != nil {
					return err
				}
				if !sure {
					a.say("Nothing was dropped.")
					return nil
				}
			}
			return a.withLogger(settings, func(logger *slog.Logger) error {
				err := dropDatabase(cmd.Context(), settings, logger)
				switch {
				case errors.Is(err, statedb.ErrNoDatabase):
					a.say("Cannot drop `%s`: the database does not exist.", name)
				case err != nil:
					return err
				default:
					a.say("The database `%s` is dropped.", name)
				}
				return nil
			})
		},
	}
}

func (a *app) startCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "start",
		Short: "Run the node",
		Long: `Run the node until it is interrupted; a second interrupt ends it at once.

Without any config file one is made for the embedded backend, with a new key
pair, unless the environment holds a key pair. The database is made when it is
not there.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, warnings, err := a.startSettings()
			if err != nil {
				return err
			}
			return a.withLogger(settings, func(logger *slog.Logger) error {
				for _, line := range warnings {
					logger.Warn(line)
				}
				signals := make(chan os.Signal, 2)
				signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
				defer signal.Stop(signals)
				beside := &devRethinkDB{log: logger}
				ctx, cancel := untilSignal(cmd.Context(), signals, func() {
					logger.Error("stopped at once by a second signal")
					beside.terminate()
					os.Exit(exitFailure)
				})
				defer cancel()
				if a.rethinkDB {
					if err := beside.start(ctx, settings); err != nil {
						return err
					}
					defer beside.stop() // after the node, which finishes what it has accepted
				}
				return startNode(ctx, settings, logger)
			})
		},
	}
}

// untilSignal gives a context that the first signal ends; the second one calls
// abort. cancel ends the context and the wait for signals.
func untilSignal(parent context.Context, signals <-chan os.Signal, abort func()) (ctx context.Context, cancel func()) {
	ctx, stop := context.WithCancel(parent)
	finished, finish := context.WithCancel(context.Background())
	go func() {
		for received := 1; ; received++ {
			select {
			case <-finished.Done():
				return
			case <-signals:
			}
			if received == 2 {
				abort()
				return
			}
			stop()
		}
	}()
	return ctx, func() { stop(); finish() }
}

// withLogger calls work with the logger of the settings, and closes its files.
func (a *app) withLogger(settings configs.Settings, work func(*slog.Logger) error) (err error) {
	logger, files, err := logging.New(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	return work(logger)
}

// requireKeyPair says how to get a key pair where there is none.
func requireKeyPair(settings configs.Settings) error {
	switch {
	case settings.KeyPair.Private != "":
		return nil
	case settings.KeyPair.Public != "":
		return errors.New("keypair.private is not set, only keypair.public: give both, in the config file or as BIGCHAINDB_KEYPAIR_PUBLIC and BIGCHAINDB_KEYPAIR_PRIVATE")
	}
	return errors.New("this node has no key pair: `bigchaindb configure embedded` makes a config file with one, BIGCHAINDB_KEYPAIR_PUBLIC and BIGCHAINDB_KEYPAIR_PRIVATE give one, and `bigchaindb start --dev-allow-temp-keypair` runs with one for the time being")
}

// startSettings are the settings to run with, and the warnings to log. It
// makes the key pair where start is to do that: in a new config file, or for
// this run alone.
func (a *app) startSettings() (settings configs.Settings, warnings []string, err error) {
	settings, warnings, err = configs.Load(a.config, a.environ)
	if err != nil {
		a.warn(warnings)
		return settings, nil, err
	}
	// Judged before a file is made, which would keep the fault.
	if _, err := rulesOf(settings); err != nil {
		return settings, nil, err
	}
	if _, err := indexes.Own(settings.Indexes.Path); err != nil {
		return settings, nil, err
	}
	if err := settings.CheckTLS(); err != nil {
		return settings, nil, err
	}
	if _, err := serverTLS(settings.Server.TLS, slog.New(slog.DiscardHandler)); err != nil {
		return settings, nil, err
	}
	if a.rethinkDB {
		if err := checkDevRethinkDB(settings); err != nil {
			return settings, nil, err
		}
	}
	none := settings.KeyPair.Private == "" && settings.KeyPair.Public == ""
	switch {
	case a.tempKeypair && none:
		setKeyPair(&settings, ledger.GenerateKeyPair())
		warnings = append(warnings, "running with a key pair made for this run alone: "+settings.KeyPair.Public)
	case a.tempKeypair && settings.KeyPair.Private != "":
		warnings = append(warnings, "a key pair is set, so none was made for this run")
	case none && !settings.FileExists && settings.File != "":
		if settings, warnings, err = a.makeFile(settings); err != nil {
			return settings, nil, err
		}
	}
	if err := requireKeyPair(settings); err != nil {
		return settings, nil, err
	}
	return settings, warnings, a.applyLogLevel(&settings)
}

// makeFile writes a config file with a new key pair where there is none, and
// reads it. Of two that do this at a time one writes, and both read the same.
func (a *app) makeFile(settings configs.Settings) (configs.Settings, []string, error) {
	if err := settings.CheckTLS(); err != nil {
		return settings, nil, err
	}
	fresh, _, err := configs.New(settings.Database.Backend, a.config, a.environ)
	if err != nil {
		return settings, nil, err
	}
	setKeyPair(&fresh, ledger.GenerateKeyPair())
	switch _, err := fresh.Save(fresh.File, false); {
	case err == nil:
		a.say("No config file found: made %s for the %s backend, with a new key pair.", fresh.File, fresh.Database.Backend)
	case !errors.Is(err, fs.ErrExist):
		return settings, nil, err
	}
	return configs.Load(a.config, a.environ)
}
