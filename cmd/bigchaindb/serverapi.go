package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/httpapi"
)

// apiOptions makes the HTTP server's options of its settings.
func apiOptions(s configs.Server, logger *slog.Logger) (httpapi.Options, error) {
	security, err := serverTLS(s.TLS, logger)
	if err != nil {
		return httpapi.Options{}, err
	}
	tokens := make([]httpapi.Token, len(s.Tokens))
	for i, t := range s.Tokens {
		tokens[i] = httpapi.Token{Name: t.Name, Hash: t.Hash, May: rightsOf(t.May)}
	}
	limits := s.Limits
	return httpapi.Options{
		Version: ownVersion, TrustForwarded: s.TrustForwarded, MaxRequests: s.MaxConcurrent(), TLS: security,
		HeaderTimeout: limits.HeaderTimeout, ReadTimeout: limits.ReadTimeout, WriteTimeout: limits.WriteTimeout, IdleTimeout: limits.IdleTimeout,
		MaxBodyBytes: int64(limits.BodyBytes), MaxHeaderBytes: limits.HeaderBytes,
		MaxConnections: connections(limits.Connections, openFiles(), logger), MaxClientConnections: clientConnections(s),
		Rate: limits.RequestsPerSecond, Burst: limits.Burst,
		Origins: s.CORSOrigins, Tokens: tokens, Anonymous: rightsOf(s.Anonymous),
		Logger: logger,
	}, nil
}

// clientConnections is the bound for one client address: none where all
// connections are the proxy's.
func clientConnections(s configs.Server) int {
	if s.TrustForwarded {
		return 0
	}
	return s.Limits.ConnectionsPerClient
}

// rightsOf takes names of configs.Rights, which the settings have checked.
func rightsOf(names []string) (all httpapi.Rights) {
	for _, name := range names {
		all |= map[string]httpapi.Rights{"post": httpapi.MayPost, "query": httpapi.MayQuery}[name]
	}
	return all
}

// keptFiles are left for the databases and the log: of the files that the
// process may open half, and this many at most.
const keptFiles = 4096

// connections is how many connections the server may have open when the process
// may open so many files, 0 for no bound that is known.
func connections(setting, files int, logger *slog.Logger) int {
	room := files - min(keptFiles, files/2)
	switch {
	case setting == 0 && files > 0:
		return min(httpapi.DefaultMaxConnections, room)
	case setting > room && files > 0:
		logger.Warn("server.limits.connections leaves too few files for the databases: let the process open more (ulimit -n), or set less",
			"connections", setting, "open_files", files)
	}
	return setting
}

// serverTLS makes the TLS settings of the server; nil without a certificate.
// The certificate is read anew when its files change.
func serverTLS(s configs.ServerTLS, logger *slog.Logger) (*tls.Config, error) {
	if s.CertFile == "" {
		if s.KeyFile != "" {
			return nil, errors.New("server.tls.keyfile is set and server.tls.certfile is not: a private key serves nothing without its certificate")
		}
		return nil, nil
	}
	r := &renewed{files: certificateFiles{"server.tls", s.CertFile, s.KeyFile, s.KeyFilePassphrase}, log: logger, now: time.Now}
	if err := r.read(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: r.get}, nil
}

// renewed is a certificate that authorities renew in place.
type renewed struct {
	files certificateFiles
	log   *slog.Logger
	now   func() time.Time

	mu     sync.Mutex
	pair   tls.Certificate
	stamp  [sha256.Size]byte // of the files that were read, or could not be
	looked time.Time
}

// lookEvery is how often the files are looked at.
const lookEvery = time.Second

// get gives each new connection the certificate of now. A pair that does not
// fit, perhaps as only one file is renewed yet, leaves the one before in use.
func (r *renewed) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); now.Sub(r.looked) >= lookEvery {
		r.looked = now
		if r.stamp != r.files.stamp() {
			if err := r.read(); err != nil {
				r.log.Warn("the new certificate cannot be used, the one before stays", "error", err)
			} else {
				r.log.Info("the certificate was read anew", "file", r.files.certFile)
			}
		}
	}
	pair := r.pair
	return &pair, nil
}

func (r *renewed) read() error {
	r.stamp = r.files.stamp()
	pair, err := r.files.load()
	if err == nil {
		r.pair = pair
	}
	return err
}

// stamp changes when what stands in one of the files does. Their times and
// sizes may well be those of the files before.
func (f certificateFiles) stamp() [sha256.Size]byte {
	var all []byte
	for _, path := range []string{f.certFile, f.keyFile} {
		text, _ := os.ReadFile(path) // load tells what is wrong
		all = append(append(all, text...), 0)
	}
	return sha256.Sum256(all)
}
