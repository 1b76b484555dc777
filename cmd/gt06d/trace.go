package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server/control"
)

const (
	// tracesMost is how many devices may be traced at a time, traceLongest for
	// how long: a log is read by people.
	tracesMost   = 20
	traceLongest = 24 * time.Hour
	// traceBytes is how much of one frame is logged.
	traceBytes = 2 << 10
)

// traces are the devices whose frames are logged, until a time each. The file
// lets the next server go on, after an upgrade or a crash.
type traces struct {
	path    string
	mu      sync.Mutex
	until   map[protocol.IMEI]control.Trace
	wanted  atomic.Pointer[map[protocol.IMEI]bool] // what the loops look at
	changed chan struct{}
}

// traceFile is traces.json, see readState.
type traceFile struct {
	Version int             `json:"version"`
	Traces  []control.Trace `json:"traces"`
}

func (t *traces) load(path string) error {
	t.path, t.until, t.changed = path, map[protocol.IMEI]control.Trace{}, make(chan struct{}, 1)
	var f traceFile
	if err := readState(path, &f); err != nil {
		return err
	}
	for _, have := range f.Traces {
		if imei, err := protocol.ParseIMEI(have.IMEI); err == nil {
			t.until[imei] = have
		}
	}
	return nil
}

// list returns the traces by IMEI. mu is held.
func (t *traces) list() []control.Trace {
	list := slices.Collect(maps.Values(t.until))
	slices.SortFunc(list, func(a, b control.Trace) int { return strings.Compare(a.IMEI, b.IMEI) })
	if list == nil {
		list = []control.Trace{}
	}
	return list
}

// set begins, prolongs or (with a zero time) ends a trace, and returns all.
func (t *traces) set(imei protocol.IMEI, until time.Time, by string) ([]control.Trace, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, had := t.until[imei]
	switch {
	case imei == 0:
		return t.list(), nil
	case until.IsZero():
		delete(t.until, imei)
	case !had && len(t.until) >= tracesMost:
		return nil, cli.Fail(cli.Refused, fmt.Errorf("%d devices are traced already", len(t.until)), "gt06ctl trace lists them; gt06ctl trace IMEI --off ends one")
	default:
		t.until[imei] = control.Trace{IMEI: imei.String(), Until: until.UTC().Truncate(time.Second), By: by}
	}
	if err := t.save(); err != nil {
		if delete(t.until, imei); had {
			t.until[imei] = old
		}
		return nil, cli.Fail(cli.NotWritable, err)
	}
	select {
	case t.changed <- struct{}{}:
	default:
	}
	return t.list(), nil
}

// save writes the file anew. mu is held.
func (t *traces) save() error { return writeState(t.path, traceFile{stateVersion, t.list()}) }

// expire forgets what is over and says what is wanted and when the next ends.
func (t *traces) expire(now time.Time) (ended []control.Trace, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = traceLongest
	wanted := map[protocol.IMEI]bool{}
	for imei, have := range t.until {
		if left := have.Until.Sub(now); left > 0 {
			wanted[imei], next = true, min(next, left)
			continue
		}
		ended = append(ended, have)
		delete(t.until, imei)
	}
	if len(ended) > 0 {
		_ = t.save() // what is over when it is read is forgotten again
	}
	t.wanted.Store(&wanted)
	return ended, next
}

// runTraces logs the frames of traced devices. The loops hand lines over and
// never wait for the log.
func (a *app) runTraces(ctx context.Context) {
	t := &a.traces
	const most = 256
	lines := make(chan []zap.Field, most)
	var leftOut atomic.Int64
	see := func(s *sighting) {
		if s.rec.Device == 0 || !(*t.wanted.Load())[s.rec.Device] {
			return
		}
		select {
		case lines <- s.fields():
		default:
			leftOut.Add(1)
		}
	}
	var off func()
	for {
		ended, next := t.expire(time.Now())
		for _, e := range ended {
			a.log.Info("trace ends", zap.String("imei", e.IMEI))
		}
		switch some := len(*t.wanted.Load()) > 0; {
		case some && off == nil:
			off = a.watchers.add(see)
		case !some && off != nil:
			off()
			off = nil
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			if off != nil {
				off()
			}
			timer.Stop()
			return
		case <-t.changed:
		case <-timer.C:
		case line := <-lines:
			if n := leftOut.Swap(0); n > 0 {
				line = append(line, zap.Int64("left_out", n))
			}
			a.traceLog.Info("frame", line...)
		}
		timer.Stop()
	}
}

func (s *sighting) fields() []zap.Field {
	shown := func(b []byte) string {
		if len(b) > traceBytes {
			return hex.EncodeToString(b[:traceBytes]) + "…"
		}
		return hex.EncodeToString(b)
	}
	return []zap.Field{
		zap.Stringer("imei", s.rec.Device), zap.Stringer("remote", s.peer), zap.Time("received", time.UnixMicro(s.rec.ReceivedAt).UTC()),
		zap.String("hex", shown(s.rec.Input)), zap.String("answer", shown(s.rec.Answer)),
		zap.Any("frame", json.RawMessage(protocol.AppendJSON(nil, s.m, protocol.Session{IMEI: s.rec.Device}, nil))),
	}
}

// handleTrace is the verb of `gt06ctl trace`.
func (a *app) handleTrace(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
	var q control.TraceArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	var imei protocol.IMEI
	var until time.Time
	if q.IMEI != "" {
		var err error
		if imei, err = protocol.ParseIMEI(q.IMEI); err != nil {
			return nil, coded(cli.Fail(cli.Usage, err))
		}
	}
	if q.For > traceLongest {
		return nil, coded(cli.Fail(cli.Usage, fmt.Errorf("a trace lasts %v at most", traceLongest)))
	}
	if q.For > 0 {
		until = time.Now().Add(q.For)
	}
	list, err := a.traces.set(imei, until, control.Caller(ctx))
	if err == nil && imei != 0 {
		a.log.Info("trace", zap.Stringer("imei", imei), zap.Duration("for", q.For), zap.String("by", control.Caller(ctx)))
	}
	return list, coded(err)
}

func (a *app) tracesPath() string { return filepath.Join(a.cfg.DataDir, "traces.json") }
