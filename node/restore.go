package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// unfinishedFile says that the bringing into order of a restored database was
// begun and not ended: the journal and the database need not agree.
const unfinishedFile = "restore.unfinished"

// restoreTask is the task's name where the database fails meanwhile.
const restoreTask = "restore"

// errUnfinished tells what to do about it.
func errUnfinished(statePath string) error {
	if _, err := os.Stat(filepath.Join(statePath, unfinishedFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.New("the restored database is not in order yet: call `bigchaindb reindex --after-restore` again")
}

// Restored tells what was done to a database that was restored.
type Restored struct {
	Plan    *RestorePlan
	File    string     // what was removed, as lines of JSON; "" when nothing was
	Rebuilt *Reindexed // nil when confirm said no
}

// AfterRestore brings a ledger in order whose database was restored from the
// database's own dump or snapshot. confirm gets what would be done; unless it
// returns true nothing is changed. What is removed is written to a file under
// the state path before. Broken off, it must be called again before the node
// starts, and Open refuses until then. kv.ErrLocked where a node runs on the
// state.
func AfterRestore(ctx context.Context, o Options, tell func(ReindexProgress), confirm func(*RestorePlan) (bool, error)) (*Restored, error) {
	s, err := openStopped(ctx, o)
	if err != nil {
		return nil, err
	}
	result, err := s.afterRestore(ctx, tell, confirm)
	return result, errors.Join(err, s.journal.Close())
}

func (s *stopped) afterRestore(ctx context.Context, tell func(ReindexProgress), confirm func(*RestorePlan) (bool, error)) (*Restored, error) {
	r, err := s.rebuild(tell)
	if err != nil {
		return nil, err
	}
	err = r.follow(ctx, 0)
	var plan *RestorePlan
	if err == nil {
		plan, err = s.planRestore(ctx, r)
	}
	if err := errors.Join(err, r.state.Close()); err != nil {
		return nil, err
	}
	result := &Restored{Plan: plan}
	if sure, err := confirm(plan); err != nil || !sure {
		return result, errors.Join(err, s.folders.settle())
	}
	unfinished := filepath.Join(s.o.StatePath, unfinishedFile)
	if err := os.WriteFile(unfinished, nil, 0o600); err != nil {
		return nil, err
	}
	if err := s.folders.sync(); err != nil {
		return nil, err
	}
	if err := s.giveBack(ctx, r, plan.Return); err != nil {
		return nil, err
	}
	if result.File, err = s.remove(ctx, r, plan); err != nil {
		return nil, err
	}
	if err := ensureBlock(ctx, s.o.DB, s.genesis); err != nil {
		return nil, err
	}
	// A journal that was lost is restored from the database when the node starts.
	if !s.journal.Fresh() {
		if err := s.journal.Rewind(plan.tip, plan.adopt); err != nil {
			return nil, err
		}
	}
	if result.Rebuilt, err = s.reindex(ctx, tell); err != nil {
		return nil, err
	}
	return result, errors.Join(os.Remove(unfinished), s.folders.sync())
}

// giveBack writes votes of this node's that the database lacks.
func (s *stopped) giveBack(ctx context.Context, r *rebuild, votes []*ledger.Vote) error {
	for some := range slices.Chunk(votes, r.db.Limits().MaxBatch) {
		writes := make([]statedb.Write, len(some))
		for i, v := range some {
			writes[i] = statedb.Write{ID: ledger.VoteID(v.BlockID, v.NodePubkey), Body: v.Bytes()}
		}
		err := r.retry(ctx, restoreTask, func() error {
			results, err := r.db.Write(ctx, statedb.Votes, writes)
			for _, result := range results {
				if err == nil && !errors.Is(result.Err, statedb.ErrConflict) { // then a try before this one wrote it
					err = result.Err
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// remove takes out what a plan says, after it has saved it.
func (s *stopped) remove(ctx context.Context, r *rebuild, plan *RestorePlan) (file string, err error) {
	var backlog []string
	err = r.eachPage(ctx, restoreTask, statedb.Backlog, func(documents []statedb.Document) error {
		for _, d := range documents {
			backlog = append(backlog, d.ID)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	parts := []struct {
		table string
		ids   []string
	}{{statedb.Votes, plan.Votes}, {statedb.Bigchain, plan.Blocks}, {statedb.Backlog, backlog}}
	if len(plan.Votes)+len(plan.Blocks)+len(backlog) == 0 {
		return "", nil
	}
	out, err := os.OpenFile(filepath.Join(s.o.StatePath, "removed-"+time.Now().UTC().Format("20060102T150405.000Z")+".jsonl"),
		os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(out)
	for _, part := range parts {
		if err == nil {
			err = r.save(ctx, w, part.table, part.ids)
		}
	}
	if err := errors.Join(err, w.Flush(), out.Sync(), out.Close(), s.folders.sync()); err != nil {
		return "", fmt.Errorf("save what is to be removed to %s: %w", out.Name(), err)
	}
	for _, part := range parts {
		if err := r.remove(ctx, restoreTask, part.table, part.ids); err != nil {
			return "", err
		}
	}
	return out.Name(), nil
}

// save writes documents, one a line: {"table", "id", "document"}.
func (r *rebuild) save(ctx context.Context, w *bufio.Writer, table string, ids []string) error {
	const some = 50 // of up to 8 MB each
	for len(ids) > 0 {
		documents, err := r.fetch(ctx, table, ids[:min(len(ids), some)])
		if err != nil {
			return err
		}
		ids = ids[len(documents):]
		for _, d := range documents {
			if d.Rev == "" {
				continue
			}
			line := canonical.AppendString(fmt.Appendf(nil, `{"table":%q,"id":`, table), d.ID)
			line = append(append(append(line, `,"document":`...), d.Body...), "}\n"...)
			if !json.Valid(line) {
				return fmt.Errorf("document %s in %s is no JSON", d.ID, table)
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
	return nil
}
