package runbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/host"
	"gt06/server/control"
)

// before is who held the port before gt06d, and how it is started: a file of
// JSON that only root can read, since the environment of a program holds its
// secrets. It is written anew by each takeover that finds the program.
//
//	{"version":1,"at":"…Z","port":"5023","app":"gt06-gps-service",
//	 "user":"ubuntu","home":"/home/ubuntu/.pm2","program":"",
//	 "processes":[…the entries of pm2's own saved list…]}
type before struct {
	Version   int              `json:"version"`
	At        time.Time        `json:"at"`
	Port      string           `json:"port"`
	App       string           `json:"app"`
	User      string           `json:"user"`
	Home      string           `json:"home"`
	Program   string           `json:"program"`
	Processes host.Description `json:"processes"`
}

const beforeVersion = 1

func readBefore(path string) (before, error) {
	var b before
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		return before{}, fmt.Errorf("what was before: %w", err)
	}
	if b.Version != beforeVersion {
		return before{}, ops.Fail(ops.Refused, fmt.Errorf("%s has version %d, this program knows %d", path, b.Version, beforeVersion), "use the version of gt06ctl that wrote it", "or say where the program is: --app NAME --dir DIR --script FILE")
	}
	return b, nil
}

// writeBefore replaces the file once the new one is on the disk.
func writeBefore(path string, b before) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".takeover-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone once it is renamed
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// discoverBack finds what to give the port back to: what the takeover wrote
// down, or a script that is named.
func (m *Machine) discoverBack(t Taking, p ops.Params) error {
	p["back"] = "yes"
	if t.Dir != "" && t.Script != "" {
		p["app"], p["dir"], p["script"] = t.App, t.Dir, t.Script
		if t.App == "" {
			p["app"] = oldService
		}
		pm2 := m.PM2
		if t.PM2 != "" {
			pm2.Program = t.PM2
		}
		return remember(pm2, p)
	}
	b, err := readBefore(m.Before)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ops.Fail(ops.Usage, fmt.Errorf("no takeover was done here (%s is not there): where the program of before is must be said", m.Before), "gt06ctl takeover --back --dir /home/ubuntu/gt06-server --script index.js --apply")
	case err != nil:
		return err
	case t.App != "" && t.App != b.App:
		return ops.Fail(ops.Refused, fmt.Errorf("the takeover was from %s, not from %s", b.App, t.App), "for another program: --app NAME --dir DIR --script FILE")
	}
	p["app"], p["pm2_user"], p["pm2_home"], p["pm2_program"] = b.App, b.User, b.Home, b.Program
	if t.PM2 != "" {
		p["pm2_program"] = t.PM2
	}
	return nil
}

// givePort is the way back.
func (m *Machine) givePort(p ops.Params) ops.Step {
	as := "as it was"
	if p["script"] != "" {
		as = p["script"] + " in " + p["dir"]
	}
	return ops.Step{
		ID: "port.give", Class: ops.Guest, Title: fmt.Sprintf("stop %s, now and with the machine, start %s of pm2 (%s), and save", p["unit"], p["app"], as), Downtime: brief,
		Do: func(ctx context.Context, r *ops.Run) error {
			m.awaitRows(ctx, r)
			return m.giveBack(ctx, p)
		},
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) { return m.given(ctx, p) },
		// What is left in either list would take the port at the next boot.
		Undo: func(ctx context.Context, _ *ops.Run) error {
			return errors.Join(forget(ctx, m.pm2(p), p["app"]), m.Systemctl(ctx, "enable", p["unit"]), m.Systemctl(ctx, "start", p["unit"]))
		},
	}
}

// given says whether the program is as it was: well, on the port, and started
// with the machine.
func (m *Machine) given(ctx context.Context, p ops.Params) (ops.State, error) {
	if p["app"] == "" { // nobody was there
		port, err := m.Port(ctx)
		return ops.State{Done: err == nil && !port.Ours, Seen: port.String()}, err
	}
	pm2 := m.pm2(p)
	sick, err := pm2.Sick(ctx, []string{p["app"]}, m.Watch)
	if err != nil {
		return ops.State{}, err
	}
	port, err := m.Port(ctx)
	if err != nil {
		return ops.State{}, err
	}
	saved, err := pm2.Saved()
	boot := slices.Contains(saved, p["app"])
	return ops.State{
		Done: err == nil && len(sick) == 0 && slices.Contains(port.programs, p["app"]) && boot,
		Seen: strings.TrimSpace(fmt.Sprintf("%s; %s at boot: %v %s", port, p["app"], boot, sick[p["app"]])),
	}, err
}

// patience is how long the way back waits for rows that are on their way, and for
// the port.
const patience = 30 * time.Second

// awaitRows waits until what was received is where others read it. It refuses
// nothing: on a bad night the way back is open, and what is left stays in the
// log.
func (m *Machine) awaitRows(ctx context.Context, r *ops.Run) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var st control.Status
		if err := m.Server.Call(ctx, "status", nil, &st); err != nil {
			r.Progress("gt06d does not answer: what its log holds and the tables do not is stored when it runs again")
			return
		}
		left := st.Store.Lag
		for _, s := range st.Sinks {
			left += s.Lag
		}
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.Progress(fmt.Sprintf("%d records are in the log and not in all tables: they are stored when gt06d runs again", left))
			return
		}
	}
}

// freed waits until nobody holds the port but the program: the keeper lets go of
// it a moment after the server has ended, after its grace at the latest.
func (m *Machine) freed(ctx context.Context, p ops.Params) error {
	limit := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		port, err := m.Port(ctx)
		if err != nil || !port.Taken || slices.Contains(port.programs, p["app"]) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return m.strange(port, p["app"])
		}
	}
}

// giveBack ends gt06d and starts the program as it was, with the machine, too.
func (m *Machine) giveBack(ctx context.Context, p ops.Params) error {
	if err := errors.Join(m.Systemctl(ctx, "disable", p["unit"]), m.Systemctl(ctx, "stop", p["unit"])); err != nil {
		return err
	}
	pm2 := m.pm2(p)
	err := m.freed(ctx, p)
	if err != nil || p["app"] == "" { // nobody was on the port
		return err
	}
	// pm2 refuses to start what runs: a run that died before Save.
	app, listed, err := listed(ctx, pm2, p["app"])
	switch {
	case err != nil || app.Status == "online":
	case listed:
		err = pm2.Again(ctx, p["app"])
	case p["script"] != "":
		err = pm2.Start(ctx, p["dir"], p["script"], p["app"])
	default:
		var b before
		if b, err = readBefore(m.Before); err == nil {
			err = pm2.Recreate(ctx, b.Processes)
		}
	}
	if err != nil {
		return err
	}
	return pm2.Save(ctx)
}
