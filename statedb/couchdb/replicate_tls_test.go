package couchdb

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

// authority is a certificate authority of its own, with one certificate for localhost.
type authority struct {
	pool          *x509.CertPool
	ca, cert, key string // files
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	folder := t.TempDir()
	made := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, signer = template, key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return certificate, key
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	root, rootKey := made(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	leaf, leafKey := made(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, rootKey)
	secret, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{pool: x509.NewCertPool()}
	a.pool.AddCert(root)
	a.ca, a.cert, a.key = write("ca.pem", "CERTIFICATE", root.Raw), write("cert.pem", "CERTIFICATE", leaf.Raw), write("key.pem", "PRIVATE KEY", secret)
	return a
}

// CouchDBs copy from each other over TLS and check certificates, though each node
// reaches its own without.
func TestPeersOverTLS(t *testing.T) {
	a := newAuthority(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	server := couchtest.Start(t, "[ssl]", "enable = true", fmt.Sprintf("port = %d", port), "cert_file = "+a.cert, "key_file = "+a.key)
	own := couchtest.Start(t, "[replicator]", "verify_ssl_certificates = true", "ssl_trusted_certificates_file = "+a.ca)
	opts := optionsFor(own.Address)
	opts.PeerTLS = &tls.Config{RootCAs: a.pool}
	var log bytes.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	f := &federated{t: t, server: server, here: made(t, opts), there: made(t, optionsFor(server.Address))}
	f.peer = statedb.Peer{URL: fmt.Sprintf("https://localhost:%d", port), Name: f.there.opts.Name, User: "friend"}
	if f.peer.Password, err = f.there.AllowReader(t.Context(), "friend", copiedInTests); err != nil {
		t.Fatal(err)
	}

	opts.PeerTLS = nil
	stranger := open(t, opts)
	defer stranger.Close()
	if _, err := stranger.ReadPeer(t.Context(), f.peer, statedb.Votes, "x1"); err == nil || !strings.Contains(err.Error(), "database.ca_cert") {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	if _, err := f.here.ReadPeer(t.Context(), f.peer, statedb.Votes, "x1"); err != nil {
		t.Fatal(err)
	}
	if err := f.here.AddPeer(t.Context(), f.peer, copiedInTests); err != nil {
		t.Fatal(err)
	}
	const careless = "does not check whose certificate"
	if strings.Contains(log.String(), careless) {
		t.Errorf("the log says %s", &log)
	}
	own.Do(t, http.MethodPut, "/_node/_local/_config/replicator/verify_ssl_certificates", `"false"`, http.StatusOK)
	if err := f.here.AddPeer(t.Context(), f.peer, copiedInTests); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), careless) {
		t.Errorf("the log says %s", &log)
	}
	own.Do(t, http.MethodPut, "/_node/_local/_config/replicator/verify_ssl_certificates", `"true"`, http.StatusOK)
	f.write(f.there, statedb.Votes, statedb.Write{ID: "x1", Body: []byte(`{"n":1}`)})
	f.await(statedb.Votes, "x1")
	f.eventually("all is copied", func() bool {
		peers, err := f.here.Peers(t.Context())
		return err == nil && len(peers) == 1 && peers[0].Tables[2].State == "running" && peers[0].Tables[2].Lag == 0
	})
	server.Kill()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	f.write(f.there, statedb.Votes, statedb.Write{ID: "x2", Body: []byte(`{"n":2}`)})
	f.await(statedb.Votes, "x2")
}
