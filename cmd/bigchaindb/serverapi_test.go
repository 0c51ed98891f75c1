package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/httpapi"
)

// writePair writes a certificate and its key as PEM files.
func writePair(t *testing.T, a *authority, folder, name, passphrase string) configs.ServerTLS {
	t.Helper()
	certificate, key := a.identity(name)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	kind := "PRIVATE KEY"
	if passphrase != "" {
		kind = "ENCRYPTED PRIVATE KEY"
		der, err = pkcs8.MarshalPrivateKey(key, []byte(passphrase), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := configs.ServerTLS{CertFile: filepath.Join(folder, name+".crt"), KeyFile: filepath.Join(folder, name+".key"), KeyFilePassphrase: configs.Secret(passphrase)}
	for file, text := range map[string][]byte{s.CertFile: inPEM("CERTIFICATE", certificate.Raw), s.KeyFile: inPEM(kind, der)} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestServerTLS(t *testing.T) {
	folder := t.TempDir()
	root := newAuthority(t, "root", nil)
	quiet := slog.New(slog.DiscardHandler)
	one, two := writePair(t, root, folder, "one", "sesame"), writePair(t, root, folder, "two", "")
	if config, err := serverTLS(one, quiet); err != nil || config.MinVersion != tls.VersionTLS12 {
		t.Errorf("an encrypted key: got %v", err)
	}
	if config, err := serverTLS(configs.ServerTLS{}, quiet); config != nil || err != nil {
		t.Errorf("none: got %v, %v", config, err)
	}
	for what, c := range map[string]struct {
		s     configs.ServerTLS
		parts []string
	}{
		"another's key":   {configs.ServerTLS{CertFile: one.CertFile, KeyFile: two.KeyFile}, []string{"server.tls.certfile, server.tls.keyfile"}},
		"no passphrase":   {configs.ServerTLS{CertFile: one.CertFile, KeyFile: one.KeyFile}, []string{"server.tls.keyfile", "BIGCHAINDB_SERVER_TLS_KEYFILE_PASSPHRASE"}},
		"a wrong one":     {configs.ServerTLS{CertFile: one.CertFile, KeyFile: one.KeyFile, KeyFilePassphrase: "hunter2"}, []string{"server.tls.keyfile_passphrase is not its passphrase"}},
		"no such file":    {configs.ServerTLS{CertFile: filepath.Join(folder, "no")}, []string{"server.tls.certfile", "no such file"}},
		"no key":          {configs.ServerTLS{CertFile: two.CertFile}, []string{"server.tls.certfile"}},
		"no certificate":  {configs.ServerTLS{KeyFile: two.KeyFile}, []string{"server.tls.keyfile is set and server.tls.certfile is not"}},
		"a key twice":     {configs.ServerTLS{CertFile: two.KeyFile, KeyFile: two.KeyFile}, []string{"server.tls.certfile"}},
		"not the file it": {configs.ServerTLS{CertFile: folder, KeyFile: two.KeyFile}, []string{"server.tls.certfile"}},
	} {
		_, err := serverTLS(c.s, quiet)
		if err == nil || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want one sentence", what, err)
			continue
		}
		for _, part := range c.parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %q in it", what, err, part)
			}
		}
	}
}

// TestRenewal: a pair that fits replaces the one in use, half of one does not.
func TestRenewal(t *testing.T) {
	folder := t.TempDir()
	root := newAuthority(t, "root", nil)
	s := writePair(t, root, folder, "node", "")
	now := time.Now()
	var log bytes.Buffer
	r := &renewed{files: certificateFiles{"server.tls", s.CertFile, s.KeyFile, ""}, log: slog.New(slog.NewTextHandler(&log, nil)), now: func() time.Time { return now }}
	if err := r.read(); err != nil {
		t.Fatal(err)
	}
	shown := func() []byte {
		pair, err := r.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Certificate[0]
	}
	first := shown()
	fresh := writePair(t, root, t.TempDir(), "node", "")
	rename := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	rename(fresh.CertFile, s.CertFile)
	for range 3 {
		now = now.Add(lookEvery)
		if !bytes.Equal(shown(), first) {
			t.Fatal("a certificate without its key is in use")
		}
	}
	if strings.Count(log.String(), "the one before stays") != 1 {
		t.Errorf("got log %s, want one warning", log.String())
	}
	rename(fresh.KeyFile, s.KeyFile)
	if !bytes.Equal(shown(), first) {
		t.Error("the files are looked at for each connection")
	}
	now = now.Add(lookEvery)
	if bytes.Equal(shown(), first) {
		t.Errorf("the new certificate is not in use: %s", log.String())
	}
}

func TestConnectionLimit(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	for _, c := range []struct{ setting, files, want int }{
		{0, 1_000_000, httpapi.DefaultMaxConnections}, {0, 20_000, 10_000}, {0, 9_000, 4_904}, {0, 1024, 512}, {0, 0, 0}, {5, 1024, 5}, {50_000, 0, 50_000},
	} {
		if got := connections(c.setting, c.files, logger); got != c.want || log.Len() > 0 {
			t.Errorf("connections(%d, %d): got %d, want %d; log %q", c.setting, c.files, got, c.want, log.String())
		}
	}
	if connections(5000, 1024, logger) != 5000 || !strings.Contains(log.String(), "server.limits.connections leaves too few files") {
		t.Errorf("more than the process may open: got log %q", log.String())
	}
}

func TestTokenCommand(t *testing.T) {
	u := newUser(t)
	for _, c := range []struct {
		line string
		may  []string
	}{{"token alice", configs.Rights}, {"token --may query alice", []string{"query"}}, {"token alice --may post,query", configs.Rights}} {
		code, token, said := u.run(c.line, "")
		token = strings.TrimSpace(token)
		entry, err := configs.NewToken("alice", httpapi.HashToken(token), c.may)
		if err != nil || code != 0 || !strings.Contains(said, entry.Text()) || !strings.Contains(said, string(entry.Value().Bytes())) || strings.Contains(said, token) {
			t.Errorf("%s: got code %d, %q, %v", c.line, code, said, err)
		}
	}
	u.must(2, "token", "", "token takes one name")
	u.must(2, "token a b", "", "token takes one name")
	u.must(2, "token a=b", "", "the name is not")
	u.must(2, "token a --may everything", "", "the rights are not of")
}

// TestNodeAccess verifies a node over TLS that wants a token.
func TestNodeAccess(t *testing.T) {
	token := httpapi.NewToken()
	plain := servedLedger(t, httpapi.Options{Tokens: []httpapi.Token{{Name: "a", Hash: httpapi.HashToken(token), May: httpapi.MayQuery}}})
	ts := httptest.NewTLSServer(plain)
	defer ts.Close()
	u := newUser(t)
	ca := u.write("ca.pem", string(inPEM("CERTIFICATE", ts.Certificate().Raw)))
	line := "verify --url " + ts.URL
	u.must(2, line, "", "certificate")
	u.must(2, line+" --ca-cert "+u.file("none"), "", "--ca-cert", "no such file")
	u.must(2, line+" --ca-cert "+u.write("bad.pem", "x"), "", "--ca-cert", "no certificate in PEM form")
	u.must(2, line+" --ca-cert "+ca, "", "a token is needed")
	u.environ = append(u.environ, configs.EnvToken+"="+token)
	u.must(0, line+" --ca-cert "+ca, "")
	u.must(2, "verify --url https://bob:hunter2@localhost", "", "a node takes a token")
}
