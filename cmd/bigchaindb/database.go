package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/logging"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb"
	"github.com/couchledger/couchledger/statedb/embedded"
	"github.com/couchledger/couchledger/statedb/mongodb"
	"github.com/couchledger/couchledger/statedb/rethinkdb"
)

// opener opens the database of the settings, which need not exist yet.
type opener func(ctx context.Context, settings configs.Settings, logger *slog.Logger, registry prometheus.Registerer) (statedb.DB, error)

// openers has every one of configs.Backends.
var openers = map[string]opener{
	configs.Embedded:  openEmbedded,
	configs.CouchDB:   openCouchDB,
	configs.MongoDB:   openMongoDB,
	configs.RethinkDB: openRethinkDB,
}

// openDatabase opens the database of the settings, which need not exist yet.
// registry gets its metrics; nil for none.
func openDatabase(ctx context.Context, settings configs.Settings, logger *slog.Logger, registry prometheus.Registerer) (statedb.DB, error) {
	if err := settings.CheckTLS(); err != nil {
		return nil, err
	}
	backend := settings.Database.Backend
	return openers[backend](ctx, settings, logger.With(logging.Component, backend), registry)
}

func openEmbedded(_ context.Context, settings configs.Settings, logger *slog.Logger, _ prometheus.Registerer) (statedb.DB, error) {
	path := settings.Database.Path
	db, err := embedded.Open(path, embedded.Options{Logger: logger})
	if errors.Is(err, statedb.ErrLocked) {
		return nil, fmt.Errorf("the database in %s is in use by another process, perhaps a node that runs: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the database in %s cannot be opened: %w", path, err)
	}
	return db, nil
}

func openCouchDB(ctx context.Context, settings configs.Settings, logger *slog.Logger, registry prometheus.Registerer) (statedb.DB, error) {
	s := settings.Database
	security, err := tlsConfig(s)
	if err != nil {
		return nil, err
	}
	peers, err := peerTLS(s)
	if err != nil {
		return nil, err
	}
	return couchdb.Open(ctx, couchdb.Options{
		Host: s.Host, Port: s.Port, Name: s.Name, Login: s.Login, Password: string(s.Password), TLS: security, PeerTLS: peers,
		ConnectTimeout: s.ConnectionTimeout, RequestTimeout: s.RequestTimeout, MaxTries: s.MaxTries, MaxRetries: s.MaxRetries,
		MaxBatch: s.MaxBatchUpdateSize, Shards: s.Shards, Replicas: s.Replicas, Logger: logger, Registry: registry,
	})
}

func openMongoDB(ctx context.Context, settings configs.Settings, logger *slog.Logger, registry prometheus.Registerer) (statedb.DB, error) {
	s := settings.Database
	security, err := tlsConfig(s)
	if err != nil {
		return nil, err
	}
	return mongodb.Open(ctx, mongodb.Options{
		Host: s.Host, Port: s.Port, Name: s.Name, ReplicaSet: s.ReplicaSet, Login: s.Login, Password: string(s.Password), TLS: security,
		ConnectTimeout: s.ConnectionTimeout, RequestTimeout: s.RequestTimeout, MaxTries: s.MaxTries,
		MaxBatch: s.MaxBatchUpdateSize, Logger: logger, Registry: registry,
	})
}

func openRethinkDB(ctx context.Context, settings configs.Settings, logger *slog.Logger, registry prometheus.Registerer) (statedb.DB, error) {
	s := settings.Database
	security, err := tlsConfig(s)
	if err != nil {
		return nil, err
	}
	return rethinkdb.Open(ctx, rethinkdb.Options{
		Host: s.Host, Port: s.Port, Name: s.Name, Login: s.Login, Password: string(s.Password), TLS: security,
		ConnectTimeout: s.ConnectionTimeout, RequestTimeout: s.RequestTimeout, MaxTries: s.MaxTries,
		MaxBatch: s.MaxBatchUpdateSize, Shards: s.Shards, Replicas: s.Replicas, Logger: logger, Registry: registry,
	})
}

// noLedger says that the ledger's database is not there.
func noLedger(settings configs.Settings) error {
	return fmt.Errorf("the database `%s` does not exist; `bigchaindb init` makes it", settings.Database.Name)
}

// openExisting is openDatabase, but does not make the folder of a database
// that is not there: statedb.ErrNoDatabase.
func openExisting(ctx context.Context, settings configs.Settings, logger *slog.Logger) (statedb.DB, error) {
	if settings.Database.Backend == configs.Embedded {
		if _, err := os.Stat(settings.Database.Path); errors.Is(err, fs.ErrNotExist) {
			return nil, statedb.ErrNoDatabase
		}
	}
	return openDatabase(ctx, settings, logger, nil)
}

// dropDatabase deletes the database with what this node keeps of its ledger;
// statedb.ErrNoDatabase if there is none.
func dropDatabase(ctx context.Context, settings configs.Settings, logger *slog.Logger) (err error) {
	db, err := openExisting(ctx, settings, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := node.Drop(ctx, db, settings.State.Path); err != nil {
		return err
	}
	return os.RemoveAll(verifyFolder(settings))
}
