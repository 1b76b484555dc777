package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
	"gt06/storage/mariadb"
	"gt06/storage/sink/table"
	"gt06/storage/sqlstore"
)

// historyRows is how many rows of somebody else's table are one transaction:
// little enough that the rows of devices do not wait for them.
const historyRows = 2000

// handleHistory brings over what the table of another server has.
func (a *app) handleHistory(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	var q control.HistoryArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	source, err := a.openHistory(ctx, &q)
	if err != nil {
		return nil, coded(err)
	}
	defer source.Close() //nolint:errcheck // read only
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	imp, err := store.Importer(ctx, source.Name(), source.Source())
	if err == nil && q.Again && !q.Plan {
		err = imp.Restart(ctx)
	}
	if err != nil {
		return nil, err
	}
	waiting, err := source.Count(ctx, imp.Progress().Last)
	if err != nil {
		return nil, err
	}
	of, said := imp.Progress().Read+waiting, time.Time{}
	for !q.Plan {
		rows, err := source.Read(ctx, imp.Progress().Last, historyRows)
		if err == nil && len(rows) > 0 {
			err = imp.Store(ctx, rows)
		}
		if err != nil {
			return nil, &control.Error{Text: err.Error(), Code: int(cli.StepFailed), Hints: []string{"run it again: it goes on where it ended"}}
		}
		if len(rows) == 0 {
			waiting = 0
			break
		}
		if time.Since(said) > time.Second {
			said = time.Now()
			if err := send(control.Event[control.HistoryProgress, control.History]{Progress: &control.HistoryProgress{Read: imp.Progress().Read, Of: of}}); err != nil {
				return nil, err
			}
		}
	}
	p := imp.Progress()
	if !q.Plan {
		a.reread(ctx)
		a.log.Info("history is in the database", zap.String("source", source.Source()), zap.Int64("read", p.Read), zap.Int64("written", p.Written), zap.Int64("there", p.There))
	}
	return control.Event[control.HistoryProgress, control.History]{Result: &control.History{
		Source: source.Source(), Waiting: waiting, Read: p.Read, Written: p.Written, There: p.There, Refused: p.Refused,
	}}, nil
}

// openHistory opens the table of a mapping, beside the store or where a DSN says.
func (a *app) openHistory(ctx context.Context, q *control.HistoryArgs) (*table.Source, error) {
	m, err := table.Parse([]byte(q.Mapping))
	if err != nil {
		return nil, cli.Fail(cli.Usage, err, "ops/deploy/node/mapping.yaml is an example")
	}
	dsn := q.DSN
	if dsn == "" && a.cfg.Store.Kind == string(sqlstore.MariaDB) {
		dsn = a.cfg.Store.DSN
	}
	if dsn == "" {
		return nil, cli.Fail(cli.Usage, errors.New("the store is SQLite: where is the MariaDB that has the table"), "name it: --dsn-file FILE")
	}
	if err := mariadb.Check(dsn); err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	s, err := table.Open(ctx, dsn, m)
	if errors.Is(err, table.ErrMapping) {
		return nil, cli.Fail(cli.Refused, err, "mend the mapping, or give the server's user of the database rights on the table")
	}
	return s, err
}
