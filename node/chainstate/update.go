package chainstate

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// Update is a set of changes that become visible together. Its methods must
// not be used after Commit or Discard.
type Update struct {
	s           *State
	batch       *pebble.Batch
	view        *View             // what was there before
	pending     map[string][]byte // what the update itself wrote; nil for what it deleted
	arrivals    uint64
	decisions   uint64
	genesis     string
	epochs      []Epoch
	statuses    map[id]consensus.Status
	early       bool
	liars       bool
	rivals      bool
	statements  []*ledger.Statement // that the update itself added
	listChanges []listChange
}

// Begin starts an update, after any other has ended.
func (s *State) Begin() *Update {
	s.writer.Lock()
	view := s.View()
	return &Update{
		s: s, batch: view.g.NewBatch(), view: view, pending: map[string][]byte{},
		arrivals: s.arrivals, decisions: s.decisions,
		genesis: s.Genesis(), epochs: s.Epochs(), statuses: map[id]consensus.Status{},
		early: s.early, liars: s.liars, rivals: s.rivals,
	}
}

// Discard drops the update.
func (u *Update) Discard() {
	u.view.Close()
	u.batch.Close()
	u.s.writer.Unlock()
}

// Commit makes the update visible. It is not synced: a crash may lose it whole
// together with the checkpoints in it.
func (u *Update) Commit() error {
	defer u.s.writer.Unlock()
	defer u.view.Close()
	for name, n := range map[string]uint64{metaArrivals: u.arrivals, metaDecisions: u.decisions} {
		if err := u.set(metaKey(name), binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return errors.Join(err, u.batch.Close())
		}
	}
	if err := u.view.g.Apply(u.batch, pebble.NoSync); err != nil {
		return fmt.Errorf("chainstate: %w", err)
	}
	u.s.arrivals, u.s.decisions = u.arrivals, u.decisions
	u.s.early = u.early
	u.s.short.committed(u.listChanges)
	u.s.mu.Lock()
	u.s.genesis, u.s.epochs, u.s.liars, u.s.rivals = u.genesis, u.epochs, u.liars, u.rivals
	for block, status := range u.statuses {
		if status == consensus.Disputed {
			u.s.disputes++
		}
		u.s.cacheStatus(block, status)
	}
	u.s.mu.Unlock()
	return nil
}

func (u *Update) set(k, v []byte) error {
	if v == nil {
		v = []byte{}
	}
	u.pending[string(k)] = v
	return u.batch.Set(k, v, nil)
}

func (u *Update) del(k []byte) error {
	u.pending[string(k)] = nil
	return u.batch.Delete(k, nil)
}

func (u *Update) get(k []byte) ([]byte, error) {
	if v, ok := u.pending[string(k)]; ok {
		return slices.Clone(v), nil
	}
	return u.view.get(k)
}

// SetToken moves the checkpoint into a table's feed.
func (u *Update) SetToken(table, token string) error {
	return u.set(metaKey(metaToken+table), []byte(token))
}

// AddEpoch appends to the federation's history.
func (u *Update) AddEpoch(e Epoch) error {
	u.epochs = append(slices.Clone(u.epochs), e)
	text, err := json.Marshal(u.epochs)
	if err != nil {
		return err
	}
	return u.set(metaKey(metaEpochs), text)
}

// SetGenesis records the ledger's first block, which AddBlock adds.
func (u *Update) SetGenesis(block string) error {
	u.genesis = block
	return u.set(metaKey(metaGenesis), []byte(block))
}

// AddBlock records a block whose hash and signature are sound. status is
// Undecided, Valid for the genesis block, or Invalid for a block that can
// never be valid, whatever the votes. It reports false, and changes nothing,
// for a block that is there already. Every transaction's id must be the hash of
// its body unless status is Invalid.
func (u *Update) AddBlock(b *ledger.Block, epoch int, status consensus.Status) (bool, error) {
	block, ok := toID(b.ID)
	if !ok {
		return false, fmt.Errorf("chainstate: malformed block id %.70q", b.ID)
	}
	if known, err := u.blockStatus(block); err != nil || known != consensus.Unknown {
		return false, err
	}
	u.arrivals++
	rec := blockRecord{
		arrival: u.arrivals, epoch: epoch, timestamp: b.Timestamp, maker: b.NodePubkey, unsound: status == consensus.Invalid,
		transactions: make([]blockEntry, len(b.Transactions)),
	}
	for i, t := range b.Transactions {
		e := blockEntry{operation: t.Operation[0]}
		e.tx, _ = toID(t.ID)
		e.asset, _ = toID(t.Asset)
		rec.transactions[i] = e
	}
	if err := u.set(idKey(blockPrefix, block), rec.append(nil)); err != nil {
		return false, err
	}
	if err := u.setStatus(block, status); err != nil {
		return false, err
	}
	for i, t := range b.Transactions {
		if err := u.addTransaction(block, rec, i, t, status != consensus.Invalid); err != nil {
			return false, err
		}
	}
	switch status {
	case consensus.Undecided:
		return true, u.set(sequenceKey(openPrefix, u.arrivals), block[:])
	case consensus.Valid:
		_, err := u.settle(block, rec, status)
		return true, err
	}
	return true, nil
}

func (u *Update) addTransaction(block id, rec blockRecord, place int, t *ledger.Transaction, live bool) error {
	tx := rec.transactions[place].tx
	held, err := u.get(idKey(blocksOfPrefix, tx))
	if err != nil {
		return err
	}
	if n := len(held); n >= idSize && id(held[n-idSize:]) == block {
		return nil // twice in one block: no honest maker, and no vote will carry it
	}
	if live {
		if err := u.enliven(block, rec, place, t, held); err != nil {
			return err
		}
	}
	return u.set(idKey(blocksOfPrefix, tx), append(held, block[:]...))
}

// enliven has a transaction of a live block spend, and lists its outputs unless
// another live block has brought them. held are the blocks with it.
func (u *Update) enliven(block id, rec blockRecord, place int, t *ledger.Transaction, held []byte) error {
	tx := rec.transactions[place].tx
	first := true
	if len(held) > 0 {
		status, _, err := txStatus(u, tx)
		if err != nil {
			return err
		}
		first = status == consensus.Unknown
		for ; len(held) >= idSize; held = held[idSize:] {
			if err := u.addRival(block, id(held[:idSize])); err != nil {
				return err
			}
		}
	}
	if first {
		if err := u.addOutputs(position{rec.arrival, uint16(place)}, tx, rec.transactions[place].asset, t); err != nil {
			return err
		}
	}
	for _, ref := range t.Spends() {
		if err := u.spend(ref, spender{block: block, tx: tx}); err != nil {
			return err
		}
	}
	return nil
}

func (u *Update) addOutputs(at position, tx, asset id, t *ledger.Transaction) error {
	rec := txRecord{at: at, digest: t.Digest(), outputs: len(t.Outputs), spends: t.Spends()}
	if err := u.set(idKey(txPrefix, tx), rec.append(nil)); err != nil {
		return err
	}
	for i, o := range t.Outputs {
		rec := outputRecord{at: at, asset: asset, amount: o.Amount, conditionURI: o.ConditionURI, publicKeys: o.PublicKeys}
		if err := u.set(outputKey(outputPrefix, tx, i), rec.append(nil)); err != nil {
			return err
		}
		for _, owner := range distinct(o.PublicKeys) {
			if err := u.set(ownerKey(ownedPrefix, owner, at, i), tx[:]); err != nil {
				return err
			}
		}
		unspent := true
		if u.early { // else nothing is spent before it is there
			spent, err := spenders(u, ledger.OutputRef{TxID: tx.String(), Index: i})
			if err != nil {
				return err
			}
			unspent = len(spent) == 0
		}
		if err := u.listUnspent(tx, i, rec, unspent); err != nil {
			return err
		}
	}
	return nil
}

// listUnspent puts an output on its owners' lists of unspent ones, or takes it off.
func (u *Update) listUnspent(tx id, index int, o outputRecord, unspent bool) (err error) {
	for _, owner := range distinct(o.publicKeys) {
		k := ownerKey(unspentPrefix, owner, o.at, index)
		output := listed{tx: tx}
		copy(output.rest[:], k[len(k)-len(output.rest):])
		u.listChanges = append(u.listChanges, listChange{owner: owner, output: output, unspent: unspent})
		if unspent {
			err = u.set(k, tx[:])
		} else {
			err = u.del(k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *Update) spend(ref ledger.OutputRef, by spender) error {
	list, err := spenders(u, ref)
	if err != nil {
		return err
	}
	for _, other := range list {
		if err := u.addRival(by.block, other.block); err != nil {
			return err
		}
	}
	return u.setSpenders(ref, append(list, by), len(list) == 0)
}

// setSpenders records who spends an output. changed says that it became spent
// or unspent by this.
func (u *Update) setSpenders(ref ledger.OutputRef, list []spender, changed bool) error {
	tx, _ := toID(ref.TxID)
	k := outputKey(spentPrefix, tx, ref.Index)
	var err error
	if len(list) == 0 {
		err = u.del(k)
	} else {
		err = u.set(k, appendSpenders(nil, list))
	}
	if err != nil || !changed {
		return err
	}
	o, ok, err := output(u, tx, ref.Index)
	if err != nil {
		return err
	}
	if !ok {
		return u.setEarly()
	}
	return u.listUnspent(tx, ref.Index, o, len(list) == 0)
}

// setEarly notes that an output which is not there, or not any more, is spent.
func (u *Update) setEarly() error {
	u.early = true
	return u.set(metaKey(metaEarly), nil)
}

// AddStatement keeps a sound statement about the federation's next epoch, and
// returns all there are under its number, by signer.
func (u *Update) AddStatement(st *ledger.Statement) (map[string]*ledger.Statement, error) {
	prefix := binary.BigEndian.AppendUint32([]byte{statementPrefix}, uint32(st.Number))
	if err := u.set(append(prefix[:5:5], st.NodePubkey...), st.Bytes()); err != nil {
		return nil, err
	}
	u.statements = append(u.statements, st)
	all, err := statements(u.view.g, prefix)
	if err != nil {
		return nil, err
	}
	for _, own := range u.statements {
		if own.Number == st.Number {
			all[own.NodePubkey] = own
		}
	}
	return all, nil
}

func (u *Update) block(block id) (blockRecord, error) {
	value, err := u.get(idKey(blockPrefix, block))
	if err != nil {
		return blockRecord{}, err
	}
	return readBlockRecord(value)
}

// WaitsFor names a transaction whose output the block spends and that is not
// valid, or not yet; "" when there is none.
func (u *Update) WaitsFor(blockID string) (string, error) {
	block, _ := toID(blockID)
	rec, err := u.block(block)
	if err != nil {
		return "", err
	}
	for _, e := range rec.transactions {
		if e.operation != opTransfer {
			continue
		}
		value, err := u.get(idKey(txPrefix, e.tx))
		if err != nil || value == nil {
			return "", err
		}
		t, err := readTxRecord(value)
		if err != nil {
			return "", err
		}
		for _, ref := range t.spends {
			tx, _ := toID(ref.TxID)
			status, _, err := txStatus(u, tx)
			if err != nil {
				return "", err
			}
			if status != consensus.Valid {
				return ref.TxID, nil
			}
		}
	}
	return "", nil
}

// Decide gives an undecided block its status, Valid, Invalid or Disputed, or
// makes a decided one Disputed; one that was Invalid has been restored before.
// Valid and disputed ones are put on the list of those whose consequences are
// to be carried out.
func (u *Update) Decide(blockID string, status consensus.Status) (Decision, error) {
	block, _ := toID(blockID)
	rec, err := u.block(block)
	if err != nil {
		return Decision{}, err
	}
	if err := u.setStatus(block, status); err != nil {
		return Decision{}, err
	}
	if err := u.del(sequenceKey(openPrefix, rec.arrival)); err != nil {
		return Decision{}, err
	}
	return u.settle(block, rec, status)
}

// settle carries a decision into the lists and numbers it.
func (u *Update) settle(block id, rec blockRecord, status consensus.Status) (Decision, error) {
	u.decisions++
	d := decisionOf(u.decisions, block, status, rec)
	if status == consensus.Invalid {
		return d, u.forget(block, rec)
	}
	if err := u.set(sequenceKey(effectPrefix, u.decisions), block[:]); err != nil || status != consensus.Valid {
		return d, err
	}
	for i, e := range rec.transactions {
		value := append(append(make([]byte, 0, 2*idSize+1), e.operation), e.tx[:]...)
		if err := u.set(assetKey(e.asset, u.decisions, i), append(value, block[:]...)); err != nil {
			return d, err
		}
	}
	return d, nil
}

// forget takes back what an invalid block's transactions did.
func (u *Update) forget(block id, rec blockRecord) error {
	for _, e := range rec.transactions {
		value, err := u.get(idKey(txPrefix, e.tx))
		if err != nil || value == nil {
			if err != nil {
				return err
			}
			continue // the second of two in one block
		}
		t, err := readTxRecord(value)
		if err != nil {
			return err
		}
		for _, ref := range t.spends {
			list, err := spenders(u, ref)
			if err != nil {
				return err
			}
			rest := slices.DeleteFunc(list, func(s spender) bool { return s.block == block })
			if err := u.setSpenders(ref, rest, len(rest) == 0); err != nil {
				return err
			}
		}
		status, _, err := txStatus(u, e.tx)
		if err != nil {
			return err
		}
		if status != consensus.Unknown {
			continue
		}
		if err := u.forgetOutputs(e.tx, t); err != nil {
			return err
		}
	}
	return nil
}

func (u *Update) forgetOutputs(tx id, t txRecord) error {
	for i := range t.outputs {
		o, ok, err := output(u, tx, i)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		spent, err := spenders(u, ledger.OutputRef{TxID: tx.String(), Index: i})
		if err == nil && len(spent) > 0 {
			err = u.setEarly()
		}
		if err != nil {
			return err
		}
		for _, owner := range distinct(o.publicKeys) {
			if err := u.del(ownerKey(ownedPrefix, owner, o.at, i)); err != nil {
				return err
			}
		}
		if err := u.listUnspent(tx, i, o, false); err != nil {
			return err
		}
		if err := u.del(outputKey(outputPrefix, tx, i)); err != nil {
			return err
		}
	}
	return u.del(idKey(txPrefix, tx))
}
