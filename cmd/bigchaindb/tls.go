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
		var err error
		if config.RootCAs, err = authorities("database.ca_cert", s.CACert); err != nil {
			return nil, err
		}
	}
	if s.CertFile != "" {
		pair, err := databaseFiles(s).load()
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

// peerTLS makes the TLS settings for other operators' databases. Each may have its
// certificate from an authority of its own, so the system's count, too.
func peerTLS(s configs.Database) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CACert == "" {
		return config, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // there is none on this system
	}
	config.RootCAs, err = addAuthorities(pool, "database.ca_cert", s.CACert)
	return config, err
}

// authorities reads the certificates of a PEM file that a setting or a flag
// names.
func authorities(setting, file string) (*x509.CertPool, error) {
	return addAuthorities(x509.NewCertPool(), setting, file)
}

func addAuthorities(pool *x509.CertPool, setting, file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM form", setting, file)
	}
	return pool, nil
}

// certificateFiles are the settings that name a certificate and its private
// key, which stands in the same file where keyFile is not set.
type certificateFiles struct {
	section    string // such as database
	certFile   string
	keyFile    string
	passphrase configs.Secret
}

func databaseFiles(s configs.Database) certificateFiles {
	return certificateFiles{"database", s.CertFile, s.KeyFile, s.KeyFilePassphrase}
}

func (f certificateFiles) load() (tls.Certificate, error) {
	setting, file := f.section+".certfile", f.certFile
	certificate, err := os.ReadFile(file)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", setting, err)
	}
	key := certificate
	if f.keyFile != "" {
		setting, file = f.section+".keyfile", f.keyFile
		if key, err = os.ReadFile(file); err != nil {
			return tls.Certificate{}, fmt.Errorf("%s: %w", setting, err)
		}
	}
	plain, err := decrypted(key, string(f.passphrase))
	switch passphrase := f.section + ".keyfile_passphrase"; {
	case errors.Is(err, errNoPassphrase):
		return tls.Certificate{}, fmt.Errorf("%s: the private key in %s is encrypted, and %s is not set (better in the environment: %s)",
			setting, file, passphrase, configs.EnvName(passphrase))
	case errors.Is(err, errWrongPassphrase):
		return tls.Certificate{}, fmt.Errorf("%s: the private key in %s cannot be decrypted: %s is not its passphrase, or it is encrypted in a way that is not supported (PKCS#8 with PBKDF2 or scrypt and AES, or the older PEM encryption, are)",
			setting, file, passphrase)
	case err != nil:
		return tls.Certificate{}, fmt.Errorf("%s: the private key in %s %w", setting, file, err)
	}
	pair, err := tls.X509KeyPair(certificate, plain)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.certfile, %s.keyfile: %w", f.section, f.section, err)
	}
	return pair, nil
}

// What is wrong with a private key.
var (
	errNoPassphrase    = errors.New("it is encrypted")
	errWrongPassphrase = errors.New("it cannot be decrypted")
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
