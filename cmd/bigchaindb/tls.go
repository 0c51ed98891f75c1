package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/youmark/pkcs8"

	"github.com/couchledger/couchledger/configs"
)

// tlsConfig makes the TLS settings of a database server, whose files
// configs.Settings.CheckTLS has looked at; nil without database.ssl.
func tlsConfig(s configs.Database) (*tls.Config, error) {
	if !s.SSL {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CACert != "" {
		text, err := os.ReadFile(s.CACert)
		if err != nil {
			return nil, fmt.Errorf("database.ca_cert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("database.ca_cert: %s holds no certificate in PEM form", s.CACert)
		}
	}
	if s.CertFile != "" {
		pair, err := ownCertificate(s)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if s.CRLFile != "" {
		if _, err := readRevocations(s.CRLFile); err != nil {
			return nil, err
		}
		config.VerifyConnection = func(state tls.ConnectionState) error {
			// Read anew, since lists expire and are renewed in place.
			lists, err := readRevocations(s.CRLFile)
			if err != nil {
				return err
			}
			return checkRevocation(lists, state.VerifiedChains)
		}
	}
	return config, nil
}

// ownCertificate reads the node's own certificate and its private key, which
// stands in the same file where database.keyfile is not set.
func ownCertificate(s configs.Database) (tls.Certificate, error) {
	certificate, err := os.ReadFile(s.CertFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("database.certfile: %w", err)
	}
	setting, file, key := "database.certfile", s.CertFile, certificate
	if s.KeyFile != "" {
		setting, file = "database.keyfile", s.KeyFile
		if key, err = os.ReadFile(file); err != nil {
			return tls.Certificate{}, fmt.Errorf("%s: %w", setting, err)
		}
	}
	plain, err := decrypted(key, string(s.KeyFilePassphrase))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: the private key in %s %w", setting, file, err)
	}
	pair, err := tls.X509KeyPair(certificate, plain)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("database.certfile, database.keyfile: %w", err)
	}
	return pair, nil
}

// What is wrong with a private key, as the end of a sentence about it.
var (
	errNoPassphrase    = errors.New("is encrypted, and database.keyfile_passphrase is not set (better in the environment: BIGCHAINDB_DATABASE_KEYFILE_PASSPHRASE)")
	errWrongPassphrase = errors.New("cannot be decrypted: database.keyfile_passphrase is not its passphrase, or it is encrypted in a way that is not supported (PKCS#8 with PBKDF2 or scrypt and AES, or the older PEM encryption, are)")
)

// decrypted gives the private key of a PEM file in clear, as PEM. A file
// without an encrypted key is given as it is.
func decrypted(text []byte, passphrase string) ([]byte, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		legacy := strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
		if block.Type != "ENCRYPTED PRIVATE KEY" && !(legacy && strings.HasSuffix(block.Type, "PRIVATE KEY")) {
			continue
		}
		if passphrase == "" {
			return nil, errNoPassphrase
		}
		if legacy {
			//lint:ignore SA1019 a key on the operator's own disk; OpenSSL and MongoDB's documents have made such files for decades
			key, err := x509.DecryptPEMBlock(block, []byte(passphrase))
			// One wrong passphrase in 256 gives no error but noise.
			if rest, wrong := asn1.Unmarshal(key, &asn1.RawValue{}); err != nil || wrong != nil || len(rest) > 0 {
				return nil, errWrongPassphrase
			}
			return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: key}), nil
		}
		key, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes, []byte(passphrase))
		if err != nil {
			return nil, errWrongPassphrase
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("is of a kind that TLS does not have: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	}
	return text, nil
}
