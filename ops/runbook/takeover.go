package runbook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/host"
	"gt06/server/control"
)

// Taking is how the port changes hands.
type Taking struct {
	Back   bool
	App    string        // the program of pm2; "": the one that holds the port
	PM2    string        // the program pm2 itself, where it is not found
	Dir    string        // of App, and
	Script string        // its script: for a way back to what no takeover described
	Watch  time.Duration // of what came of it; 0: not at all
}

// Takeover gives the devices' port from a program of pm2 to gt06d, or back. The
// program is described before it is stopped, and taken from pm2's list only when
// gt06d serves: each command of pm2 takes half a second, and devices wait for two
// of them only. Whatever fails, its last step gives everything back.
func (m *Machine) Takeover(t Taking) ops.Runbook {
	return ops.Runbook{
		Name: "takeover",
		Discover: func(ctx context.Context) (ops.Params, error) {
			p := ops.Params{"unit": m.Config.GT06.Unit, "port": strconv.Itoa(m.Config.GT06.Port), "app": ""}
			if t.Back {
				return p, m.discoverBack(t, p)
			}
			if t.Watch > 0 {
				p["watch"] = t.Watch.String()
			}
			return p, m.discoverHolder(ctx, t, p)
		},
		Steps: func(p ops.Params) []ops.Step {
			if p["back"] != "" {
				return []ops.Step{m.givePort(p)}
			}
			steps := []ops.Step{m.takePort(p)}
			if p["app"] != "" {
				steps = []ops.Step{m.describeApp(p), m.takePort(p), m.forgetApp(p)}
			}
			if p["watch"] != "" {
				steps = append(steps, m.watchPort(p))
			}
			return append(steps, m.keepPort(p, steps[len(steps)-1].ID))
		},
	}
}

// discoverHolder finds the program to stop: the one that holds the port, by the
// inode of the socket. What is not pm2's is named and left alone.
func (m *Machine) discoverHolder(ctx context.Context, t Taking, p ops.Params) error {
	port, err := m.Port(ctx)
	if err != nil {
		return err
	}
	pm2 := m.PM2
	var names []string
	if port.Taken && !port.Ours {
		if pm2, names, err = m.pm2Holding(ctx, port.Holders); err != nil {
			return err
		}
		if len(names) == 0 {
			return m.strange(port, t.App)
		}
	} else if names, err = known(ctx, pm2, t.App); err != nil {
		return err
	}
	if t.PM2 != "" {
		pm2.Program = t.PM2
	}
	switch {
	case len(names) == 0:
		return nil // nobody to stop
	case t.App == "" && len(names) == 1:
		p["app"] = names[0]
	case t.App == "":
		return ops.Fail(ops.Refused, fmt.Errorf("pm2's daemon holds port %d for one of %s, which are in cluster mode: the kernel does not say which", port.Number, strings.Join(names, ", ")), "name it: --app "+names[0])
	case !slices.Contains(names, t.App):
		return m.strange(port, t.App)
	default:
		p["app"] = t.App
	}
	return remember(pm2, p)
}

// remember puts a pm2 into the parameters, so that a resume asks the same one.
func remember(pm2 host.PM2, p ops.Params) error {
	home, err := pm2.Place()
	p["pm2_user"], p["pm2_home"], p["pm2_program"] = pm2.User, home, pm2.Program
	return err
}

// pm2 is the one of the parameters.
func (m *Machine) pm2(p ops.Params) host.PM2 {
	out := host.PM2{System: m.System, User: p["pm2_user"], Home: p["pm2_home"], Program: p["pm2_program"]}
	if out.Program == "" {
		out.Program = m.PM2.Program
	}
	return out
}

// known is the old service, or the named program, where pm2 runs it or would
// start it with the machine. A machine without pm2 knows none.
func known(ctx context.Context, pm2 host.PM2, app string) ([]string, error) {
	if app == "" {
		app = oldService
	}
	_, listed, err := listed(ctx, pm2, app)
	if errors.Is(err, exec.ErrNotFound) || errors.As(err, new(user.UnknownUserError)) {
		return nil, nil
	}
	if err != nil || listed {
		return []string{app}, err
	}
	saved, err := pm2.Saved()
	if err != nil || !slices.Contains(saved, app) {
		return nil, err
	}
	return []string{app}, nil
}

// pm2Holding is the pm2 whose daemon keeps the holders of a port, and which of
// its programs it may be: one, unless several are in cluster mode.
func (m *Machine) pm2Holding(ctx context.Context, holders []host.Process) (host.PM2, []string, error) {
	for _, h := range holders {
		k, err := m.Keeper(h.PID)
		if err != nil || k.By != host.ByPM2 {
			continue // ended meanwhile, or somebody else's
		}
		pm2 := m.PM2Of(k)
		if pm2.Program == "" {
			pm2.Program = m.PM2.Program
		}
		apps, err := pm2.List(ctx)
		if err != nil {
			return pm2, nil, err
		}
		if app, ok := host.Of(apps, k.Child); ok {
			return pm2, []string{app.Name}, nil
		}
		names := []string{}
		for _, a := range apps {
			if k.Child == 0 && a.Cluster && a.Status == "online" && !slices.Contains(names, a.Name) {
				names = append(names, a.Name)
			}
		}
		return pm2, names, nil
	}
	return m.PM2, nil, nil
}

// strange is a port that stopping the program does not free: who holds it, who
// keeps that one, and how to stop it.
func (m *Machine) strange(port Port, app string) error {
	if app == "" {
		app = "any program"
	}
	text, hints := fmt.Sprintf("port %d is held by %s", port.Number, port), []string{}
	for _, h := range port.Holders {
		k, err := m.Keeper(h.PID)
		if err != nil {
			continue
		}
		if k.By != host.ByNobody {
			text += fmt.Sprintf("; pid %d is kept by %s", h.PID, k)
		}
		hints = append(hints, k.HowToStop(h.PID)...)
	}
	return ops.Fail(ops.Refused, fmt.Errorf("%s, which is not %s of pm2: it would not become free", text, app), append(hints, "gt06ctl ops port")...)
}

// takeable refuses a port that is held by somebody whom stopping the program
// does not move.
func (m *Machine) takeable(ctx context.Context, p ops.Params) (Port, error) {
	port, err := m.Port(ctx)
	if err == nil && port.Taken && !port.Ours && !slices.Contains(port.programs, p["app"]) {
		err = m.strange(port, p["app"])
	}
	return port, err
}

// brief is how long devices wait on a connection refused before anything is
// noticed: seconds between two programs that cannot hand over.
const brief = 5 * time.Second

// describeApp writes down how the program is started, for the way back.
func (m *Machine) describeApp(p ops.Params) ops.Step {
	return ops.Step{
		ID: "pm2.describe", Class: ops.Guest, Title: "write down how " + p["app"] + " is started: " + m.Before,
		Precheck: func(ctx context.Context, _ *ops.Run) error {
			_, err := m.takeable(ctx, p)
			return err
		},
		Do: func(ctx context.Context, _ *ops.Run) error {
			pm2 := m.pm2(p)
			d, err := pm2.Describe(ctx, p["app"])
			if err != nil {
				return err
			}
			return writeBefore(m.Before, before{
				Version: beforeVersion, At: m.Now().UTC(), Port: p["port"], App: p["app"], User: p["pm2_user"], Home: p["pm2_home"], Program: p["pm2_program"], Processes: d,
			})
		},
		Postcheck: func(context.Context, *ops.Run) (ops.State, error) {
			b, err := readBefore(m.Before)
			if errors.Is(err, fs.ErrNotExist) {
				return ops.State{Seen: "nothing is written"}, nil
			}
			return ops.State{Done: err == nil && b.App == p["app"] && len(b.Processes) > 0, Seen: fmt.Sprintf("%d processes of %s", len(b.Processes), b.App)}, err
		},
	}
}

// takePort is one step, because half of it is nobody on the port: stop the
// program, start the unit; or both as before.
func (m *Machine) takePort(p ops.Params) ops.Step {
	title := "start " + p["unit"] + ", now and with the machine, and see that it holds port " + p["port"]
	if p["app"] != "" {
		title = "stop " + p["app"] + " of pm2, " + title
	}
	const connected = "connections"
	return ops.Step{
		ID: "port.take", Class: ops.Guest, Title: title, Downtime: brief,
		Precheck: func(ctx context.Context, r *ops.Run) error {
			port, err := m.takeable(ctx, p)
			if err != nil {
				return err
			}
			n, err := m.Established(uint16(port.Number)) //nolint:gosec // a port of the configuration
			r.Keep(connected, strconv.Itoa(n))
			return err
		},
		Do: func(ctx context.Context, _ *ops.Run) error {
			if err := m.Systemctl(ctx, "enable", p["unit"]); err != nil {
				return err
			}
			pm2 := m.pm2(p)
			_, listed, err := listed(ctx, pm2, p["app"])
			if err == nil && listed {
				err = pm2.Stop(ctx, p["app"])
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
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			port, err := m.Port(ctx)
			if err != nil {
				return ops.State{}, err
			}
			u, err := m.Unit(ctx, p["unit"])
			held := slices.ContainsFunc(port.Holders, func(h host.Process) bool { return h.PID == u.MainPID })
			return ops.State{
				Done: err == nil && u.Active() && u.Enabled && port.Ours && held, Out: map[string]string{connected: r.Kept(connected), well: "yes"},
				Seen: fmt.Sprintf("%s is %s, pid %d, starts with the machine: %v; port: %s", u.Name, u.State, u.MainPID, u.Enabled, port),
			}, err
		},
	}
}

// listed finds a program in pm2's list; "" is none.
func listed(ctx context.Context, pm2 host.PM2, name string) (host.App, bool, error) {
	if name == "" {
		return host.App{}, false, nil
	}
	apps, err := pm2.List(ctx)
	i := slices.IndexFunc(apps, func(a host.App) bool { return a.Name == name })
	if err != nil || i < 0 {
		return host.App{}, false, err
	}
	return apps[i], true, nil
}

// forget takes a program from pm2's list and from the one that starts with the
// machine. pm2's own unit stays: it starts the others.
func forget(ctx context.Context, pm2 host.PM2, name string) error {
	_, listed, err := listed(ctx, pm2, name)
	if err == nil && listed {
		err = pm2.Delete(ctx, name)
	}
	if err != nil {
		return err
	}
	return pm2.Save(ctx)
}

func (m *Machine) forgetApp(p ops.Params) ops.Step {
	return ops.Step{
		ID: "pm2.forget", Class: ops.Guest, Title: "delete " + p["app"] + " from pm2 and save, so that no boot starts it again",
		Do: func(ctx context.Context, _ *ops.Run) error { return forget(ctx, m.pm2(p), p["app"]) },
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			pm2 := m.pm2(p)
			_, listed, err := listed(ctx, pm2, p["app"])
			if err != nil {
				return ops.State{}, err
			}
			saved, err := pm2.Saved()
			return ops.State{Done: err == nil && !listed && !slices.Contains(saved, p["app"]), Out: map[string]string{well: "yes"}, Seen: fmt.Sprintf("in the list: %v; started at boot: %s", listed, orNone(strings.Join(saved, " ")))}, err
		},
	}
}

// watchPort looks at what came of it for a time: gt06d holds the port, none of
// the three checks is red, and at the end at least half of the connections that
// were there before are back.
func (m *Machine) watchPort(p ops.Params) ops.Step {
	most, _ := time.ParseDuration(p["watch"]) // made by Discover
	before := func(r *ops.Run) int {
		n, _ := strconv.Atoi(r.Out("port.take", "connections"))
		return n
	}
	return ops.Step{
		ID: "takeover.watch", Class: ops.Guest, Title: "watch port, devices and the three checks for " + p["watch"] + "; they must not be red",
		Do: func(ctx context.Context, r *ops.Run) error {
			const looks = 20 // at least
			tick := time.NewTicker(min(time.Second, most/looks))
			defer tick.Stop()
			for silent := 0; ; {
				st, err := m.watched(ctx)
				switch {
				case errors.Is(err, control.ErrNoServer) && silent < 3: // one that ended is back within a second
					silent++
				case err != nil:
					return err
				default:
					silent = 0
					if time.Duration(st.UptimeS)*time.Second >= most {
						return nil
					}
					r.Wait(fmt.Sprintf("%d of %d connections are back", st.Connections, before(r)))
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			st, err := m.watched(ctx)
			if err != nil {
				return ops.State{Seen: err.Error()}, nil //nolint:nilerr // it is not well
			}
			return ops.State{
				Done: time.Duration(st.UptimeS)*time.Second >= most && 2*st.Connections >= before(r), Out: map[string]string{well: "yes"},
				Seen: fmt.Sprintf("gt06d is %s since %d s, %d connections, %d before", st.State, st.UptimeS, st.Connections, before(r)),
			}, nil
		},
	}
}

// well is what a step puts out that is done.
const well = "well"

// keepPort ends it. When a step before failed, the last of them has not put out
// that it is well, and everything is as before the takeover.
func (m *Machine) keepPort(p ops.Params, last string) ops.Step {
	kept := func(r *ops.Run) bool { return r.Out(last, well) != "" }
	as := "stop " + p["unit"]
	if p["app"] != "" {
		as += " and start " + p["app"] + " as it was"
	}
	return ops.Step{
		ID: "takeover.keep", Class: ops.Guest, Always: true, Title: "keep it; when something failed, " + as,
		Do: func(ctx context.Context, r *ops.Run) error {
			if kept(r) {
				return nil
			}
			return m.giveBack(ctx, p)
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			if kept(r) {
				return ops.State{Done: true, Seen: "kept"}, nil
			}
			return m.given(ctx, p)
		},
	}
}

// watched is how gt06d fares; an error says what is wrong.
func (m *Machine) watched(ctx context.Context) (control.Status, error) {
	var st control.Status
	var v control.Validation
	if err := m.Server.Call(ctx, "status", nil, &st); err != nil {
		return st, fmt.Errorf("gt06d does not answer: %w", err)
	}
	if err := m.Server.Call(ctx, "validate", nil, &v); err != nil {
		return st, fmt.Errorf("gt06d does not answer: %w", err)
	}
	port, err := m.Port(ctx)
	if err == nil && !port.Ours {
		err = m.strange(port, "")
	}
	for _, c := range v.Checks {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("%s: %s", c.Name, c.Text))
		}
	}
	return st, err
}
