package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unique"

	"go.uber.org/zap"

	"gt06/cmd/internal/cli"
	"gt06/cmd/internal/config"
	"gt06/protocol"
	"gt06/server"
	"gt06/server/control"
	"gt06/storage/sqlstore"
)

// directory is what the operator has said of devices, as the database had it at
// the last look, and the policy for those nobody has registered. Both are kept
// in a file, because a server that starts while the database is away must not
// take its fleet for strangers, nor a blocked device for a good one.
type directory struct {
	learn    func(each func(learn func(*sqlstore.Device)) error) error // hears of each look
	path     string
	standard string // the configuration's policy
	devices  atomic.Pointer[map[protocol.IMEI]unique.Handle[said]]
	policy   atomic.Pointer[string] // the operator's, nil: the standard
	mu       sync.Mutex             // of the file
}

// registered is one device, as the file has it.
type registered struct {
	Model     string `json:"model,omitempty"`
	UTCOffset *int32 `json:"utc_offset_s,omitempty"`
	Status    string `json:"status"`
}

// said is the same in memory. Most devices share theirs.
type said struct {
	model, status string
	offset        int32 // seconds east of UTC
	ownOffset     bool  // the device's own holds
}

func (r *registered) said() unique.Handle[said] {
	v := said{model: r.Model, status: r.Status, ownOffset: r.UTCOffset == nil}
	if r.UTCOffset != nil {
		v.offset = *r.UTCOffset
	}
	return unique.Make(v)
}

// utcOffset returns nil for the device's own.
func (v *said) utcOffset() *int32 {
	if v.ownOffset {
		return nil
	}
	return &v.offset
}

// directoryFile is devices.json, see readState.
type directoryFile struct {
	Version int                   `json:"version"`
	Policy  string                `json:"policy,omitempty"`
	Devices map[string]registered `json:"devices"`
}

// Len implements server.Directory.
func (d *directory) Len() int {
	if m := d.devices.Load(); m != nil {
		return len(*m)
	}
	return 0
}

// Device implements server.Directory. Until the devices were read once nobody
// is a stranger: it is better to serve one than to refuse a fleet.
func (d *directory) Device(imei protocol.IMEI) (server.DeviceSettings, bool) {
	m := d.devices.Load()
	if m == nil {
		return server.DeviceSettings{}, false
	}
	of, known := (*m)[imei]
	if !known {
		if d.effective() == config.PolicyAllow {
			return server.DeviceSettings{Refuse: server.CloseNotAllowed}, false
		}
		return server.DeviceSettings{}, false
	}
	v := of.Value()
	s := server.DeviceSettings{Model: v.model, UTCOffset: v.utcOffset()}
	if v.status == sqlstore.StatusBlocked {
		s.Refuse = server.CloseBlocked
	}
	return s, true
}

// effective returns the policy that holds.
func (d *directory) effective() string {
	if p := d.policy.Load(); p != nil {
		return *p
	}
	return d.standard
}

// read takes what the last owner of the data directory knew.
func (d *directory) read(path, standard string) error {
	d.path, d.standard = path, standard
	var f directoryFile
	if err := readState(path, &f); err != nil || f.Version == 0 {
		return err
	}
	m := make(map[protocol.IMEI]unique.Handle[said], len(f.Devices))
	for s, r := range f.Devices {
		if imei, err := protocol.ParseIMEI(s); err == nil {
			m[imei] = r.said()
		}
	}
	d.devices.Store(&m)
	if config.CheckPolicy(f.Policy) == nil {
		d.policy.Store(&f.Policy)
	}
	return nil
}

// load reads the table of devices and says whether it is another than before.
func (d *directory) load(ctx context.Context, s *sqlstore.Store) (changed bool, err error) {
	m := make(map[protocol.IMEI]unique.Handle[said], d.Len())
	err = d.learn(func(learn func(*sqlstore.Device)) error {
		return s.EachDevice(ctx, func(of *sqlstore.Device) {
			if imei, err := protocol.ParseIMEI(of.IMEI); err == nil {
				m[imei] = (&registered{Model: of.Model, UTCOffset: of.UTCOffset, Status: of.Status}).said()
			}
			learn(of)
		})
	})
	if err != nil {
		return false, err
	}
	if old := d.devices.Load(); old != nil && maps.Equal(m, *old) {
		return false, nil
	}
	d.devices.Store(&m)
	return true, d.save()
}

func (d *directory) save() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := directoryFile{Version: stateVersion, Devices: map[string]registered{}}
	if p := d.policy.Load(); p != nil {
		f.Policy = *p
	}
	if m := d.devices.Load(); m != nil {
		for imei, of := range *m {
			v := of.Value()
			f.Devices[imei.String()] = registered{Model: v.model, UTCOffset: v.utcOffset(), Status: v.status}
		}
	}
	return writeState(d.path, f)
}

func (a *app) fleetPath() string { return filepath.Join(a.cfg.DataDir, "devices.json") }

// reread reads the table of devices and lets it hold at once.
func (a *app) reread(ctx context.Context) {
	store, w, _ := a.store.get()
	if store == nil {
		return
	}
	changed, err := a.fleet.load(ctx, store)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("read the devices", zap.Error(err))
	}
	if changed {
		w.Forget()
		a.server.Review()
	}
}

// handleDevicesChange is `gt06ctl devices allow|block|model|name|timezone|import`.
func (a *app) handleDevicesChange(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
	var list []control.DeviceChange
	if err := arguments(args, &list); err != nil {
		return nil, err
	}
	changes := make([]sqlstore.DeviceChange, 0, len(list))
	for i := range list {
		c, err := checked(&list[i])
		if err != nil {
			return nil, coded(cli.Fail(cli.Usage, err, "nothing was changed"))
		}
		changes = append(changes, c)
	}
	store, err := a.database(ctx)
	if err != nil {
		return nil, coded(cli.Fail(cli.Timeout, err,
			"nothing was changed: devices are kept in the database; try again when gt06ctl status says that the store is ok"))
	}
	n, err := store.Change(ctx, changes)
	if err != nil {
		return nil, coded(cli.Fail(cli.Refused, err, "nothing was changed; gt06ctl status says how the store fares"))
	}
	const each = 16 // a list is said in one line
	by := zap.String("by", control.Caller(ctx))
	if len(list) > each {
		a.log.Info("devices changed", by, zap.Int("devices", len(list)), zap.Int("registered", n))
	} else {
		for i := range list {
			a.log.Info("device changed", by, zap.String("imei", list[i].IMEI), zap.Any("to", list[i]))
		}
	}
	a.reread(ctx)
	return control.DevicesChanged{Changed: len(list), Registered: n}, nil
}

// checked reads what an operator says of a device.
func checked(c *control.DeviceChange) (out sqlstore.DeviceChange, err error) {
	out = sqlstore.DeviceChange{IMEI: c.IMEI, Status: c.Status, Name: c.Name, Model: c.Model, UTCOffset: c.UTCOffset, OwnOffset: c.OwnOffset}
	if _, err := protocol.ParseIMEI(c.IMEI); err != nil {
		return out, err
	}
	if c.Status != nil && !slices.Contains([]string{sqlstore.StatusAllowed, sqlstore.StatusBlocked, sqlstore.StatusQuarantined}, *c.Status) {
		return out, fmt.Errorf("device %s: status %q: it can be allowed, quarantined or blocked", c.IMEI, *c.Status)
	}
	for _, t := range []struct {
		what string
		text *string
		most int
	}{{"name", c.Name, 255}, {"model", c.Model, 32}} {
		if t.text != nil && (len(*t.text) > t.most || strings.ToValidUTF8(*t.text, "") != *t.text) {
			return out, fmt.Errorf("device %s: a %s is text of at most %d bytes", c.IMEI, t.what, t.most)
		}
	}
	const most = 14 * 3600
	if o := c.UTCOffset; o != nil && (*o < -most || *o > most || *o%60 != 0) {
		return out, fmt.Errorf("device %s: %d s is no offset from UTC", c.IMEI, *o)
	}
	return out, nil
}

// handleDevicesPolicy is `gt06ctl devices policy`. It needs no database.
func (a *app) handleDevicesPolicy(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
	var want control.PolicyArgs
	if err := arguments(args, &want); err != nil {
		return nil, err
	}
	a.reread(ctx) // who came since the last look is no stranger
	switch want.Policy {
	case "":
		return a.policy(), nil
	case "config":
		a.fleet.policy.Store(nil)
	default:
		if err := config.CheckPolicy(want.Policy); err != nil {
			return nil, coded(cli.Fail(cli.Usage, err, "config goes back to the configuration's"))
		}
		a.fleet.policy.Store(&want.Policy)
	}
	if err := a.fleet.save(); err != nil {
		return nil, coded(cli.Fail(cli.NotWritable, err, "the policy holds until this server ends"))
	}
	a.log.Info("device policy changed", zap.String("by", control.Caller(ctx)), zap.String("policy", a.fleet.effective()))
	a.server.Review()
	return a.policy(), nil
}

func (a *app) policy() control.DevicePolicy {
	p := control.DevicePolicy{Policy: a.fleet.effective(), From: "configuration", Known: a.fleet.Len(), Enforced: a.fleet.devices.Load() != nil}
	if a.fleet.policy.Load() != nil {
		p.From = "operator"
	}
	return p
}
