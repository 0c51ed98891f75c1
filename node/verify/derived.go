package verify

import (
	"bytes"
	"crypto/sha256"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// blockIDField is what a document of the table for queries has beside the
// transaction.
const blockIDField = "block_id"

// recordWaiting notes which transactions wait in the backlog. What else stands
// there is nobody's truth and no finding.
func recordWaiting(documents []statedb.Document, b *pebble.Batch) error {
	for _, d := range documents {
		if !ledger.IsID(d.ID) {
			continue
		}
		tx := toID(d.ID)
		if err := b.Set(key(waitPrefix, tx[:]), nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// recordDerived writes down what documents of the table for queries hold.
func (v *verifier) recordDerived(documents []statedb.Document, b *pebble.Batch) error {
	blocks, err := v.scratch.scan([]byte{holdPrefix}, []byte{holdPrefix + 1})
	if err != nil {
		return err
	}
	defer blocks.Close()
	for _, d := range documents {
		if !ledger.IsID(d.ID) {
			f := Finding{Table: statedb.Transactions, ID: d.ID, Rule: Foreign, Seen: "its id is not a transaction's"}
			if err := find(b, classDerived, f); err != nil {
				return err
			}
			continue
		}
		tx := toID(d.ID)
		facts, ok := matchDerived(blocks, tx, d.Body)
		if !ok {
			facts = parseDerived(d.Body)
		}
		if err := b.Set(key(derivedPrefix, tx[:]), facts.append(nil), nil); err != nil {
			return err
		}
	}
	return blocks.Error()
}

// matchDerived recognises a document that is, to the byte, what a block of its
// transaction makes of it, without parsing it.
func matchDerived(blocks *pebble.Iterator, tx id, body []byte) (derivedFacts, bool) {
	prefix := key(holdPrefix, tx[:])
	for blocks.SeekGE(prefix); blocks.Valid() && bytes.HasPrefix(blocks.Key(), prefix); blocks.Next() {
		block := id(blocks.Key()[len(prefix):]).String()
		// As nodes write it, the first such text is the field.
		before, rest, found := bytes.Cut(body, []byte(`"`+blockIDField+`":"`+block+`",`))
		if !found {
			continue
		}
		h := sha256.New()
		h.Write(before)
		h.Write(rest)
		var digest [sha256.Size]byte
		if h.Sum(digest[:0]); bytes.Equal(digest[:], blocks.Value()) {
			return derivedFacts{block: block, digest: digest}, true
		}
	}
	return derivedFacts{}, false
}

func parseDerived(body []byte) derivedFacts {
	tree, err := canonical.Parse(body)
	if err != nil || tree.Kind() != canonical.Object {
		return derivedFacts{}
	}
	named, _ := tree.Get(blockIDField)
	facts := derivedFacts{digest: sha256.Sum256(tree.Without(blockIDField).Bytes())}
	if named.Kind() == canonical.String {
		facts.block = shorten(named.Text())
	}
	return facts
}
