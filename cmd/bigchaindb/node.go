package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/logging"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// errNoNode is returned where the node itself would run.
var errNoNode = errors.New("this build has no node in it")

// checkBackend says whether openDatabase knows the backend.
func checkBackend(settings configs.Settings) error {
	if settings.Database.Backend != configs.Embedded {
		return fmt.Errorf("database.backend: backend %s is not in this version, which has %s", settings.Database.Backend, configs.Embedded)
	}
	return nil
}

// openDatabase opens the database of the settings, which need not exist yet.
func openDatabase(settings configs.Settings, logger *slog.Logger) (statedb.DB, error) {
	if err := checkBackend(settings); err != nil {
		return nil, err
	}
	path := settings.Database.Path
	db, err := embedded.Open(path, embedded.Options{Logger: logger.With(logging.Component, "embedded")})
	if errors.Is(err, statedb.ErrLocked) {
		return nil, fmt.Errorf("the database in %s is in use by another process, perhaps a node that runs: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the database in %s cannot be opened: %w", path, err)
	}
	return db, nil
}

// dropDatabase deletes the database; statedb.ErrNoDatabase if there is none.
func dropDatabase(ctx context.Context, settings configs.Settings, logger *slog.Logger) (err error) {
	if settings.Database.Backend == configs.Embedded {
		// Opening would make the folder of a database that is not there.
		if _, err := os.Stat(settings.Database.Path); errors.Is(err, fs.ErrNotExist) {
			return statedb.ErrNoDatabase
		}
	}
	db, err := openDatabase(settings, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.Drop(ctx)
}

// initNode makes the database, its indexes and the genesis block, and reports
// whether it did: false when the database was there.
func initNode(_ context.Context, settings configs.Settings, _ *slog.Logger) (created bool, err error) {
	if err := checkBackend(settings); err != nil {
		return false, err
	}
	return false, errNoNode
}

// startNode runs the node until the context ends, then stops it gracefully.
func startNode(_ context.Context, settings configs.Settings, _ *slog.Logger) error {
	if err := checkBackend(settings); err != nil {
		return err
	}
	return errNoNode
}
