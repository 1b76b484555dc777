package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/event"
	"gt06/storage/spool"
	"gt06/storage/sqlstore"
)

const day = 24 * time.Hour

// handleBudget says how fast the disk fills. The rates are of the last day, or
// of what the last 64 MiB of the log cover of it.
func (a *app) handleBudget(ctx context.Context, _ json.RawMessage, _ func(any) error) (any, error) {
	const most = 64 << 20
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	size, err := store.Size(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	recent, err := spool.Measure(ctx, filepath.Join(a.cfg.DataDir, "spool"), a.spool.Durable(), now.Add(-day), most)
	if err != nil {
		return nil, err
	}
	_, w, _ := a.store.get()
	var b control.Budget
	rowsPerRecord := 1.0
	if st := w.Status(); st.Stored > 0 {
		rowsPerRecord = float64(st.Rows) / float64(st.Stored)
	}
	rowBytes := 0.0
	if size.Rows > 0 {
		rowBytes = float64(size.Bytes) / float64(size.Rows)
	}
	limit, keep := a.spool.Limits()
	b.Log = control.BudgetPart{Kind: "log", Bytes: a.spool.Stats().Bytes, KeepDays: keep.Hours() / 24, LimitBytes: limit}
	b.Database = control.BudgetPart{Kind: string(store.Kind()), Bytes: size.Bytes, KeepDays: time.Duration(a.cfg.Retention.Rows).Hours() / 24}
	b.Rows = size.Rows
	if !recent.First.IsZero() {
		b.WindowS = now.Sub(recent.First).Seconds()
		perDay := day.Seconds() / max(b.WindowS, 1)
		b.Log.BytesPerD = int64(float64(recent.Bytes) * perDay)
		b.RowsPerDay = int64(float64(recent.Records) * rowsPerRecord * perDay)
		b.Database.BytesPerD = int64(float64(b.RowsPerDay) * rowBytes)
	}
	var here, there unix.Statfs_t
	if err := unix.Statfs(a.cfg.DataDir, &here); err != nil {
		return nil, err
	}
	b.Total, b.Free = int64(here.Blocks)*here.Bsize, int64(here.Bavail)*here.Bsize
	b.OnThisDisk = size.Dir != "" && unix.Statfs(size.Dir, &there) == nil && here.Fsid == there.Fsid
	b.Days = daysUntilFull(&b)
	return &b, nil
}

// daysUntilFull goes on at today's rate until the disk is 95 % full, or until
// retention and limits have ended the growth; then it returns nil.
func daysUntilFull(b *control.Budget) *float64 {
	const full, longest = 0.95, 20 * 365
	room := float64(b.Free) - (1-full)*float64(b.Total)
	log, rows := float64(b.Log.Bytes), float64(b.Database.Bytes)
	logMost := max(log, min(float64(b.Log.LimitBytes), float64(b.Log.BytesPerD)*b.Log.KeepDays))
	rowsMost := max(rows, float64(b.Database.BytesPerD)*b.Database.KeepDays)
	if !b.OnThisDisk {
		rowsMost = rows
	}
	for n := range longest {
		grown := min(log+float64(b.Log.BytesPerD), logMost) - log + min(rows+float64(b.Database.BytesPerD), rowsMost) - rows
		switch {
		case room <= 0:
			days := float64(n)
			return &days
		case grown <= 0:
			return nil
		case grown > room:
			days := float64(n) + room/grown
			return &days
		}
		room -= grown
		log, rows = min(log+float64(b.Log.BytesPerD), logMost), min(rows+float64(b.Database.BytesPerD), rowsMost)
	}
	return nil
}

// handleVerify asks of every record of a time that is stored whether its rows
// are in the database.
func (a *app) handleVerify(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	const batch, places = 500, 20
	var q control.VerifyArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	_, w, _ := a.store.get()
	// Rows older than their retention are dropped: nobody misses them.
	q.From = later(q.From, time.Now().Add(-time.Duration(a.cfg.Retention.Rows)))
	out := control.Verified{Places: []control.Missing{}}
	var items []sqlstore.Item
	flush := func() error {
		if len(items) == 0 {
			return nil
		}
		rows, missing, err := store.Missing(ctx, &a.decoder, items)
		if err != nil {
			return err
		}
		out.Rows += rows
		out.Missing += missing
		if missing > 0 && len(out.Places) < places {
			at := func(i int) time.Time { return time.UnixMicro(items[i].Record.ReceivedAt).UTC() }
			out.Places = append(out.Places, control.Missing{From: at(0), To: at(len(items) - 1), Rows: missing})
		}
		items = items[:0]
		return nil
	}
	log := spool.NewReader(filepath.Join(a.cfg.DataDir, "spool"), 0)
	defer log.Close() //nolint:errcheck // read only
	limit := w.Status().Position
	var rec storage.Record
	said := time.Now()
	for ctx.Err() == nil {
		end, err := log.Next(limit, &rec)
		if errors.Is(err, io.EOF) {
			return control.Event[control.Verified, control.Verified]{Result: &out}, flush()
		}
		if err != nil {
			return nil, err
		}
		if at := time.UnixMicro(rec.ReceivedAt); at.Before(q.From) || !at.Before(q.To) || !event.IsFrame(&rec) {
			continue
		}
		out.Records++
		rec.Input, rec.Answer = append([]byte(nil), rec.Input...), nil
		if items = append(items, sqlstore.Item{Record: rec, End: end}); len(items) < batch {
			continue
		}
		if err := flush(); err != nil {
			return nil, err
		}
		if time.Since(said) > time.Second {
			said = time.Now()
			_ = send(control.Event[control.Verified, control.Verified]{Progress: &out})
		}
	}
	return nil, ctx.Err()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// handleSchema says how the tables are.
func (a *app) handleSchema(ctx context.Context, _ json.RawMessage, _ func(any) error) (any, error) {
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	return control.SchemaInfo{Version: store.Version(), Known: sqlstore.Schema(), Pending: max(0, sqlstore.Schema()-store.Version())}, nil
}
