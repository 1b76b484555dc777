package main

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"gt06/protocol"
	"gt06/server"
	"gt06/server/admin"
	"gt06/server/board"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/event"
	"gt06/storage/spool"
	"gt06/storage/sqlstore"
)

func (a *app) makeBoard() {
	a.board = board.New(board.Options{
		Settings: board.Settings{Window: time.Duration(a.cfg.Checks.Window), Silent: time.Duration(a.cfg.Checks.Silent)},
		Source:   looks{a}, Began: a.began, Tiles: a.cfg.Board.TilesURL, Attribution: a.cfg.Board.TilesAttribution, Logger: a.log,
	})
	a.fleet.learn = a.learn
}

// openBoard lets the board go on where the server before ended. Its rates lie
// beside the sockets: they outlive this process, and need not outlive the
// machine.
func (a *app) openBoard() error {
	path, err := runtimeFile(a.cfg.DataDir, "rates")
	if err != nil {
		return notWritable(a.cfg.DataDir, err)
	}
	a.board.Open(path)
	return nil
}

// looks is the app as those who only look see it.
type looks struct{ *app }

var (
	_ admin.Source = looks{}
	_ board.Source = looks{}
)

// Devices implements admin.Source.
func (l looks) Devices() []control.Device { return l.board.Devices() }

// Validate implements admin.Source.
func (l looks) Validate() control.Validation { return l.board.Validate() }

// Online implements board.Source.
func (l looks) Online() []server.Online { return l.server.Registry().Online() }

// Totals implements board.Source.
func (l looks) Totals() server.Totals { return l.server.Totals() }

// Upgrades implements board.Source.
func (l looks) Upgrades() ([]control.Upgrade, error) {
	const enough = 8 << 10
	return l.history(enough)
}

// Troubles implements board.Source.
func (l looks) Troubles() map[protocol.IMEI][]string {
	all := map[protocol.IMEI][]string{}
	for _, t := range l.server.Troubles() {
		all[t.IMEI] = append(all[t.IMEI], string(t.Kind))
	}
	if _, w, _ := l.store.get(); w != nil {
		for imei, list := range w.Problems() {
			for i := range list {
				all[imei] = append(all[imei], string(list[i].Kind))
			}
		}
	}
	return all
}

// Track implements board.Source.
func (l looks) Track(ctx context.Context, imei string, from, to time.Time, most int) ([]board.Point, error) {
	store, err := l.database(ctx)
	if err != nil {
		return nil, err
	}
	points := []board.Point{}
	err = store.Positions(ctx, imei, from, to, func(rows []sqlstore.Position) error {
		for i := range rows {
			if r := &rows[i]; r.Latitude != nil && r.Longitude != nil {
				points = append(points, board.Point{
					Time: r.Time, Latitude: *r.Latitude, Longitude: *r.Longitude, SpeedKMH: orZero(r.SpeedKMH), Course: orZero(r.Course), Ignition: r.Ignition, Alarm: r.Alarm,
				})
			}
		}
		points = points[max(0, len(points)-most):]
		return nil
	})
	if errors.Is(err, sqlstore.ErrNoDevice) {
		err = nil
	}
	return points, err
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// remember tells the board the alarms of the last day, which an earlier process
// stored.
func (a *app) remember(ctx context.Context, store *sqlstore.Store) {
	list, err := store.RecentAlarms(ctx, time.Now().Add(-24*time.Hour), board.KeptAlarms)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Warn("read the alarms", zap.Error(err))
		}
		return
	}
	alarms := make([]board.Alarm, len(list))
	for i := range list {
		r := &list[i]
		alarms[i] = board.Alarm{IMEI: r.IMEI, Alarm: r.Alarm, Time: r.Time.Format(time.RFC3339), Latitude: r.Latitude, Longitude: r.Longitude}
	}
	a.board.Remember(alarms)
}

// learn tells the board what the database says of the devices.
func (a *app) learn(each func(learn func(*sqlstore.Device)) error) error {
	return a.board.Fleet.Learn(func(learn func(*board.Known)) error {
		return each(func(d *sqlstore.Device) {
			known := board.Known{IMEI: d.IMEI, Name: d.Name, Model: d.Model, Status: d.Status, Seen: d.LastSeen}
			if !d.FixTime.IsZero() && d.HasFix {
				known.Fix = board.Fix{Time: d.FixTime.Unix(), Latitude: d.Latitude, Longitude: d.Longitude, SpeedKMH: d.SpeedKMH, Course: d.Course}
			}
			learn(&known)
		})
	})
}

// stored tells the board what was committed.
func (a *app) stored(rows *event.Rows) {
	n := board.News{Seen: rows.Seen}
	for i := range rows.Positions {
		p := &rows.Positions[i]
		if !p.Believed { // nor is it in latest_positions
			continue
		}
		n.Fixes = append(n.Fixes, board.Fix{
			IMEI: p.Device, Time: p.FixTime, Latitude: p.Latitude, Longitude: p.Longitude, SpeedKMH: p.SpeedKMH, Course: p.Course,
			Ignition: p.Ignition,
		})
	}
	for i := range rows.Heartbeats {
		h := &rows.Heartbeats[i]
		n.Beats = append(n.Beats, board.Beat{IMEI: h.Device, Battery: h.Battery, Ignition: h.Ignition, Charging: h.Charging})
	}
	for i := range rows.Alarms {
		r := &rows.Alarms[i]
		alarm := board.Alarm{IMEI: r.Device.String(), Alarm: r.Alarm, Time: time.Unix(r.FixTime, 0).UTC().Format(time.RFC3339)}
		if r.HasFix {
			latitude, longitude := r.Latitude, r.Longitude // the rows are used again
			alarm.Latitude, alarm.Longitude = &latitude, &longitude
		}
		n.Alarms = append(n.Alarms, alarm)
	}
	a.board.Stored(&n)
}

// Frames implements board.Source. It reads the log in pieces from its end: a
// device that spoke lately costs one.
func (l looks) Frames(ctx context.Context, imei string, before uint64, most int) (board.Frames, error) {
	const piece, pieces = 8 << 20, 12
	found := board.Frames{Frames: []board.Frame{}}
	id, err := protocol.ParseIMEI(imei)
	if err != nil {
		return found, err
	}
	dir := filepath.Join(l.cfg.DataDir, "spool")
	limit, below := position(before), position(before) // records that end below it are of interest
	if before == 0 {
		limit = l.spool.Durable()
		below = limit + 1
	}
	for range pieces {
		from, err := spool.Back(dir, limit, piece)
		if err != nil {
			return found, err
		}
		first, received, frames, err := framesOf(ctx, dir, from, limit, below, id)
		if err != nil {
			return found, err
		}
		slices.Reverse(frames)
		found.Frames = append(found.Frames, frames...)
		if len(found.Frames) > most {
			found.Frames = found.Frames[:most]
		}
		if len(found.Frames) == most {
			last := found.Frames[most-1]
			found.Before, found.Since = last.Position, last.Time
			return found, nil
		}
		if from == 0 {
			found.Before, found.Since = 0, ""
			return found, nil
		}
		if received > 0 {
			found.Since = time.UnixMicro(received).UTC().Format(time.RFC3339Nano)
		}
		// The record that the piece begins within ends where its first one
		// begins: the next piece reads it and that first one again.
		limit, below = max(first, from), first
		found.Before = uint64(limit)
	}
	return found, nil
}

// framesOf returns the frames of a device in a piece of the log, the oldest
// first, and where its first record ends and when that was received.
func framesOf(ctx context.Context, dir string, from, limit, below storage.Position, id protocol.IMEI) (first storage.Position, received int64, frames []board.Frame, err error) {
	r := spool.NewReader(dir, from)
	defer func() { err = errors.Join(err, r.Close()) }()
	var rec storage.Record
	for n := 0; ; n++ {
		pos, err := r.Next(limit, &rec)
		if errors.Is(err, io.EOF) {
			return first, received, frames, nil
		}
		if err != nil {
			return first, received, frames, err
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return first, received, frames, ctx.Err()
		}
		if first == 0 {
			first, received = pos, rec.ReceivedAt
		}
		if rec.Device == id && pos < below && event.IsFrame(&rec) {
			frames = append(frames, explain(pos, &rec))
		}
	}
}

// explain names the bytes of a frame, as gt06ctl decode does.
func explain(pos storage.Position, rec *storage.Record) board.Frame {
	var d protocol.Decoder
	var m protocol.Message
	session := protocol.Session{IMEI: rec.Device, UTCOffset: rec.UTCOffset, Model: rec.Model}
	d.Decode(&m, rec.Input, session)
	f := board.Frame{
		Position: uint64(pos), Time: time.UnixMicro(rec.ReceivedAt).UTC().Format(time.RFC3339Nano), Kind: m.Kind.String(),
		Hex: hex.EncodeToString(rec.Input), Error: m.Error, Answers: []string{},
	}
	for _, r := range d.Explain(rec.Input, session) {
		f.Ranges = append(f.Ranges, board.Range(r))
	}
	protocol.EachFrame(rec.Answer, func(b []byte) { f.Answers = append(f.Answers, hex.EncodeToString(b)) })
	return f
}
