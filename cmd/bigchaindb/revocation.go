package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// A certificate of the database's server is checked against database.crlfile as
// OpenSSL does it for clients that ask for it: the issuer of the server's own
// certificate must have a list there which is signed by it and in force, and
// the certificate must not be on it. A missing or expired list fails the
// connection, since it may be missing to hide a revocation. Authorities between
// the server's certificate and the root are checked by the lists that there are
// of their issuers. A certificate that is trusted by itself, being one of
// database.ca_cert, has nobody who could revoke it.

// readRevocations reads the revocation lists of a file: any number in PEM, or
// one in DER.
func readRevocations(file string) ([]*x509.RevocationList, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("database.crlfile: %w", err)
	}
	var encoded [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			encoded = append(encoded, block.Bytes)
		}
	}
	if block, _ := pem.Decode(data); block == nil {
		encoded = [][]byte{data}
	}
	var lists []*x509.RevocationList
	for _, der := range encoded {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("database.crlfile: %s holds something that is no certificate revocation list in PEM or DER form: %w", file, err)
		}
		for _, extension := range list.Extensions {
			if extension.Critical {
				// Such as a delta list's, or that of one distribution point.
				return nil, fmt.Errorf("database.crlfile: %s holds a list of some of an authority's certificates (critical extension %s); the whole list is needed", file, extension.Id)
			}
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("database.crlfile: %s holds no certificate revocation list", file)
	}
	return lists, nil
}

// checkRevocation returns nil when one of the chains, of which each has the
// server's certificate first and a trusted one last, has nothing revoked in it.
func checkRevocation(lists []*x509.RevocationList, chains [][]*x509.Certificate) error {
	fault := errors.New("database.crlfile: the server's certificate was not verified")
	for _, chain := range chains {
		if fault = checkChain(lists, chain, time.Now()); fault == nil {
			return nil
		}
	}
	return fault
}

func checkChain(lists []*x509.RevocationList, chain []*x509.Certificate, now time.Time) error {
	for i, certificate := range chain[:len(chain)-1] {
		list := listOf(lists, chain[i+1], now)
		if list == nil {
			if i == 0 {
				return fmt.Errorf("database.crlfile: there is no revocation list signed by %q, which issued the server's certificate", chain[1].Subject)
			}
			continue
		}
		switch {
		case now.Before(list.ThisUpdate):
			return fmt.Errorf("database.crlfile: the revocation list of %q is not in force before %s", list.Issuer, list.ThisUpdate.Format(time.RFC3339))
		case !list.NextUpdate.IsZero() && now.After(list.NextUpdate):
			return fmt.Errorf("database.crlfile: the revocation list of %q expired at %s; get the new one", list.Issuer, list.NextUpdate.Format(time.RFC3339))
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
				return fmt.Errorf("database.crlfile: the certificate of %q was revoked by %q at %s (serial number %x)",
					certificate.Subject, list.Issuer, entry.RevocationTime.Format(time.RFC3339), certificate.SerialNumber)
			}
		}
	}
	return nil
}

// listOf finds the newest list that the authority signed; nil when there is
// none. One that is not in force yet is taken only where there is no other.
func listOf(lists []*x509.RevocationList, authority *x509.Certificate, now time.Time) (best *x509.RevocationList) {
	for _, list := range lists {
		if !bytes.Equal(list.RawIssuer, authority.RawSubject) || list.CheckSignatureFrom(authority) != nil {
			continue
		}
		if best == nil || best.ThisUpdate.After(now) || list.ThisUpdate.After(best.ThisUpdate) && !list.ThisUpdate.After(now) {
			best = list
		}
	}
	return best
}
