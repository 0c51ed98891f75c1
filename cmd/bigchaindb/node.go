package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/httpapi"
	"github.com/couchledger/couchledger/indexes"
	"github.com/couchledger/couchledger/logging"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// initNode makes the database, the genesis block and the indexes, and reports
// whether it made the database: false when that was there. Progress is told of
// the building of indexes.
func initNode(ctx context.Context, settings configs.Settings, logger *slog.Logger, progress func(string, []statedb.IndexState)) (created bool, err error) {
	all, err := indexes.All(settings.Indexes.Path)
	if err != nil {
		return false, err
	}
	rules, err := rulesOf(settings)
	if err != nil {
		return false, err
	}
	db, err := openDatabase(ctx, settings, logger, nil)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	key, err := ledger.KeyPairFromPrivate(string(settings.KeyPair.Private))
	if err != nil {
		return false, err
	}
	if created, err = initLedger(ctx, db, key, settings.Keyring, rules, logger); err != nil {
		return created, err
	}
	return created, node.DeployIndexes(ctx, db, all, progress)
}

// genesisEvery is how often is looked whether the genesis block has come.
const genesisEvery = time.Second

// initLedger is node.Init, but waits for the genesis block where that is to come
// from peers. A database that goes away meanwhile is waited for as well.
func initLedger(ctx context.Context, db statedb.DB, key ledger.KeyPair, keyring []string, rules consensus.Rules, logger *slog.Logger) (created bool, err error) {
	waits, fails := false, false
	for {
		made, err := node.Init(ctx, db, key, keyring, rules)
		created = created || made
		if !waits && !errors.Is(err, node.ErrAwaitsGenesis) || err == nil {
			return created, err
		}
		if !waits {
			waits = true
			logger.Info("waiting for the genesis block of a peer; to begin a ledger, call `bigchaindb init` before `bigchaindb add-replicas`")
		}
		if r, ok := db.(statedb.Replicated); ok && errors.Is(err, node.ErrAwaitsGenesis) {
			_, err = r.TendPeers(ctx)
		}
		away := errors.Is(err, statedb.ErrUnavailable)
		switch {
		case err != nil && !away:
			return created, err
		case away && !fails:
			logger.Warn("the database fails; trying again until it works", "error", err)
		case fails && !away:
			logger.Info("the database works again")
		}
		fails = away
		if err := statedb.Sleep(ctx, genesisEvery); err != nil {
			return created, node.ErrAwaitsGenesis
		}
	}
}

// rulesOf returns the consensus rules of the settings.
func rulesOf(settings configs.Settings) (consensus.Rules, error) {
	rules, err := consensus.Lookup(settings.ConsensusPlugin)
	if err != nil {
		return nil, fmt.Errorf("consensus_plugin: %w", err)
	}
	return rules, nil
}

const (
	// gcPercent lets the heap, which is small, grow to five times what is in
	// use before it is collected; GOGC wins.
	gcPercent = 400
	// heapLimit has it collected more often beyond this many bytes, so that a
	// burst of large requests does not stay in memory; GOMEMLIMIT wins.
	heapLimit = 384 << 20
)

func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit)
	}
}

// startNode runs the node and its HTTP server until the context ends, then
// stops both gracefully.
func startNode(ctx context.Context, settings configs.Settings, logger *slog.Logger) (err error) {
	tuneMemory()
	o, err := nodeOptions(settings, nil, logger)
	if err != nil {
		return err
	}
	api, err := apiOptions(settings.Server, logger.With(logging.Component, logging.HTTP))
	if err != nil {
		return err
	}
	// Before anything is opened: the commonest mistake is a second node.
	listener, err := net.Listen("tcp", settings.Server.Bind)
	if err != nil {
		return fmt.Errorf("server.bind: %w", err)
	}
	defer listener.Close()
	registry := prometheus.NewRegistry()
	db, err := openDatabase(ctx, settings, logger, registry)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	o.DB, o.Registry = db, registry
	// Of several first blocks the node may know its own.
	several := (*node.OtherGenesisError)(nil)
	if _, err := initLedger(ctx, db, o.Key, settings.Keyring, o.Rules, logger); err != nil && !errors.As(err, &several) {
		if errors.Is(err, node.ErrAwaitsGenesis) && ctx.Err() != nil {
			return nil // told to stop
		}
		return err
	}
	n, err := node.Open(ctx, o)
	if err != nil {
		return err
	}
	orders, err := serveControl(ctx, settings.State.Path, n, logger)
	if err != nil {
		logger.Warn("orders such as `bigchaindb reindex` cannot be taken while the node runs", "error", err)
	} else {
		defer orders()
	}
	api.Registry = registry
	at := settings.Server
	at.Bind = listener.Addr().String()
	return serve(ctx, n, httpapi.New(n, api), listener, at.URL(), logger)
}

// nodeOptions are those of a node with the settings. Indexes, rules and key are
// judged, so nothing need be opened before; db may be nil for now.
func nodeOptions(settings configs.Settings, db statedb.DB, logger *slog.Logger) (o node.Options, err error) {
	o = node.Options{
		DB: db, StatePath: settings.State.Path, Keyring: settings.Keyring, ReassignDelay: settings.BacklogReassignDelay,
		MaxBacklog: settings.Server.Limits.Backlog, Logger: logger,
		Queries: node.QueryOptions{
			BatchRows: settings.Database.InternalQueryLimit, MaxRows: settings.Database.TotalQueryLimit, NoScans: !settings.Database.AllowScans,
		},
	}
	if o.Rules, err = rulesOf(settings); err != nil {
		return o, err
	}
	if o.Key, err = ledger.KeyPairFromPrivate(string(settings.KeyPair.Private)); err != nil {
		return o, fmt.Errorf("keypair.private: %w", err)
	}
	o.Indexes, err = indexes.All(settings.Indexes.Path)
	return o, err
}

// stopTime is how long running requests may take after the signal to stop.
const stopTime = 10 * time.Second

// serve runs node and server until ctx ends or one of them fails. The server
// stops first, so that what it accepted the node still finishes.
func serve(ctx context.Context, n *node.Node, server *httpapi.Server, listener net.Listener, url string, logger *slog.Logger) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	nodeEnd, serverEnd := make(chan error, 1), make(chan error, 1)
	go func() { nodeEnd <- n.Run(work) }()
	go func() { serverEnd <- server.Serve(listener) }()
	logger.Info("the node runs", "api", url+"/api/v1/", "public_key", n.PublicKey())

	stop := func() error {
		wait, done := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer done()
		if err := server.Shutdown(wait); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	}
	select {
	case <-ctx.Done():
		logger.Info("stopping")
		err := stop()
		cancel()
		return errors.Join(err, <-nodeEnd)
	case err := <-serverEnd:
		cancel()
		return errors.Join(err, <-nodeEnd)
	case err := <-nodeEnd:
		return errors.Join(err, stop())
	}
}
