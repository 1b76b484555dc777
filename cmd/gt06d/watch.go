package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/event"
	"gt06/storage/sqlstore"
)

// observe shows a record to those who look.
func (a *app) observe(rec *server.Record, m *protocol.Message, peer netip.AddrPort) {
	a.watchers.observe(&sighting{rec, m, peer})
	a.waits.observe(rec, m)
}

// sighting is a record of input that goes by. Nothing of it may be kept.
type sighting struct {
	rec  *server.Record
	m    *protocol.Message
	peer netip.AddrPort
}

// watchers look at frames that go by. They are called by the loops: none waits
// for anything.
type watchers struct {
	watch func() (off func()) // switches the server's observer on
	mu    sync.Mutex
	open  map[int]func(*sighting)
	next  int
}

func (w *watchers) observe(s *sighting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, see := range w.open {
		see(s)
	}
}

// add lets see look until off is called.
func (w *watchers) add(see func(*sighting)) (off func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[int]func(*sighting){}
	}
	w.next++
	n := w.next
	w.open[n] = see
	away := w.watch()
	return func() {
		away()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, n)
	}
}

// follow sends on what pick makes of frames, until the context ends. What
// cannot be sent fast enough is left out; pick learns how much it was, before
// the next one. past, if there is one, is asked for once nothing is missed any
// more, and may take its time.
func follow[T any](ctx context.Context, w *watchers, pick func(s *sighting, leftOut int) (T, bool), past func(context.Context) (T, error), send func(any) error) error {
	const most = 1024
	ch, failed := make(chan T, most), make(chan error, 1)
	leftOut := 0 // guarded by the watchers' lock
	defer w.add(func(s *sighting) {
		v, ok := pick(s, leftOut)
		if !ok {
			return
		}
		select {
		case ch <- v:
			leftOut = 0
		default:
			leftOut++
		}
	})()
	if past != nil {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() {
			v, err := past(ctx)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				failed <- err
			default:
				select {
				case ch <- v:
				case <-ctx.Done():
				}
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case v := <-ch:
			if err := send(v); err != nil {
				return err
			}
		}
	}
}

// handleTail is the verb of `gt06ctl tail`.
func (a *app) handleTail(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	var want control.TailArgs
	if len(args) > 0 {
		if err := arguments(args, &want); err != nil {
			return nil, err
		}
	}
	return nil, follow(ctx, &a.watchers, func(s *sighting, leftOut int) (control.Seen, bool) {
		if want.IMEI != "" && want.IMEI != s.rec.Device.String() || want.Unidentified && s.identified() {
			return control.Seen{}, false
		}
		return s.line(leftOut), true
	}, nil, send)
}

// identified says whether it is a frame of a known kind, whole, from a device
// that has named itself.
func (s *sighting) identified() bool {
	return s.rec.Device != 0 && s.m.Kind != protocol.KindUnknown && s.m.Error == "" && (s.m.CRCOK || s.m.Has&protocol.HasCRC == 0)
}

func (s *sighting) line(leftOut int) control.Seen {
	out := control.Seen{
		Time: time.UnixMicro(s.rec.ReceivedAt).UTC(), Conn: fmt.Sprintf("%x", s.rec.Conn), Remote: s.peer.String(),
		Hex: hex.EncodeToString(s.rec.Input), Answer: hex.EncodeToString(s.rec.Answer), UTCOffset: s.rec.UTCOffset, Model: s.rec.Model, LeftOut: leftOut,
		Frame: protocol.AppendJSON(nil, s.m, protocol.Session{IMEI: s.rec.Device}, s.rec.Answer),
	}
	if s.rec.Device != 0 {
		out.IMEI = s.rec.Device.String()
	}
	return out
}

// handleAlarms is the verb of `gt06ctl alarms`: what is stored, and with Follow
// what comes, from the same frames by the same rules.
func (a *app) handleAlarms(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	var q control.AlarmsArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	stored := func(ctx context.Context) ([]control.Alarm, error) {
		store, err := a.database(ctx)
		if err != nil {
			return nil, err
		}
		rows, err := store.Alarms(ctx, q.IMEI, q.Since, q.Most)
		list := make([]control.Alarm, 0, len(rows))
		for _, r := range rows {
			list = append(list, control.Alarm(r))
		}
		return list, err
	}
	if !q.Follow {
		return stored(ctx)
	}
	var rows event.Rows
	return nil, follow(ctx, &a.watchers, func(s *sighting, _ int) ([]control.Alarm, bool) {
		if s.m.Kind != protocol.KindAlarm || q.IMEI != "" && q.IMEI != s.rec.Device.String() {
			return nil, false
		}
		rows.Reset()
		event.Build(&rows, (*storage.Record)(s.rec), 0, s.m)
		return alarms(rows.Alarms), len(rows.Alarms) > 0
	}, func(ctx context.Context) ([]control.Alarm, error) {
		// What came before the watch began is stored before it is listed; a
		// database that is away is waited for.
		for pos := a.spool.End(); ; {
			if _, w, _ := a.store.get(); w != nil && w.Status().Position >= pos {
				return stored(ctx)
			}
			if !pause(ctx, 20*time.Millisecond) {
				return nil, ctx.Err()
			}
		}
	}, send)
}

func alarms(rows []event.Alarm) []control.Alarm {
	list := make([]control.Alarm, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		a := control.Alarm{IMEI: r.Device.String(), Time: time.Unix(r.FixTime, 0).UTC(), ReceivedAt: time.UnixMicro(r.ReceivedAt).UTC(), Alarm: r.Alarm}
		if r.Code != nil {
			code := int64(*r.Code)
			a.Code = &code
		}
		if r.HasFix {
			latitude, longitude := r.Latitude, r.Longitude
			a.Latitude, a.Longitude = &latitude, &longitude
		}
		list = append(list, a)
	}
	return list
}

// handleTrack is the verb of `gt06ctl track`.
func (a *app) handleTrack(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	var q control.TrackArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	err = store.Positions(ctx, q.IMEI, q.From, q.To, func(rows []sqlstore.Position) error {
		list := make([]control.Position, 0, len(rows))
		for i := range rows {
			list = append(list, control.Position(rows[i]))
		}
		return send(list)
	})
	if errors.Is(err, sqlstore.ErrNoDevice) {
		return nil, &control.Error{Text: fmt.Sprintf("no device %s has ever reported", q.IMEI), Code: int(cli.NoDevice), Hints: []string{"gt06ctl devices lists them"}}
	}
	return []control.Position{}, err
}
