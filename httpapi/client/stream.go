package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

// Event is one transaction that became valid.
type Event struct {
	TxID    string `json:"txid"`
	AssetID string `json:"assetid"`
	BlockID string `json:"blockid"`
}

// Stream is an open stream of valid transactions.
type Stream struct {
	conn *websocket.Conn
}

// Stream opens the stream of transactions that become valid from now on. The
// context bounds the handshake only.
//
// A stream that ends, because the node stops or the reader was too slow, may
// have missed events: open a new one and look at the statuses of what is
// awaited.
func (c *Client) Stream(ctx context.Context) (*Stream, error) {
	header := http.Header{}
	c.authorize(header)
	conn, resp, err := websocket.Dial(ctx, c.base.String()+"/api/v1/streams/valid_tx", &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: header})
	if err != nil {
		if resp != nil && resp.StatusCode >= 400 {
			return nil, readError(resp)
		}
		return nil, fmt.Errorf("client: opening the stream: %w", err)
	}
	return &Stream{conn: conn}, nil
}

// Next waits for the next event. Any error ends the stream, the context's too.
func (s *Stream) Next(ctx context.Context) (Event, error) {
	_, text, err := s.conn.Read(ctx)
	if err != nil {
		return Event{}, fmt.Errorf("client: stream: %w", err)
	}
	var e Event
	if err := json.Unmarshal(text, &e); err != nil {
		return Event{}, fmt.Errorf("client: stream: %w", err)
	}
	return e, nil
}

// Close ends the stream.
func (s *Stream) Close() error { return s.conn.Close(websocket.StatusNormalClosure, "") }
