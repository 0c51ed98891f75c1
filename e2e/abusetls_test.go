package e2e

import (
	"bytes"
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
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/couchledger/couchledger/node/ledger"
)

// certificate makes a certificate for 127.0.0.1 that is its own authority, and
// writes it and its key as PEM files.
func certificate(t testing.TB, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, content := range map[string][]byte{certFile: text, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain})} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// newTLSNode makes a node that speaks TLS, and has its client know the
// certificate in the file that it returns.
func newTLSNode(t testing.TB, environ ...string) (n *node, certFile string) {
	n = newNode(t, environ...)
	certFile = n.file("cert.pem")
	n.trust(certificate(t, certFile, n.file("key.pem")))
	n.environ = append(n.environ, "BIGCHAINDB_SERVER_TLS_CERTFILE="+certFile, "BIGCHAINDB_SERVER_TLS_KEYFILE="+n.file("key.pem"))
	return n, certFile
}

// trust has a node's client speak TLS and know these authorities.
func (n *node) trust(authorities *x509.CertPool) {
	n.scheme = "https"
	transport := n.http.Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: authorities}
	transport.ForceAttemptHTTP2 = true
}

// TestAbuseTLS resets HTTP/2 streams as fast as it can, sends headers without
// end, and leaves handshakes half done. Meanwhile a good client reads and posts.
func TestAbuseTLS(t *testing.T) {
	size, environ := abuseRun(t)
	n, _ := newTLSNode(t, environ...)
	n.start()
	good := startGoodClient(t, n)
	before := n.footprint()
	a := newAttack(t, n, size)
	a.each(a.slow, a.stay(""))
	a.each(a.slow, a.stay("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")) // a handshake's begin
	a.each(a.slow, a.trickle("\x16\x03\x01\x02\x00\x01\x00", "\x00"))      // and one that trickles
	a.each(a.slow, a.stay("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))            // no TLS
	rounds := 0
	for began := time.Now(); rounds == 0 || time.Since(began) < a.lasts; rounds++ {
		var round sync.WaitGroup
		for _, work := range []frames{a.resetStreams, a.resetStreams, endlessHeader, hugeHeader, manyPings} {
			if conn := a.open(); conn != nil {
				round.Go(func() { a.overHTTP2(conn, work) })
			}
		}
		round.Wait()
	}
	good.end(t)
	a.end()
	t.Logf("%d rounds, each with up to %d streams opened and reset", rounds, 2*a.resets)
	n.wantBackTo(t, before)
	n.mustBecomeValid(t, create(t, ledger.GenerateKeyPair()))
	if tail := n.tail(10_000); strings.Contains(tail, "panic") {
		t.Error("the log has a panic")
	}
}

// frames sends what it likes over HTTP/2.
type frames func(*http2.Framer, *hpack.Encoder, *bytes.Buffer) error

// overHTTP2 shakes hands for HTTP/2 and has work send frames until the node has
// had enough.
func (a *attack) overHTTP2(conn *net.TCPConn, work frames) {
	roots := a.n.http.Transport.(*http.Transport).TLSClientConfig.RootCAs
	secure := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"h2"}})
	if err := secure.Handshake(); err != nil {
		a.t.Errorf("a handshake for abuse: %v", err)
		return
	}
	if _, err := io.WriteString(secure, http2.ClientPreface); err != nil {
		return
	}
	framer := http2.NewFramer(secure, secure)
	if framer.WriteSettings() != nil {
		return
	}
	a.all.Go(func() { _, _ = io.Copy(io.Discard, secure) }) // until one side ends it
	var block bytes.Buffer
	err := work(framer, hpack.NewEncoder(&block), &block)
	if errors.Is(err, errNotCut) {
		a.t.Error(err)
	}
	conn.Close()
}

var errNotCut = errors.New("HTTP/2: the node let a header without end go on")

// request encodes a GET's header.
func request(enc *hpack.Encoder, block *bytes.Buffer, more ...hpack.HeaderField) []byte {
	block.Reset()
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/api/v1"},
	}, more...) {
		_ = enc.WriteField(field) // to memory
	}
	return block.Bytes()
}

// resetStreams opens streams and resets each at once.
func (a *attack) resetStreams(framer *http2.Framer, enc *hpack.Encoder, block *bytes.Buffer) error {
	for id := uint32(1); id < uint32(2*a.resets); id += 2 {
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: request(enc, block), EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		if err := framer.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	return nil
}

// endlessHeader continues a header for ever.
func endlessHeader(framer *http2.Framer, enc *hpack.Encoder, block *bytes.Buffer) error {
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: request(enc, block)}); err != nil {
		return err
	}
	block.Reset()
	for range 100 {
		_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 100), Sensitive: true}) // to memory, in full
	}
	const enough = 100_000 // a gigabyte
	for range enough {
		if err := framer.WriteContinuation(1, false, block.Bytes()); err != nil {
			return err
		}
	}
	return errNotCut
}

// hugeHeader sends one header of a megabyte.
func hugeHeader(framer *http2.Framer, enc *hpack.Encoder, block *bytes.Buffer) error {
	header := request(enc, block, hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 1<<20), Sensitive: true})
	const most = 16 << 10 // bytes of a frame
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header[:most], EndStream: true}); err != nil {
		return err
	}
	for header = header[most:]; len(header) > 0; {
		part := header[:min(most, len(header))]
		header = header[len(part):]
		if err := framer.WriteContinuation(1, len(header) == 0, part); err != nil {
			return err
		}
	}
	return nil
}

// manyPings asks for answers that nobody reads fast enough.
func manyPings(framer *http2.Framer, _ *hpack.Encoder, _ *bytes.Buffer) error {
	for range 20_000 {
		if err := framer.WritePing(false, [8]byte{}); err != nil {
			return err
		}
		if err := framer.WriteSettings(); err != nil {
			return err
		}
	}
	return nil
}

// TestTLSRenewal puts a new certificate in place of the old one while the node
// runs: new connections get it, and the connections that are open stay.
func TestTLSRenewal(t *testing.T) {
	n, certFile := newTLSNode(t)
	n.start()
	n.get(t, "/api/v1/")
	conn, err := tls.Dial("tcp", n.addr, &tls.Config{RootCAs: n.http.Transport.(*http.Transport).TLSClientConfig.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stale := conn.ConnectionState().PeerCertificates[0]
	fresh := certificate(t, certFile, n.file("key.pem"))
	eventually(t, "the new certificate is shown", func() (bool, string) {
		next, err := tls.Dial("tcp", n.addr, &tls.Config{RootCAs: fresh})
		if err == nil {
			next.Close()
		}
		return err == nil, ""
	})
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if status, _, err := newResponses(conn).next(); status != http.StatusOK || err != nil {
		t.Errorf("a connection from before: got %d, %v", status, err)
	}
	// A file that is no certificate leaves the one before in use, and says so.
	if err := os.WriteFile(certFile, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log tells of the bad file", func() (bool, string) {
		next, err := tls.Dial("tcp", n.addr, &tls.Config{RootCAs: fresh})
		if err != nil {
			t.Fatal(err)
		}
		if next.ConnectionState().PeerCertificates[0].Equal(stale) {
			t.Fatal("the first certificate is back")
		}
		next.Close()
		return strings.Contains(n.tail(20), "the one before stays"), ""
	})
	n.stop()
	n.wantRefusal(t, []string{"start"}, "server.tls.certfile")
}
