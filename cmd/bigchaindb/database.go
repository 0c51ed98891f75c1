package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
)

// checkBackend says whether openDatabase knows the backend and can work with
// its settings.
func checkBackend(settings configs.Settings) error {
	switch settings.Database.Backend {
	case configs.Embedded, configs.CouchDB:
		return settings.CheckTLS()
	}
	return fmt.Errorf("database.backend: backend %s is not in this version, which has %s and %s",
		settings.Database.Backend, configs.Embedded, configs.CouchDB)
}

// openDatabase opens the database of the settings, which need not exist yet.
// registry gets its metrics; nil for none.
func openDatabase(ctx context.Context, settings configs.Settings, logger *slog.Logger, registry prometheus.Registerer) (statedb.DB, error) {
	if err := checkBackend(settings); err != nil {
		return nil, err
	}
	logger = logger.With(logging.Component, settings.Database.Backend)
	if settings.Database.Backend == configs.CouchDB {
		return openCouchDB(ctx, settings.Database, logger, registry)
	}
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

func openCouchDB(ctx context.Context, s configs.Database, logger *slog.Logger, registry prometheus.Registerer) (statedb.DB, error) {
	security, err := tlsConfig(s)
	if err != nil {
		return nil, err
	}
	return couchdb.Open(ctx, couchdb.Options{
		Host: s.Host, Port: s.Port, Name: s.Name, Login: s.Login, Password: string(s.Password), TLS: security,
		ConnectTimeout: s.ConnectionTimeout, RequestTimeout: s.RequestTimeout, MaxTries: s.MaxTries, MaxRetries: s.MaxRetries,
		MaxBatch: s.MaxBatchUpdateSize, Shards: s.Shards, Replicas: s.Replicas, Logger: logger, Registry: registry,
	})
}

// tlsConfig makes the TLS settings of a database server, whose files
// configs.Settings.CheckTLS has looked at; nil without database.ssl.
func tlsConfig(s configs.Database) (*tls.Config, error) {
	if !s.SSL {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CACert != "" {
		pem, err := os.ReadFile(s.CACert)
		if err != nil {
			return nil, fmt.Errorf("database.ca_cert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("database.ca_cert: %s holds no certificate in PEM form", s.CACert)
		}
	}
	if s.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("database.certfile, database.keyfile: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
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

// dropDatabase deletes the database; statedb.ErrNoDatabase if there is none.
func dropDatabase(ctx context.Context, settings configs.Settings, logger *slog.Logger) (err error) {
	db, err := openExisting(ctx, settings, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Drop(ctx); err != nil {
		return err
	}
	// What the node remembers of this ledger binds it to nothing any more.
	return errors.Join(node.RemoveState(settings.State.Path), os.RemoveAll(verifyFolder(settings)))
}
