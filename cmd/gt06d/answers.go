package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
	"gt06/storage/sqlstore"
)

// Status implements admin.Source and board.Source.
func (a *app) Status(context.Context) control.Status {
	st := control.Status{
		State: "ready", Reasons: []string{}, Version: cli.Version(), PID: os.Getpid(), Generation: a.spool.Generation(),
		UptimeS: int64(time.Since(a.began).Seconds()), Connections: a.server.Connections(), DevicesOnline: a.server.Registry().Len(), Listen: a.devices.Addr().String(),
		Spool: control.SpoolInfo{
			Position: uint64(a.spool.End()), Durable: uint64(a.spool.Durable()), Settled: uint64(a.spool.Settled()), Bytes: a.spool.Stats().Bytes,
		},
		Store: control.StoreInfo{Kind: a.cfg.Store.Kind, State: "opening"},
	}
	if t := a.spool.Stats().Oldest; !t.IsZero() {
		st.Spool.Oldest = t.Format(time.RFC3339)
	}
	_, w, err := a.store.get()
	st.Store.LastError = err
	st.Store.Lag = a.backlog.before.Load() + int64(a.spool.Stats().Appended)
	if a.spool.Generation() > 1 && !a.backlog.counted.Load() {
		st.Store.Lag = max(1, st.Store.Lag) // earlier owners may have left some: nobody has counted yet
	}
	if w != nil {
		ws := w.Status()
		st.Store.State, st.Store.LastError = string(ws.State), ws.LastError
		switch {
		case ws.Position >= a.spool.End():
			st.Store.Lag = 0
		case a.backlog.counted.Load(): // below zero when the cursor was set back: then some is left all the same
			if st.Store.Lag -= ws.Stored; st.Store.Lag < 0 {
				st.Store.Lag = 1
			}
		}
		if ws.State != sqlstore.StateOK {
			st.Reasons = append(st.Reasons, fmt.Sprintf("store is %s: %s", ws.State, ws.LastError))
		}
	} else if err != "" {
		st.Store.State = "down"
		st.Reasons = append(st.Reasons, "store is down: "+err)
	}
	if why := a.server.Stopped(); why != "" {
		st.Reasons = append(st.Reasons, "nothing is read: "+why)
	} else if err := a.spool.Room(); err != nil {
		st.Reasons = append(st.Reasons, err.Error())
	}
	var stuck []string
	st.Sinks, stuck = a.sinkStatus()
	st.Reasons = append(st.Reasons, stuck...)
	keeper, why := a.keep.state()
	if why != "" {
		st.Reasons = append(st.Reasons, why)
	}
	st.Keeper, st.LastUpgrade = keeper, a.lastUpgrade()
	a.health(&st)
	if len(st.Reasons) > 0 {
		st.State = "degraded"
	}
	st.Store.LastError = cli.Plain(st.Store.LastError)
	for i, why := range st.Reasons {
		st.Reasons[i] = cli.Plain(why)
	}
	if a.phase.Load() == phaseDraining {
		st.State = "draining"
	}
	return st
}

func (a *app) handlers() map[string]control.Handler {
	return map[string]control.Handler{
		"status": func(ctx context.Context, _ json.RawMessage, _ func(any) error) (any, error) {
			return a.Status(ctx), nil
		},
		"devices": func(context.Context, json.RawMessage, func(any) error) (any, error) {
			return a.board.Devices(), nil
		},
		"devices-change": a.handleDevicesChange,
		"devices-policy": a.handleDevicesPolicy,
		"problems": func(ctx context.Context, _ json.RawMessage, _ func(any) error) (any, error) {
			return a.Problems(ctx)
		},
		"validate": func(context.Context, json.RawMessage, func(any) error) (any, error) {
			return a.board.Validate(), nil
		},
		"tail":    a.handleTail,
		"alarms":  a.handleAlarms,
		"track":   a.handleTrack,
		"trace":   a.handleTrace,
		"support": a.handleSupport,
		"upgrade": a.handleUpgrade,
		"upgrades": func(context.Context, json.RawMessage, func(any) error) (any, error) {
			return a.history(historyBytes)
		},
		"stop": func(context.Context, json.RawMessage, func(any) error) (any, error) {
			select {
			case a.stops <- struct{}{}:
			default:
			}
			return struct{}{}, nil
		},
		"send":       a.handleSend,
		"quarantine": a.handleQuarantine,
		"replay":     a.handleReplay,
		"import":     a.handleImport,
		"history":    a.handleHistory,
		"budget":     a.handleBudget,
		"verify":     a.handleVerify,
		"schema":     a.handleSchema,
		"commands": func(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
			var q control.CommandsArgs
			if err := arguments(args, &q); err != nil {
				return nil, err
			}
			store, err := a.database(ctx)
			if err != nil {
				return nil, err
			}
			return store.Commands(ctx, q.IMEI, q.Most)
		},
		"rows": func(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
			var q control.RowsArgs
			if err := arguments(args, &q); err != nil {
				return nil, err
			}
			store, err := a.database(ctx)
			if err != nil {
				return nil, err
			}
			rows, err := store.Rows(ctx, q.IMEIs, q.Since)
			if rows == nil {
				rows = []sqlstore.Stored{}
			}
			return rows, err
		},
	}
}

// arguments reads what a verb was asked with.
func arguments(args json.RawMessage, into any) error {
	if err := json.Unmarshal(args, into); err != nil {
		return &control.Error{Text: err.Error(), Code: int(cli.Usage)}
	}
	return nil
}

// database returns the store, or why there is none. Right behind its start the
// server is opening it.
func (a *app) database(ctx context.Context) (*sqlstore.Store, error) {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		store, _, why := a.store.get()
		switch {
		case store != nil:
			return store, nil
		case why != "" || !pause(ctx, 20*time.Millisecond):
			return nil, &control.Error{
				Text: strings.TrimSuffix("the database is away: "+why, ": "), Code: int(cli.Timeout),
				Hints: []string{"gt06ctl status says more; what devices send meanwhile is in the log, and will be stored"},
			}
		}
	}
}

// coded gives an error its exit code on the way to the tool.
func coded(err error) error {
	if e, ok := errors.AsType[*cli.Error](err); ok {
		return &control.Error{Text: e.Error(), Code: int(e.Code), Hints: e.Hints}
	}
	return err
}

// handleUpgrade hands the request to run and passes on what happens. It goes on
// when whoever asked is gone.
func (a *app) handleUpgrade(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	req := upgradeRequest{progress: func(step string) { _ = send(control.UpgradeEvent{Step: step}) }, done: make(chan control.Upgrade, 1), told: make(chan struct{})}
	if len(args) > 0 {
		if err := arguments(args, &req.UpgradeArgs); err != nil {
			return nil, err
		}
	}
	early := make(chan control.Upgrade, 1)
	req.serving = func(out control.Upgrade) { early <- out }
	if !req.NoWait {
		req.serving = func(control.Upgrade) {}
	}
	select {
	case a.requests <- req:
	case <-ctx.Done():
		return nil, nil // this server ends: whoever asked asks the next one
	}
	var out control.Upgrade
	select {
	case out = <-req.done:
	case out = <-early:
	}
	defer close(req.told)
	return nil, send(control.UpgradeEvent{Result: &out})
}
