package runbook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/backup"
	"gt06/server/control"
)

// RestoreDB puts schemas of a dump over those of now, which are dumped first.
// Of the gt06 schema nothing is lost: its cursor goes back with it, and gt06d
// stores again what its log holds.
func (m *Machine) RestoreDB(name string, schemas []string, uri string) ops.Runbook {
	return ops.Runbook{
		Name: "restore db", Restores: true,
		Discover: func(ctx context.Context) (ops.Params, error) {
			p, err := m.Places(m.where(uri))
			if err != nil {
				return nil, err
			}
			b, err := backup.Read(ctx, p, name)
			if err != nil {
				return nil, ops.Fail(ops.Refused, err, "gt06ctl ops backup list")
			}
			if err := backup.Check(ctx, p, b); err != nil {
				return nil, ops.Fail(ops.Red, err, "gt06ctl ops backup list")
			}
			if len(schemas) == 0 {
				schemas = strings.Fields(b.Source)
			}
			for _, s := range schemas {
				if b.Contents[s] == nil {
					return nil, ops.Fail(ops.Usage, fmt.Errorf("%s holds %s, not %s", name, b.Source, s))
				}
			}
			slices.Sort(schemas)
			return ops.Params{"dump": name, "place": m.where(uri), "taken": b.Begun.Format(time.RFC3339), "schemas": strings.Join(schemas, " ")}, nil
		},
		Steps: func(p ops.Params) []ops.Step {
			steps := []ops.Step{m.dump("db.before", p["place"]), m.load(p)}
			if slices.Contains(strings.Fields(p["schemas"]), "gt06") {
				steps = append(steps, m.catchUp())
			}
			return steps
		},
	}
}

func (m *Machine) load(p ops.Params) ops.Step {
	schemas := strings.Fields(p["schemas"])
	return ops.Step{
		ID: "db.load", Class: ops.Guest, Title: fmt.Sprintf("put %s of %s, taken %s, over those of now", p["schemas"], p["dump"], p["taken"]), Downtime: 2 * time.Minute,
		Do: func(ctx context.Context, r *ops.Run) error {
			at, b, err := m.named(ctx, p["dump"], p["place"])
			if err != nil {
				return err
			}
			if err := backup.Load(ctx, m.DB, at, b, schemas, r.Token()); err != nil {
				return ops.Fail(ops.StepFailed, fmt.Errorf("%w: the schemas may be half restored", err), "give it again, or go back: gt06ctl ops restore db "+r.Out("db.before", "dump")+" --apply")
			}
			r.Keep("loaded", "yes")
			return nil
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			loaded, err := backup.Loaded(ctx, m.DB, schemas, r.Token())
			if err != nil || !loaded && r.Kept("loaded") == "" {
				return ops.State{Seen: "not loaded"}, err
			}
			_, b, err := m.named(ctx, p["dump"], p["place"])
			if err != nil {
				return ops.State{}, err
			}
			differs, err := backup.Compare(ctx, m.DB, b, schemas)
			if err != nil || len(differs) > 0 {
				return ops.State{Seen: strings.Join(differs, "; ")}, err
			}
			return ops.State{Done: true, Seen: "tables, triggers, events and routines are those of the dump"}, nil
		},
	}
}

func (m *Machine) named(ctx context.Context, name, uri string) (backup.Place, backup.Manifest, error) {
	p, err := m.Places(uri)
	if err != nil {
		return nil, backup.Manifest{}, err
	}
	b, err := backup.Read(ctx, p, name)
	return p, b, err
}

// catchUp waits until gt06d has stored what its log holds since the dump.
func (m *Machine) catchUp() ops.Step {
	ask := func(ctx context.Context) (control.Status, error) {
		var s control.Status
		err := m.Server.Call(ctx, "status", nil, &s)
		return s, err
	}
	return ops.Step{
		ID: "gt06.store", Class: ops.Read, Title: "wait until gt06d has stored again what its log holds since",
		Do: func(ctx context.Context, r *ops.Run) error {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			var told int64 = -1
			for limit := time.After(10 * time.Minute); ; {
				s, err := ask(ctx)
				if err != nil || s.Store.State == "ok" && s.Store.Lag == 0 {
					return err
				}
				if s.Store.Lag != told {
					told = s.Store.Lag
					r.Progress(fmt.Sprintf("store is %s, %d records behind", s.Store.State, told))
				}
				select {
				case <-tick.C:
				case <-limit:
					return nil // the postcheck says how far it is
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			s, err := ask(ctx)
			return ops.State{Done: err == nil && s.Store.State == "ok" && s.Store.Lag == 0, Seen: fmt.Sprintf("store is %s, %d records behind", s.Store.State, s.Store.Lag)}, err
		},
	}
}
