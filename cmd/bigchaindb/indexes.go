package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/indexes"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/statedb"
)

func (a *app) indexesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "indexes COMMAND",
		Short: "List and deploy indexes, and see which one a query uses",
		Long: `List and deploy indexes, and see which one a query uses.

Indexes are those that come with the node and those in the folder indexes.path,
one file each, <table>/<name>.json. ` + "`init` and `start`" + ` deploy them too.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.indexesListCommand(), a.indexesDeployCommand(), a.indexesExplainCommand())
	return cmd
}

func (a *app) indexesListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the indexes: fields, whose they are, state",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withIndexes(cmd.Context(), func(ctx context.Context, db statedb.DB, own map[string][]statedb.Index) error {
				rows, err := indexRows(ctx, db, own)
				if err != nil {
					return err
				}
				out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(out, "TABLE\tNAME\tFIELDS\tWHOSE\tSTATE")
				for _, r := range rows {
					fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", r.table, r.name, r.fields, r.whose, r.state)
				}
				return out.Flush()
			})
		},
	}
}

func (a *app) indexesDeployCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "deploy",
		Short: "Deploy the indexes that are missing or differ, and wait until they are built",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withIndexes(cmd.Context(), func(ctx context.Context, db statedb.DB, own map[string][]statedb.Index) error {
				before, err := indexRows(ctx, db, own)
				if err != nil {
					return err
				}
				all := indexes.Packaged()
				for table, list := range own {
					all[table] = append(all[table], list...)
				}
				progress := a.buildProgress()
				if err := node.DeployIndexes(ctx, db, all, progress.tell); err != nil {
					progress.broken()
					return err
				}
				progress.end()
				for _, r := range before {
					if r.state != stateReady {
						a.say("Deployed %s/%s (before: %s).", r.table, r.name, r.state)
					}
				}
				a.say("All %d indexes are ready.", len(before))
				return nil
			})
		},
	}
}

func (a *app) indexesExplainCommand() *cobra.Command {
	var q statedb.Query
	var sort []string
	cmd := &cobra.Command{
		Use:   "explain TABLE SELECTOR",
		Short: "Tell which index a selector uses, and what is scanned",
		Long: `Tell which index a selector uses, and what is scanned.

  bigchaindb indexes explain transactions '{"asset.id": "…", "operation": "TRANSFER"}'`,
		Args: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) != 2 {
				return &usageError{cmd, errors.New("explain takes a table and a selector")}
			}
			if !slices.Contains(statedb.Tables, args[0]) {
				return &usageError{cmd, fmt.Errorf("there is no table %q; the tables are %s", args[0], strings.Join(statedb.Tables, ", "))}
			}
			if q.Selector, err = canonical.Parse([]byte(args[1])); err != nil {
				return &usageError{cmd, fmt.Errorf("the selector: %w", err)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Limit = 1
			for _, field := range sort {
				name, descending := strings.CutPrefix(field, "-")
				q.Sort = append(q.Sort, statedb.SortField{Field: name, Descending: descending})
			}
			return a.withIndexes(cmd.Context(), func(ctx context.Context, db statedb.DB, _ map[string][]statedb.Index) error {
				plan, err := db.Explain(ctx, args[0], q)
				if err != nil {
					return err
				}
				_, err = fmt.Fprint(a.stdout, explained(args[0], plan))
				return err
			})
		},
	}
	cmd.Flags().StringSliceVar(&sort, "sort", nil, "the `fields` to sort by, with commas between; one with a minus in front descends")
	cmd.Flags().StringVar(&q.UseIndex, "use-index", "", "the `name` of the index to use")
	return cmd
}

// explained says what a plan reads.
func explained(table string, plan statedb.Plan) string {
	index, reads := plan.Index, "the index, and the documents it names"
	switch {
	case plan.Scan:
		index, reads = "none", "every document of "+table
	case index == "":
		index, reads = "none", "documents by id"
	default:
		index += " (" + strings.Join(plan.Fields, ", ") + ")"
	}
	return fmt.Sprintf("index: %s\nreads: %s\n%s\n", index, reads, plan.Covering)
}

// withIndexes calls work with the database of the settings, which must be
// there, and the operator's own indexes.
func (a *app) withIndexes(ctx context.Context, work func(context.Context, statedb.DB, map[string][]statedb.Index) error) error {
	settings, err := a.load()
	if err != nil {
		return err
	}
	own, err := indexes.Own(settings.Indexes.Path)
	if err != nil {
		return err
	}
	return a.withLogger(settings, func(logger *slog.Logger) (err error) {
		db, err := openExisting(ctx, settings, logger)
		if err == nil {
			defer func() { err = errors.Join(err, db.Close()) }()
			err = work(ctx, db, own)
		}
		switch {
		case errors.Is(err, statedb.ErrLocked):
			return fmt.Errorf("the database in %s is open in another process, perhaps the running node, which deploys its indexes by itself and tells at "+
				"`POST %s/api/v1/query/explain` which of them a selector uses; stop it to use this command", settings.Database.Path, settings.Server.URL())
		case errors.Is(err, statedb.ErrNoDatabase):
			return noLedger(settings)
		}
		return err
	})
}

// stateReady is the state of an index that can be used and is as defined.
const stateReady = "ready"

// indexRow is a line of the list.
type indexRow struct{ table, name, fields, whose, state string }

// indexRows compares the indexes in the database with the packaged ones and the
// operator's own, by table and name.
func indexRows(ctx context.Context, db statedb.DB, own map[string][]statedb.Index) ([]indexRow, error) {
	var rows []indexRow
	packaged := indexes.Packaged()
	for _, table := range statedb.Tables {
		there, err := db.Indexes(ctx, table)
		if err != nil {
			return nil, err
		}
		add := func(whose string, defined []statedb.Index) {
			for _, index := range defined {
				r := indexRow{table, index.Name, fieldsOf(index), whose, "not deployed"}
				if at := slices.IndexFunc(there, func(s statedb.IndexState) bool { return s.Name == index.Name }); at >= 0 {
					if r.state = stateOf(there[at]); !there[at].Equal(index) {
						r.state = "definition differs"
					}
					there = slices.Delete(there, at, at+1)
				}
				rows = append(rows, r)
			}
		}
		add("packaged", packaged[table])
		add("operator's", own[table])
		for _, state := range there {
			rows = append(rows, indexRow{table, state.Name, fieldsOf(state.Index), "other", stateOf(state)})
		}
	}
	return rows, nil
}

func stateOf(s statedb.IndexState) string {
	if s.Pending > 0 {
		return fmt.Sprintf("building %d of %d", s.Total-s.Pending, s.Total)
	}
	return stateReady
}

// fieldsOf prints an index's fields, one that descends with a minus in front.
func fieldsOf(index statedb.Index) string {
	var fields []string
	for _, f := range index.Fields {
		name := f.Field
		if f.Descending {
			name = "-" + name
		}
		fields = append(fields, name)
	}
	text := strings.Join(fields, ", ")
	if !index.PartialFilter.IsNull() {
		text += " where " + string(index.PartialFilter.Bytes())
	}
	return text
}
