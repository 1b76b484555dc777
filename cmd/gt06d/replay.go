package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/event"
	"gt06/storage/photo"
	"gt06/storage/spool"
	"gt06/storage/sqlstore"
)

// replayBatch is how many records are stored again in one transaction.
const replayBatch = 500

// handleReplay decodes what the log still holds once more: of a time, of
// single frames, or of all that is in quarantine.
func (a *app) handleReplay(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	var q control.ReplayArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	r := replay{a: a, store: store, only: map[storage.Position]bool{}, args: q, send: send}
	if q.Quarantine {
		list, err := store.Quarantine(ctx, q.ID, 1<<30)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 && q.ID != 0 {
			return nil, &control.Error{Text: fmt.Sprintf("no frame %d is in quarantine", q.ID), Code: int(cli.Usage)}
		}
		for i := range list {
			r.only[list[i].Position] = true
		}
		r.wanted = len(list)
	}
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	return control.Event[control.Replayed, control.Replayed]{Result: &r.done}, nil
}

type replay struct {
	a      *app
	store  *sqlstore.Store
	args   control.ReplayArgs
	only   map[storage.Position]bool // ends of the records that are meant
	wanted int
	send   func(any) error
	items  []sqlstore.Item
	done   control.Replayed
}

func (r *replay) run(ctx context.Context) error {
	if r.args.Quarantine && len(r.only) == 0 {
		return nil
	}
	// What the store has not reached yet it decodes with today's decoder anyway.
	_, w, _ := r.a.store.get()
	limit := w.Status().Position
	log := spool.NewReader(filepath.Join(r.a.cfg.DataDir, "spool"), 0)
	defer log.Close() //nolint:errcheck // read only
	var rec storage.Record
	said := time.Now()
	for ctx.Err() == nil {
		end, err := log.Next(limit, &rec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		r.done.Read++
		if time.Since(said) > time.Second {
			said = time.Now()
			_ = r.send(control.Event[control.Replayed, control.Replayed]{Progress: &r.done})
		}
		at := time.UnixMicro(rec.ReceivedAt)
		switch {
		case !event.IsFrame(&rec):
			continue
		case r.args.Quarantine && !r.only[end]:
			continue
		case !r.args.Quarantine && (at.Before(r.args.From) || !at.Before(r.args.To)):
			continue
		}
		rec.Input, rec.Answer = append([]byte(nil), rec.Input...), nil
		if r.items = append(r.items, sqlstore.Item{Record: rec, End: end}); len(r.items) == replayBatch {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	if r.args.Quarantine {
		r.done.Gone = r.wanted - r.done.Frames
	}
	return ctx.Err()
}

func (r *replay) flush(ctx context.Context) error {
	if len(r.items) == 0 {
		return nil
	}
	done, err := r.store.Again(ctx, &r.a.decoder, photo.New(r.a.photoDir()), r.items)
	r.items = r.items[:0]
	r.done.Frames += done.Frames
	r.done.Left += done.Left
	r.done.Remained += done.Remained
	r.done.Refused += done.Refused
	return err
}

// handleQuarantine lists what is in quarantine.
func (a *app) handleQuarantine(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
	var q control.QuarantineArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	list, err := store.Quarantine(ctx, q.ID, q.Most)
	if err != nil {
		return nil, err
	}
	out := make([]control.Quarantined, 0, len(list))
	for i := range list {
		f := &list[i]
		out = append(out, control.Quarantined{ID: f.ID, IMEI: f.IMEI, ReceivedAt: f.ReceivedAt.Format(time.RFC3339), Hex: f.Hex, Reason: f.Reason})
	}
	return out, nil
}
