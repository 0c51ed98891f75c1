package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"github.com/couchledger/couchledger/configs"
)

// authority is one that signs certificates and lists of revoked ones.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         crypto.Signer
}

// newAuthority makes one that the issuer signs, or a root without an issuer.
func newAuthority(t *testing.T, name string, issuer *authority) *authority {
	a := &authority{t: t, key: newKey(t)}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if issuer == nil {
		issuer = &authority{t: t, certificate: template, key: a.key}
	}
	a.certificate = issuer.sign(template, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate
}

// identity makes a certificate for a server on 127.0.0.1 and for a client.
func (a *authority) identity(name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	key := newKey(a.t)
	return a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key), key
}

// revoked makes a list that is in force from one moment to another, seen from now.
func (a *authority) revoked(from, until time.Duration, extensions []pkix.Extension, certificates ...*x509.Certificate) []byte {
	a.t.Helper()
	list := &x509.RevocationList{
		Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(from), NextUpdate: time.Now().Add(until), ExtraExtensions: extensions,
	}
	for _, c := range certificates {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func inPEM(kind string, ders ...[]byte) []byte {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return text
}

// tlsServer answers "ok" to clients that have a certificate of the authority.
func tlsServer(t *testing.T, clients *authority, key crypto.PrivateKey, chain ...*x509.Certificate) (address string) {
	t.Helper()
	pair := tls.Certificate{PrivateKey: key}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(clients.certificate)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				c.Write([]byte("ok"))
			}()
		}
	}()
	return listener.Addr().String()
}

// reach asks a server over TLS as the settings have it.
func reach(address string, s configs.Database) error {
	config, err := tlsConfig(s)
	if err != nil {
		return err
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	c, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != "ok" {
		err = errors.New("got " + string(answer))
	}
	return err
}

// tlsFolder writes files for database.ca_cert and the like.
type tlsFolder struct {
	t    *testing.T
	path string
}

func (f tlsFolder) write(name string, parts ...[]byte) string {
	f.t.Helper()
	path := filepath.Join(f.path, name)
	if err := os.WriteFile(path, slices.Concat(parts...), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func TestTLSKeys(t *testing.T) {
	root := newAuthority(t, "root", nil)
	server, serverKey := root.identity("db")
	address := tlsServer(t, root, serverKey, server)
	own, ownKey := root.identity("node")
	files := tlsFolder{t, t.TempDir()}
	const passphrase = "correct horse"

	plain, err := x509.MarshalPKCS8PrivateKey(ownKey)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := func(opts *pkcs8.Opts) []byte {
		der, err := pkcs8.MarshalPrivateKey(ownKey, []byte(passphrase), opts)
		if err != nil {
			t.Fatal(err)
		}
		return inPEM("ENCRYPTED PRIVATE KEY", der)
	}
	sec1, err := x509.MarshalECPrivateKey(ownKey)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 such files are there
	block, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", sec1, []byte(passphrase), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	certificate := inPEM("CERTIFICATE", own.Raw)
	s := configs.Database{
		Backend: configs.MongoDB, SSL: true, CACert: files.write("ca.pem", inPEM("CERTIFICATE", root.certificate.Raw)),
		CertFile: files.write("cert.pem", certificate),
	}
	for name, key := range map[string][]byte{
		"plain":  inPEM("PRIVATE KEY", plain),
		"PBKDF2": encrypted(nil),
		"scrypt": encrypted(&pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{
			SaltSize: 8, CostParameter: 1 << 10, BlockSize: 8, ParallelizationParameter: 1,
		}}),
		"legacy": pem.EncodeToMemory(block),
	} {
		apart, together := s, s
		apart.KeyFile = files.write(name+".pem", key)
		together.CertFile = files.write(name+"-both.pem", key, certificate)
		for where, s := range map[string]configs.Database{"apart": apart, "together": together} {
			if err := (configs.Settings{Database: s}).CheckTLS(); err != nil {
				t.Errorf("%s, %s: %v", name, where, err)
			}
			s.KeyFilePassphrase = passphrase
			if err := reach(address, s); err != nil {
				t.Errorf("%s, %s: %v", name, where, err)
			}
			if name == "plain" {
				continue
			}
			for range 5 { // a wrong one may give noise
				s.KeyFilePassphrase = "wrong horse"
				err := reach(address, s)
				mustSay(t, name+", wrong passphrase", err, "database.keyfile_passphrase is not its passphrase", files.path)
				if err != nil && strings.Contains(err.Error(), "horse") {
					t.Errorf("%s: the error shows the passphrase: %v", name, err)
				}
			}
			s.KeyFilePassphrase = ""
			mustSay(t, name+", no passphrase", reach(address, s), "is encrypted", "BIGCHAINDB_DATABASE_KEYFILE_PASSPHRASE")
		}
	}
	s.CertFile = ""
	if reach(address, s) == nil {
		t.Error("the server does not ask for a certificate, so nothing was tested")
	}
	other, _ := root.identity("other")
	s.CertFile, s.KeyFile = files.write("other.pem", inPEM("CERTIFICATE", other.Raw)), filepath.Join(files.path, "plain.pem")
	mustSay(t, "another's key", reach(address, s), "database.certfile, database.keyfile", "does not match")
}

func mustSay(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %q", what, parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v, want %q in it", what, err, part)
		}
	}
}

func TestTLSRevocation(t *testing.T) {
	root := newAuthority(t, "root", nil)
	between := newAuthority(t, "between", root)
	impostor := newAuthority(t, "root", nil) // the same name, another key
	direct, directKey := root.identity("direct")
	below, belowKey := between.identity("below")
	addressDirect := tlsServer(t, root, directKey, direct)
	addressBelow := tlsServer(t, root, belowKey, below, between.certificate)
	own, ownKey := root.identity("node")
	key, err := x509.MarshalPKCS8PrivateKey(ownKey)
	if err != nil {
		t.Fatal(err)
	}
	files := tlsFolder{t, t.TempDir()}
	s := configs.Database{
		Backend: configs.CouchDB, SSL: true, CACert: files.write("ca.pem", inPEM("CERTIFICATE", root.certificate.Raw)),
		CertFile: files.write("own.pem", inPEM("CERTIFICATE", own.Raw), inPEM("PRIVATE KEY", key)),
	}
	const hour = time.Hour
	none := root.revoked(-hour, hour, nil)
	partial := []pkix.Extension{{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
	for name, c := range map[string]struct {
		address string
		lists   []byte
		want    string // in the error; "" for none
	}{
		"nothing revoked":        {addressDirect, inPEM("X509 CRL", none), ""},
		"DER":                    {addressDirect, none, ""},
		"another revoked":        {addressDirect, inPEM("X509 CRL", root.revoked(-hour, hour, nil, own, below)), ""},
		"revoked":                {addressDirect, inPEM("X509 CRL", root.revoked(-hour, hour, nil, own, direct)), `the certificate of "CN=direct" was revoked by "CN=root"`},
		"revoked, DER":           {addressDirect, root.revoked(-hour, hour, nil, direct), "was revoked"},
		"expired":                {addressDirect, inPEM("X509 CRL", root.revoked(-hour, -time.Minute, nil)), `the revocation list of "CN=root" expired at`},
		"not in force yet":       {addressDirect, inPEM("X509 CRL", root.revoked(time.Minute, hour, nil)), "is not in force before"},
		"an old and a new list":  {addressDirect, inPEM("X509 CRL", root.revoked(-2*hour, -hour, nil, direct), none), ""},
		"a new and an old list":  {addressDirect, inPEM("X509 CRL", none, root.revoked(-2*hour, -hour, nil, direct)), ""},
		"a later list, too":      {addressDirect, inPEM("X509 CRL", root.revoked(time.Minute, hour, nil, direct), none), ""},
		"another authority's":    {addressDirect, inPEM("X509 CRL", between.revoked(-hour, hour, nil)), `there is no revocation list signed by "CN=root"`},
		"an impostor's":          {addressDirect, inPEM("X509 CRL", impostor.revoked(-hour, hour, nil)), `there is no revocation list signed by "CN=root"`},
		"an impostor's, too":     {addressDirect, inPEM("X509 CRL", impostor.revoked(-hour, hour, nil, direct), none), ""},
		"part of a list":         {addressDirect, inPEM("X509 CRL", root.revoked(-hour, hour, partial)), "the whole list is needed"},
		"no list":                {addressDirect, inPEM("CERTIFICATE", own.Raw), "holds no certificate revocation list"},
		"garbage":                {addressDirect, []byte("garbage"), "no certificate revocation list"},
		"its issuer's list":      {addressBelow, inPEM("X509 CRL", between.revoked(-hour, hour, nil)), ""},
		"both lists":             {addressBelow, inPEM("X509 CRL", none, between.revoked(-hour, hour, nil)), ""},
		"the root's list alone":  {addressBelow, inPEM("X509 CRL", none), `no revocation list signed by "CN=between"`},
		"revoked below":          {addressBelow, inPEM("X509 CRL", none, between.revoked(-hour, hour, nil, below)), `the certificate of "CN=below"`},
		"its issuer is revoked":  {addressBelow, inPEM("X509 CRL", root.revoked(-hour, hour, nil, between.certificate), between.revoked(-hour, hour, nil)), `the certificate of "CN=between"`},
		"the root's list is old": {addressBelow, inPEM("X509 CRL", root.revoked(-hour, -time.Minute, nil), between.revoked(-hour, hour, nil)), "expired"},
	} {
		s.CRLFile = files.write("crl", c.lists)
		switch err := reach(c.address, s); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "":
			mustSay(t, name, err, "database.crlfile", c.want)
		}
	}

	// A list that is renewed in place counts for the next connection.
	s.CRLFile = files.write("crl", inPEM("X509 CRL", none))
	config, err := tlsConfig(s)
	if err != nil {
		t.Fatal(err)
	}
	files.write("crl", inPEM("X509 CRL", root.revoked(-time.Minute, hour, nil, direct)))
	_, err = tls.Dial("tcp", addressDirect, config)
	mustSay(t, "a renewed list", err, "was revoked")

	// A certificate that is trusted by itself has nobody to revoke it.
	s.CACert = files.write("direct.pem", inPEM("CERTIFICATE", direct.Raw))
	s.CRLFile = files.write("crl", inPEM("X509 CRL", none))
	if err := reach(addressDirect, s); err != nil {
		t.Errorf("trusted by itself: %v", err)
	}
}
