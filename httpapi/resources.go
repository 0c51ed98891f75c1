package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
)

// listOutputs answers with links to the outputs that name a public key.
func (s *Server) listOutputs(c echo.Context, q query) error {
	key, ok := q.get("public_key")
	if !ok {
		return badParameter("public_key", "it is required")
	}
	if _, err := ledger.DecodePublicKey(key); err != nil {
		return badParameter("public_key", "must be base58 of 32 bytes")
	}
	unspent, err := q.flag("unspent")
	if err != nil {
		return err
	}
	return serveList(s, c, q, list[ledger.OutputRef]{
		name:   "outputs",
		filter: []parameter{{"public_key", key}, {"unspent", strconv.FormatBool(unspent)}},
		step:   rowStep,
		fetch: func(ctx context.Context, p node.Page) ([]ledger.OutputRef, string, error) {
			return s.node.Outputs(ctx, key, unspent, p)
		},
		add: func(dst []byte, ref ledger.OutputRef) []byte {
			dst = append(dst, `"../transactions/`...)
			dst = append(dst, ref.TxID...)
			dst = append(dst, `/outputs/`...)
			dst = strconv.AppendInt(dst, int64(ref.Index), 10)
			return append(dst, '"')
		},
	})
}

// getStatus answers with the status of a transaction or a block.
//
// The Location header is an absolute path. 0.10.0 sent ../transactions/<id>,
// which leads nowhere from /api/v1/statuses, without the trailing slash.
func (s *Server) getStatus(c echo.Context, q query) error {
	_, tx := q.get("tx_id")
	_, block := q.get("block_id")
	if tx == block {
		return failure(http.StatusBadRequest, "Invalid parameters: exactly one of tx_id and block_id is required")
	}
	if tx {
		return s.transactionStatus(c, q)
	}
	return s.blockStatus(c, q)
}

func (s *Server) transactionStatus(c echo.Context, q query) error {
	id, err := q.id("tx_id")
	if err != nil {
		return err
	}
	status, err := s.node.TransactionStatus(c.Request().Context(), id)
	if errors.Is(err, node.ErrNotFound) {
		return errNoTx
	}
	if err != nil {
		return err // a *node.RefusedError becomes the 404 with its reason
	}
	if status == statusValid {
		c.Response().Header().Set(echo.HeaderLocation, "/api/v1/transactions/"+id)
	}
	return writeJSON(c, http.StatusOK, statusBody(status, "tx", "/transactions/"+id))
}

func (s *Server) blockStatus(c echo.Context, q query) error {
	id, err := q.id("block_id")
	if err != nil {
		return err
	}
	status, err := s.node.BlockStatus(c.Request().Context(), id)
	if errors.Is(err, node.ErrNotFound) {
		return errNoBlock
	}
	if err != nil {
		return err
	}
	if status != statusValid {
		return writeJSON(c, http.StatusOK, statusBody(status, "", ""))
	}
	c.Response().Header().Set(echo.HeaderLocation, "/api/v1/blocks/"+id)
	return writeJSON(c, http.StatusOK, statusBody(status, "block", "/blocks/"+id))
}

const statusValid = "valid"

// statusBody gives {"status": …} and, unless rel is "", its one link.
func statusBody(status, rel, link string) []byte {
	body := append(make([]byte, 0, 160), `{"status":`...)
	body = canonical.AppendString(body, status)
	if rel != "" {
		body = append(body, `,"_links":{`...)
		body = canonical.AppendString(body, rel)
		body = append(body, ':')
		body = canonical.AppendString(body, link)
		body = append(body, '}')
	}
	return append(body, '}')
}

// getBlock answers with a block, whatever its status.
func (s *Server) getBlock(c echo.Context, _ query) error {
	id, ok := normalID(c.Param("id"))
	if !ok {
		return errNoBlock
	}
	return s.writeDocument(c, ledger.MaxBlockBytes, func(ctx context.Context) ([]byte, error) {
		body, err := s.node.Block(ctx, id)
		if errors.Is(err, node.ErrNotFound) {
			return nil, errNoBlock
		}
		return body, err
	})
}

// listBlocks answers with the ids of the blocks that hold a transaction.
func (s *Server) listBlocks(c echo.Context, q query) error {
	id, err := q.id("tx_id")
	if err != nil {
		return err
	}
	status, err := q.oneOf("status", "UNDECIDED", "VALID", "INVALID", "DISPUTED")
	if err != nil {
		return err
	}
	status = strings.ToLower(status)
	return serveList(s, c, q, list[string]{
		name:   "blocks",
		filter: []parameter{{"tx_id", id}, {"status", status}},
		step:   rowStep,
		fetch: func(ctx context.Context, p node.Page) ([]string, string, error) {
			return s.node.BlocksWith(ctx, id, status, p)
		},
		add: canonical.AppendString,
	})
}

// listVotes answers with all votes on a block, sound or not.
func (s *Server) listVotes(c echo.Context, q query) error {
	id, err := q.id("block_id")
	if err != nil {
		return err
	}
	return serveList(s, c, q, list[[]byte]{
		name:   "votes",
		filter: []parameter{{"block_id", id}},
		step:   bodyStep,
		fetch: func(ctx context.Context, p node.Page) ([][]byte, string, error) {
			return s.node.Votes(ctx, id, p)
		},
		add: func(dst, vote []byte) []byte { return append(dst, vote...) },
	})
}

// listFaults answers with the faults that the node met.
func (s *Server) listFaults(c echo.Context, q query) error {
	return serveList(s, c, q, list[journal.Fault]{name: "faults", step: bodyStep, fetch: s.node.Faults, add: appendFault})
}

// appendFault gives {"block": …, "document": …, "evidence": […], "kind": …,
// "node": …, "seen": …, "what": …}, null for what a fault has not. Evidence is
// shown as the JSON that it is, and as text where it was cut or is a key.
func appendFault(dst []byte, f journal.Fault) []byte {
	text := func(name, value string) {
		dst = append(dst, name...)
		if value == "" {
			dst = append(dst, "null"...)
			return
		}
		dst = canonical.AppendString(dst, value)
	}
	text(`{"block":`, f.Block)
	text(`,"document":`, f.Document)
	dst = append(dst, `,"evidence":[`...)
	for i, e := range f.Evidence {
		if i > 0 {
			dst = append(dst, ',')
		}
		if tree, err := canonical.Parse([]byte(e)); err == nil && tree.Kind() == canonical.Object {
			dst = append(dst, tree.Bytes()...)
		} else {
			dst = canonical.AppendString(dst, strings.ToValidUTF8(e, "\ufffd"))
		}
	}
	text(`],"kind":`, f.Kind)
	text(`,"node":`, f.Node)
	dst = append(dst, `,"seen":`...)
	dst = strconv.AppendInt(dst, f.Seen, 10)
	text(`,"what":`, f.What)
	return append(dst, '}')
}
