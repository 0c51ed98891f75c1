package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/couchledger/couchledger/node"
)

// A running node takes the operator's orders at a socket under its state path,
// which only its own user can reach. It is HTTP: POST /reindex is answered by
// lines of JSON, controlLine each, as things go on.

// controlName is the socket's file under the state path.
const controlName = "control"

// maxSocketPath is what fits into a socket's address on every system.
const maxSocketPath = 103

// controlLine is one line of an answer. The last one has a result or an error.
type controlLine struct {
	Progress *node.ReindexProgress `json:"progress,omitempty"`
	Result   *node.Reindexed       `json:"result,omitempty"`
	Error    string                `json:"error,omitempty"`
}

// socketPath gives an address of the socket. A path that is too long is reached
// through the open folder where the system shows that; release closes it.
func socketPath(statePath string) (path string, release func() error, err error) {
	path = filepath.Join(statePath, controlName)
	if len(path) <= maxSocketPath {
		return path, func() error { return nil }, nil
	}
	folder, err := os.Open(statePath)
	if err != nil {
		return "", nil, err
	}
	short := fmt.Sprintf("/proc/self/fd/%d", folder.Fd())
	if _, err := os.Stat(short); err != nil {
		return "", nil, errors.Join(fmt.Errorf("state.path: %s is too long for a socket in it (%d bytes, %d fit)", statePath, len(path), maxSocketPath), folder.Close())
	}
	return filepath.Join(short, controlName), folder.Close, nil
}

// serveControl takes orders for a node until ctx ends. The caller has the
// state's lock, so a socket that is there is left over from a killed process.
func serveControl(ctx context.Context, statePath string, n *node.Node, log *slog.Logger) (stop func(), err error) {
	path, release, err := socketPath(statePath)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, release())
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close(), release())
	}
	handler := http.NewServeMux()
	handler.HandleFunc("POST /reindex", func(w http.ResponseWriter, r *http.Request) { reindexOver(w, r, n) })
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 4 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("orders such as `bigchaindb reindex` are not taken any more", "error", err)
		}
	}()
	return func() {
		_ = server.Close() // of connections whose clients see it
		<-ended
		_ = release()
	}, nil
}

// reindexOver has the node rebuild, and tells of it. A client that goes leaves
// the rebuild going on.
func reindexOver(w http.ResponseWriter, r *http.Request, n *node.Node) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	tell := func(line controlLine) {
		if out.Encode(line) == nil {
			_ = flush.Flush() // the client has gone, which ends the request
		}
	}
	tell(controlLine{Progress: &node.ReindexProgress{}})
	report, err := n.Reindex(r.Context(), func(p node.ReindexProgress) { tell(controlLine{Progress: &p}) })
	if err != nil {
		tell(controlLine{Error: err.Error()})
		return
	}
	tell(controlLine{Result: report})
}

// isListening reports whether a node takes orders at a socket.
func isListening(ctx context.Context, path string) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// errNoNode: no node takes orders under a state path.
var errNoNode = errors.New("no node runs there")

// askNode has the node that runs on a state rebuild. errNoNode when none does.
func askNode(ctx context.Context, statePath string, tell func(node.ReindexProgress)) (*node.Reindexed, error) {
	path, release, err := socketPath(statePath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoNode
	}
	if err != nil {
		return nil, err
	}
	defer release()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/reindex", nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errNoNode
	}
	if err != nil {
		return nil, fmt.Errorf("the node's socket in %s: %w", statePath, err)
	}
	defer answer.Body.Close()
	for in := json.NewDecoder(answer.Body); ; {
		var line controlLine
		switch err := in.Decode(&line); {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET):
			return nil, errors.New("the node ended before the rebuild did; what is derived is as it was")
		case err != nil:
			return nil, fmt.Errorf("the node's answer: %w", err)
		case line.Error != "":
			return nil, fmt.Errorf("the node says: %s", line.Error)
		case line.Result != nil:
			return line.Result, nil
		case line.Progress != nil && line.Progress.Step > 0:
			tell(*line.Progress)
		}
	}
}
