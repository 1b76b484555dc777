package runbook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/backup"
	"gt06/ops/host"
	"gt06/server/control"
)

// The services in the SOP's order (section 6).
const (
	restartDB      = "db"
	restartBackend = "backend"
	restartPM2     = "pm2"
	restartNginx   = "nginx"
	restartTraccar = "traccar"
	restartGT06    = "gt06"
	restartAll     = "all"
)

// Services are what Restart takes.
func Services() []string {
	return []string{restartAll, restartDB, restartBackend, restartPM2, restartNginx, restartTraccar, restartGT06}
}

// Restart brings services to the state they should have, in the SOP's order:
// the database is checked and started when it does not run, never restarted
// silently; the backend is migrated behind a dump; pm2 is brought back; nginx
// is reloaded; the GT06 server is upgraded to itself, which no device notices.
func (m *Machine) Restart(what, uri string) ops.Runbook {
	return ops.Runbook{
		Name: "restart",
		Discover: func(ctx context.Context) (ops.Params, error) {
			if !slices.Contains(Services(), what) {
				return nil, ops.Fail(ops.Usage, fmt.Errorf("%q is no service: %s", what, strings.Join(Services(), ", ")), "gt06ctl ops restart --help")
			}
			p := ops.Params{"what": what, "place": m.where(uri)}
			wants := func(s string) bool { return what == s || what == restartAll }
			if wants(restartBackend) && m.Config.Services.LaravelDir != "" {
				pending, err := m.Laravel.Pending(ctx)
				if err != nil {
					return nil, err
				}
				p["migrations"] = "none"
				if pending != "" {
					sum := sha256.Sum256([]byte(pending))
					p["migrations"] = fmt.Sprintf("%d statements, %s", strings.Count(pending, "\n")+1, hex.EncodeToString(sum[:8]))
				}
			}
			if wants(restartTraccar) && m.Config.Services.Traccar {
				p["traccar"] = "enabled"
			}
			if wants(restartGT06) {
				var status control.Status
				err := m.Server.Call(ctx, "status", nil, &status)
				switch {
				case err == nil:
					p["gt06"] = "runs"
				case what == restartGT06:
					return nil, ops.Fail(ops.Refused, fmt.Errorf("gt06d cannot be asked: %w", err), "gt06ctl ops port", "before the takeover: gt06ctl ops takeover --apply")
				default:
					p["gt06"] = "is not asked: it does not run here"
				}
			}
			return p, nil
		},
		Steps: m.restartSteps,
	}
}

func (m *Machine) restartSteps(p ops.Params) []ops.Step {
	what := p["what"]
	wants := func(s string) bool { return what == s || what == restartAll }
	// Of all, those that the configuration names.
	has := func(s, unit string) bool { return what == s || what == restartAll && unit != "" }
	var out []ops.Step
	if has(restartDB, m.Config.Services.MariaDB) {
		out = append(out, m.database())
	}
	if wants(restartBackend) && p["migrations"] != "none" && p["migrations"] != "" {
		out = append(out, m.dump("db.dump", p["place"]), m.migrate(p["migrations"]))
	}
	if wants(restartPM2) && len(m.Config.Services.PM2Apps) > 0 {
		out = append(out, m.resurrect())
	}
	if has(restartNginx, m.Config.Services.NginxUnit) {
		out = append(out, m.reload())
	}
	if p["traccar"] != "" {
		out = append(out, m.unit("traccar.service"))
	}
	if p["gt06"] == "runs" {
		out = append(out, m.upgrade())
	}
	return out
}

func (m *Machine) database() ops.Step {
	return ops.Step{
		ID: "mariadb.check", Class: ops.Guest, Title: "see that MariaDB answers; start it only when it does not run",
		Do: func(ctx context.Context, _ *ops.Run) error {
			if m.DB.Ping(ctx) == nil {
				return nil
			}
			u, err := m.Unit(ctx, "mariadb.service", "mysql.service")
			if err != nil || u.Active() || u.State == host.NoSystemd {
				return err
			}
			return m.Systemctl(ctx, "start", u.Name)
		},
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			// That it does not answer is what was looked for, not a failed look.
			if err := m.DB.Ping(ctx); err != nil {
				return ops.State{Seen: err.Error()}, nil //nolint:nilerr // see above
			}
			return ops.State{Done: true, Seen: "SELECT 1 answers"}, nil
		},
	}
}

// dump makes a backup within a run. A resume sees by its time that there is
// one.
func (m *Machine) dump(id, uri string) ops.Step {
	source := strings.Join(slices.Sorted(slices.Values(m.Config.Backup.DBs)), " ")
	return ops.Step{
		ID: id, Class: ops.Guest, Title: "dump " + source + " and check it",
		Precheck: func(_ context.Context, r *ops.Run) error {
			r.Keep("since", m.Now().UTC().Truncate(time.Second).Format(time.RFC3339))
			return nil
		},
		Do: func(ctx context.Context, r *ops.Run) error {
			p, err := m.Places(uri)
			if err != nil {
				return err
			}
			_, err = backup.Dump(ctx, m.DB, m.Config.Backup.DBs, p, backup.Options{Now: m.Now, Progress: r.Progress})
			return err
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			p, err := m.Places(uri)
			if err != nil {
				return ops.State{}, err
			}
			last, ok, err := backup.Last(ctx, p, backup.MariaDB, source)
			since, _ := time.Parse(time.RFC3339, r.Kept("since"))
			if err != nil || !ok || last.Begun.Before(since) {
				return ops.State{Seen: "no dump since " + r.Kept("since")}, err
			}
			if err := backup.Check(ctx, p, last); errors.Is(err, backup.ErrDamaged) {
				return ops.State{Seen: err.Error()}, nil
			} else if err != nil {
				return ops.State{}, err
			}
			_, rows, _ := last.Contents.Count()
			return ops.State{Done: true, Seen: fmt.Sprintf("%s in %s, %d rows", last.Name, p, rows), Out: map[string]string{"dump": last.Name}}, nil
		},
	}
}

func (m *Machine) migrate(what string) ops.Step {
	return ops.Step{
		ID: "laravel.migrate", Class: ops.Guest, Title: "php artisan migrate --force: " + what,
		Precheck: func(ctx context.Context, r *ops.Run) error {
			pending, err := m.Laravel.Pending(ctx)
			r.Progress(pending)
			return err
		},
		Do: func(ctx context.Context, r *ops.Run) error {
			if err := m.Laravel.Migrate(ctx); err != nil {
				// MariaDB commits every statement of a schema by itself.
				return ops.Fail(ops.StepFailed, fmt.Errorf("%w; what the migration did before that is done, and it will not pass a second time as it is", err),
					"undo by hand what it made, or go back: gt06ctl ops restore db "+r.Out("db.dump", "dump")+" --apply", "mend the migration, then gt06ctl ops change resume")
			}
			return nil
		},
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			pending, err := m.Laravel.Pending(ctx)
			if err != nil {
				return ops.State{}, err
			}
			if pending != "" {
				return ops.State{Seen: "pending: " + pending}, nil
			}
			return ops.State{Done: true, Seen: "nothing to migrate"}, nil
		},
	}
}

// oldService is what the SOP calls the program the GT06 server takes over from.
const oldService = "gt06-gps-service"

func (m *Machine) resurrect() ops.Step {
	names := m.Config.Services.PM2Apps
	return ops.Step{
		ID: "pm2.resurrect", Class: ops.Guest, Title: "bring back " + strings.Join(names, ", "),
		Precheck: func(ctx context.Context, _ *ops.Run) error {
			saved, err := m.PM2.Saved()
			if err != nil {
				return err
			}
			port, _, err := m.port(ctx, m.Config.GT06.Port)
			if err == nil && slices.Contains(saved, oldService) && port.Ours {
				err = ops.Fail(ops.Refused, fmt.Errorf("pm2 would start %s again, whose port %d is gt06d's", oldService, port.Number), "take it from pm2's list: gt06ctl ops takeover --apply")
			}
			return err
		},
		Do: func(ctx context.Context, _ *ops.Run) error { return m.PM2.Resurrect(ctx) },
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			sick, err := m.PM2.Sick(ctx, names, m.Watch)
			seen := make([]string, 0, len(sick))
			for _, name := range slices.Sorted(maps.Keys(sick)) {
				seen = append(seen, name+": "+sick[name])
			}
			return ops.State{Done: err == nil && len(sick) == 0, Seen: strings.Join(append(seen, fmt.Sprintf("%d of %d well", len(names)-len(sick), len(names))), "; ")}, err
		},
	}
}

func (m *Machine) reload() ops.Step {
	workers := func() (string, error) {
		pids, err := m.Nginx.Workers()
		return strings.Trim(fmt.Sprint(pids), "[]"), err
	}
	return ops.Step{
		ID: "nginx.reload", Class: ops.Guest, Title: "nginx -t, reload, wait for new workers",
		Precheck: func(ctx context.Context, r *ops.Run) error {
			pids, err := workers()
			r.Keep("workers", pids)
			if err == nil {
				err = m.Nginx.Test(ctx)
			}
			if err != nil {
				return ops.Fail(ops.Refused, err, "mend the configuration; nginx serves on with the one before: sudo nginx -t")
			}
			return nil
		},
		Do: func(ctx context.Context, _ *ops.Run) error { return m.Nginx.Reload(ctx) },
		Postcheck: func(_ context.Context, r *ops.Run) (ops.State, error) {
			now, err := workers()
			before := strings.Fields(r.Kept("workers"))
			old := slices.ContainsFunc(strings.Fields(now), func(pid string) bool { return slices.Contains(before, pid) })
			return ops.State{Done: err == nil && now != "" && !old, Seen: fmt.Sprintf("workers %s, before %s", now, r.Kept("workers"))}, err
		},
	}
}

func (m *Machine) unit(name string) ops.Step {
	return ops.Step{
		ID: strings.TrimSuffix(name, ".service") + ".restart", Class: ops.Guest, Title: "restart " + name, Downtime: 30 * time.Second,
		Precheck: func(ctx context.Context, r *ops.Run) error {
			u, err := m.Unit(ctx, name)
			r.Keep("pid", strconv.Itoa(u.MainPID))
			return err
		},
		Do: func(ctx context.Context, _ *ops.Run) error { return m.Systemctl(ctx, "restart", name) },
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			u, err := m.Unit(ctx, name)
			return ops.State{Done: u.Active() && strconv.Itoa(u.MainPID) != r.Kept("pid"), Seen: fmt.Sprintf("%s is %s, pid %d, before %s", u.Name, u.State, u.MainPID, r.Kept("pid"))}, err
		},
	}
}

// upgrade replaces the GT06 server by the same program: a restart no device
// notices. The gate's evidence goes along for a server that wants it.
func (m *Machine) upgrade() ops.Step {
	generation := func(ctx context.Context) (uint64, control.Status, error) {
		var s control.Status
		err := m.Server.Call(ctx, "status", nil, &s)
		return s.Generation, s, err
	}
	return ops.Step{
		ID: "gt06.upgrade", Class: ops.Guest, Title: "hand the devices to a new process of gt06d",
		Precheck: func(ctx context.Context, r *ops.Run) error {
			g, _, err := generation(ctx)
			r.Keep("generation", strconv.FormatUint(g, 10))
			return err
		},
		Do: func(ctx context.Context, r *ops.Run) error {
			proof := r.Proof()
			var result *control.Upgrade
			err := m.Server.Stream(ctx, "upgrade", control.UpgradeArgs{Change: &proof}, func(b json.RawMessage) error {
				var e control.UpgradeEvent
				if err := json.Unmarshal(b, &e); err != nil {
					return err
				}
				if e.Step != "" {
					r.Progress(e.Step)
				}
				if e.Result != nil {
					result = e.Result
				}
				return nil
			})
			switch {
			case result != nil && result.Result == control.Upgraded:
				return nil
			case result != nil:
				return ops.Fail(ops.StepFailed, fmt.Errorf("%s: %s", result.Result, result.Reason), "the server of before serves on: gt06ctl status")
			case err != nil:
				return err
			}
			return errors.New("gt06d ended without a result")
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			g, s, err := generation(ctx)
			if err != nil {
				return ops.State{}, err
			}
			before, _ := strconv.ParseUint(r.Kept("generation"), 10, 64)
			return ops.State{Done: g > before && s.State != "draining", Seen: fmt.Sprintf("generation %d, before %d, %s, %d devices online", g, before, s.State, s.DevicesOnline)}, nil
		},
	}
}
