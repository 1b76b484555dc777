package runbook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/host"
)

// Takeover gives the devices' port from a program of pm2 to gt06d, or back. The
// program is taken from pm2's list only when gt06d serves, so that a start that
// fails is undone by starting it again.
func (m *Machine) Takeover(back bool, app, dir, script string) ops.Runbook {
	return ops.Runbook{
		Name: "takeover",
		Discover: func(ctx context.Context) (ops.Params, error) {
			p := ops.Params{"app": app, "dir": dir, "script": script, "unit": m.Config.GT06.Unit, "port": fmt.Sprint(m.Config.GT06.Port)}
			if back {
				p["back"] = "yes"
				if dir == "" || script == "" {
					return nil, ops.Fail(ops.Usage, errors.New("where the program of before is must be said"), "gt06ctl ops takeover --back --dir /home/ubuntu/gt06-server --script index.js --apply")
				}
				return p, nil
			}
			apps, err := m.PM2.List(ctx)
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(apps, func(a host.App) bool { return a.Name == app })
			saved, err := m.PM2.Saved()
			if err != nil {
				return nil, err
			}
			if i < 0 && !slices.Contains(saved, app) {
				p["app"] = "" // nothing to stop
				return p, nil
			}
			if i >= 0 {
				p["dir"], p["script"] = apps[i].Dir, apps[i].Script
			}
			return p, nil
		},
		Steps: func(p ops.Params) []ops.Step {
			if p["back"] != "" {
				return []ops.Step{m.givePort(p)}
			}
			if p["app"] == "" {
				return []ops.Step{m.takePort(p)}
			}
			return []ops.Step{m.takePort(p), m.forgetApp(p)}
		},
	}
}

// brief is how long devices wait on a connection refused before anything is
// noticed: seconds between two programs that cannot hand over.
const brief = 5 * time.Second

// takePort is one step, because half of it is nobody on the port: stop the
// program, start the unit; or both as before.
func (m *Machine) takePort(p ops.Params) ops.Step {
	title := "start " + p["unit"] + " and see that it holds port " + p["port"]
	if p["app"] != "" {
		title = "stop " + p["app"] + " of pm2, " + title
	}
	return ops.Step{
		ID: "port.take", Class: ops.Guest, Title: title, Downtime: brief,
		Precheck: func(ctx context.Context, _ *ops.Run) error {
			port, err := m.Port(ctx)
			if err == nil && port.Taken && !port.Ours && port.PM2 != p["app"] {
				err = m.strange(port, p["app"])
			}
			return err
		},
		Do: func(ctx context.Context, _ *ops.Run) error {
			_, listed, err := m.listed(ctx, p["app"])
			if err == nil && listed {
				err = m.PM2.Stop(ctx, p["app"])
			}
			if err != nil {
				return err
			}
			port, err := m.Port(ctx)
			if err == nil && port.Taken && !port.Ours {
				err = m.strange(port, p["app"])
			}
			if err != nil {
				return err
			}
			return m.Systemctl(ctx, "start", p["unit"])
		},
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			port, err := m.Port(ctx)
			if err != nil {
				return ops.State{}, err
			}
			u, err := m.Unit(ctx, p["unit"])
			held := slices.ContainsFunc(port.Holders, func(h host.Process) bool { return h.PID == u.MainPID })
			return ops.State{Done: err == nil && u.Active() && port.Ours && held, Seen: fmt.Sprintf("%s is %s, pid %d; port: %s", u.Name, u.State, u.MainPID, port)}, err
		},
		Undo: func(ctx context.Context, _ *ops.Run) error {
			err := m.Systemctl(ctx, "stop", p["unit"])
			_, listed, unknown := m.listed(ctx, p["app"])
			if listed {
				err = errors.Join(err, m.PM2.Again(ctx, p["app"]))
			}
			return errors.Join(err, unknown)
		},
	}
}

// strange is a port that stopping the program does not free.
func (m *Machine) strange(port Port, app string) error {
	return ops.Fail(ops.Refused, fmt.Errorf("port %d is held by %s, which is not %s of pm2: it would not become free", port.Number, port, app), "gt06ctl ops port")
}

// listed finds a program in pm2's list; "" is none.
func (m *Machine) listed(ctx context.Context, name string) (host.App, bool, error) {
	if name == "" {
		return host.App{}, false, nil
	}
	apps, err := m.PM2.List(ctx)
	i := slices.IndexFunc(apps, func(a host.App) bool { return a.Name == name })
	if err != nil || i < 0 {
		return host.App{}, false, err
	}
	return apps[i], true, nil
}

// forget takes a program from pm2's list and from the one that starts with the
// machine.
func (m *Machine) forget(ctx context.Context, name string) error {
	_, listed, err := m.listed(ctx, name)
	if err == nil && listed {
		err = m.PM2.Delete(ctx, name)
	}
	if err != nil {
		return err
	}
	return m.PM2.Save(ctx)
}

func (m *Machine) forgetApp(p ops.Params) ops.Step {
	return ops.Step{
		ID: "pm2.forget", Class: ops.Guest, Title: "delete " + p["app"] + " from pm2 and save, so that no boot starts it again",
		Do: func(ctx context.Context, _ *ops.Run) error { return m.forget(ctx, p["app"]) },
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			_, listed, err := m.listed(ctx, p["app"])
			if err != nil {
				return ops.State{}, err
			}
			saved, err := m.PM2.Saved()
			return ops.State{Done: err == nil && !listed && !slices.Contains(saved, p["app"]), Seen: fmt.Sprintf("in the list: %v; started at boot: %s", listed, orNone(strings.Join(saved, " ")))}, err
		},
	}
}

// givePort is the way back.
func (m *Machine) givePort(p ops.Params) ops.Step {
	return ops.Step{
		ID: "port.give", Class: ops.Guest, Title: fmt.Sprintf("stop %s, start %s in %s as %s of pm2, and save", p["unit"], p["script"], p["dir"], p["app"]), Downtime: brief,
		Do: func(ctx context.Context, _ *ops.Run) error {
			if err := m.Systemctl(ctx, "stop", p["unit"]); err != nil {
				return err
			}
			port, err := m.Port(ctx)
			if err == nil && port.Taken && port.PM2 != p["app"] {
				err = m.strange(port, p["app"])
			}
			if err != nil {
				return err
			}
			// pm2 refuses to start what runs: a run that died before Save.
			if app, _, err := m.listed(ctx, p["app"]); err != nil {
				return err
			} else if app.Status != "online" {
				if err := m.PM2.Start(ctx, p["dir"], p["script"], p["app"]); err != nil {
					return err
				}
			}
			return m.PM2.Save(ctx)
		},
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			sick, err := m.PM2.Sick(ctx, []string{p["app"]}, m.Watch)
			if err != nil {
				return ops.State{}, err
			}
			port, err := m.Port(ctx)
			if err != nil {
				return ops.State{}, err
			}
			saved, err := m.PM2.Saved()
			boot := slices.Contains(saved, p["app"])
			return ops.State{Done: err == nil && len(sick) == 0 && port.PM2 == p["app"] && boot, Seen: fmt.Sprintf("%s; %s at boot: %v", port, p["app"], boot)}, err
		},
		// What is left in either list would take the port at the next boot.
		Undo: func(ctx context.Context, _ *ops.Run) error {
			return errors.Join(m.forget(ctx, p["app"]), m.Systemctl(ctx, "start", p["unit"]))
		},
	}
}
