package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
)

// getTransaction answers with a transaction of a valid block.
func (s *Server) getTransaction(c echo.Context, _ query) error {
	id, ok := normalID(c.Param("id"))
	if !ok {
		return errNoTx
	}
	return s.writeDocument(c, transactionRoom, func(ctx context.Context) ([]byte, error) {
		body, err := s.node.Transaction(ctx, id)
		if errors.Is(err, node.ErrNotFound) {
			return nil, errNoTx
		}
		return body, err
	})
}

// listTransactions answers with the valid transactions of an asset.
func (s *Server) listTransactions(c echo.Context, q query) error {
	asset, err := q.id("asset_id")
	if err != nil {
		return err
	}
	operation, err := q.oneOf("operation", string(ledger.Create), string(ledger.Transfer))
	if err != nil {
		return err
	}
	return serveList(s, c, q, list[[]byte]{
		name:   "transactions",
		filter: []parameter{{"asset_id", asset}, {"operation", operation}},
		step:   bodyStep,
		fetch: func(ctx context.Context, p node.Page) ([][]byte, string, error) {
			return s.node.AssetTransactions(ctx, asset, ledger.Operation(operation), p)
		},
		add: func(dst, body []byte) []byte { return append(dst, body...) },
	})
}

// postTransaction takes a transaction. The body is read as JSON whatever its
// content type says, since drivers of the time send all kinds.
//
// With mode=async, the default, the answer is 202 and the transaction once it
// is durable in the backlog. With mode=commit it is 200 once the transaction
// is valid, 400 with the reason when it is refused after all, and 202 when
// neither happened within Options.CommitWait: then its status tells.
func (s *Server) postTransaction(c echo.Context, q query) error {
	mode, ok := q.get("mode")
	if ok && mode != "async" && mode != "commit" {
		return badParameter("mode", "must be async or commit")
	}
	t, err := s.submit(c)
	var refused *node.RefusedError
	if errors.As(err, &refused) {
		return failure(http.StatusBadRequest, refused.Error())
	}
	if err != nil {
		return err
	}
	if mode != "commit" {
		return writeJSON(c, http.StatusAccepted, t.Bytes())
	}
	return s.commit(c, t)
}

// submit reads the body and hands it to the node. Of large bodies only as
// many are validated at once as fit s.parsing: a parsed body takes some thirty
// times its length.
func (s *Server) submit(c echo.Context) (*ledger.Transaction, error) {
	body, held, err := s.readBody(c, s.opts.MaxBodyBytes)
	if held > 0 {
		defer s.reading.give(held)
	}
	if err != nil {
		return nil, err
	}
	ctx := c.Request().Context()
	if n := int64(len(body)); n > smallBody {
		if err := s.parsing.wait(ctx, n, nil); err != nil {
			return nil, err
		}
		defer s.parsing.give(n)
	}
	return s.node.Submit(ctx, body)
}

func (s *Server) commit(c echo.Context, t *ledger.Transaction) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), s.opts.CommitWait)
	defer cancel()
	defer context.AfterFunc(s.running, cancel)()
	err := s.node.Await(ctx, t.ID)
	var (
		refused *node.RefusedError
		invalid *ledger.ValidationError
	)
	switch {
	case err == nil:
		return writeJSON(c, http.StatusOK, t.Bytes())
	case errors.As(err, &refused), errors.As(err, &invalid):
		return failure(http.StatusBadRequest, err.Error())
	case ctx.Err() == nil:
		s.log.Warn("waiting for a verdict failed", "request_id", idOf(c), "txid", t.ID, "error", err)
	}
	// Accepted it is, and durable: whatever else went wrong, it may become valid.
	return writeJSON(c, http.StatusAccepted, t.Bytes())
}
