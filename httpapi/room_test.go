package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node/ledger"
)

// hugeBlocks is a node whose blocks are all as large as they may be.
type hugeBlocks struct{ *fakenode.Node }

func (hugeBlocks) Block(context.Context, string) ([]byte, error) {
	return bytes.Repeat([]byte{' '}, ledger.MaxBlockBytes), nil
}

// TestUnreadDocuments: clients that ask for large documents and do not read
// them take the room of all answers; they lose it to those that wait for it.
func TestUnreadDocuments(t *testing.T) {
	s, base := start(t, hugeBlocks{fakenode.New()}, Options{})
	id := strings.Repeat("a", 64)
	var unread []net.Conn
	for range 2 * documentRoom / ledger.MaxBlockBytes {
		conn := dialRaw(t, base, "")
		// Else the system takes it all.
		if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		unread = append(unread, conn)
		fmt.Fprintf(conn, "GET /api/v1/blocks/%s HTTP/1.1\r\nHost: x\r\n\r\n", id)
	}
	free := func() int64 {
		s.documents.mu.Lock()
		defer s.documents.mu.Unlock()
		return s.documents.free
	}
	eventually(t, "the room is not taken", func() bool { return free() < ledger.MaxBlockBytes })
	if got := get(t, base+"/api/v1/blocks/"+id); got.status != 200 || len(got.body) != ledger.MaxBlockBytes {
		t.Errorf("a client that reads: got status %d, %d bytes", got.status, len(got.body))
	}
	if metric(t, s, "couchledger_http_connections_evicted_total") == 0 {
		t.Error("nobody was cut")
	}
	for _, conn := range unread {
		conn.Close()
	}
	eventually(t, "the room is not given back", func() bool { return free() == documentRoom })
}

// TestDocumentBesideLists: a single document is answered while the room for
// lists is taken, and others wait for it.
func TestDocumentBesideLists(t *testing.T) {
	s, base := start(t, hugeBlocks{fakenode.New()}, Options{})
	if err := s.lists.wait(t.Context(), listRoom, nil); err != nil {
		t.Fatal(err)
	}
	waits, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.lists.wait(waits, 1, nil) }()
	if got := get(t, base+"/api/v1/blocks/"+strings.Repeat("a", 64)); got.status != 200 {
		t.Errorf("got status %d", got.status)
	}
	stop()
	<-ended
}
