package board

import (
	"slices"
	"sync"
	"time"

	"gt06/protocol"
	"gt06/server"
	"gt06/server/control"
)

// Fleet is what is known of every device: what the operator said of it, what
// was stored of it last, and whether it is connected. It is fed with what the
// database has committed and asks it for nothing, so that neither a page that
// is left open nor a database that is away costs anything. One lock; nothing
// of it is on the way from a device to its answer.
type Fleet struct {
	mu      sync.Mutex
	devices map[protocol.IMEI]*vehicle
	turn    uint64 // of the last look at who is online
}

// Known is what the database says of a device: when it is read, and each
// minute.
type Known struct {
	IMEI                string
	Name, Model, Status string
	Seen                time.Time // zero: never
	Fix                 Fix       // Time 0: none
}

// Fix is a place that was stored.
type Fix struct {
	IMEI                protocol.IMEI
	Time                int64 // Unix seconds
	Latitude, Longitude float64
	SpeedKMH, Course    float64
	Ignition            *bool // nil: not said
}

// Beat is a status that was stored.
type Beat struct {
	IMEI               protocol.IMEI
	Battery            *int64 // per cent
	Ignition, Charging *bool
}

// Alarm is an alarm that was stored.
type Alarm struct {
	IMEI      string   `json:"imei"`
	Name      string   `json:"name,omitempty"` // of the device
	Alarm     string   `json:"alarm"`
	Time      string   `json:"time"` // RFC 3339, of the fix
	Latitude  *float64 `json:"latitude,omitempty"`
	Longitude *float64 `json:"longitude,omitempty"`
}

// News are what one transaction stored.
type News struct {
	Seen   map[protocol.IMEI]int64 // Unix microseconds
	Fixes  []Fix
	Beats  []Beat
	Alarms []Alarm
}

// vehicle is an entry of the fleet. Times are Unix seconds.
type vehicle struct {
	known             Known
	seen              int64
	fix               Fix
	moved             int64 // when its place changed last, as the server's clock has it; 0: not since this process began
	battery           *int64
	ignition          *bool
	charging          *bool
	alarm             string
	alarmAt           string
	remote            string
	online            uint64 // the turn in which it was connected
	troubles          []string
	adopted           bool   // connected, taken over from another process, and not heard since
	shown             uint64 // the turn in which it changed
	wasOnline, inStep bool
}

func newFleet() *Fleet { return &Fleet{devices: map[protocol.IMEI]*vehicle{}} }

// entry returns the entry of a device; the lock is held. Devices that are not
// in the database are as many as the server admits.
func (f *Fleet) entry(imei protocol.IMEI) *vehicle {
	d := f.devices[imei]
	if d == nil {
		d = &vehicle{known: Known{IMEI: imei.String(), Status: "allowed"}}
		f.devices[imei] = d
	}
	return d
}

// Learn takes what the database has, all of it: who is gone from it and not
// connected is forgotten.
func (f *Fleet) Learn(list []Known) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[protocol.IMEI]bool, len(list))
	for i := range list {
		imei, err := protocol.ParseIMEI(list[i].IMEI)
		if err != nil {
			continue
		}
		there[imei] = true
		d, k := f.entry(imei), list[i]
		if d.known.Name != k.Name || d.known.Model != k.Model || d.known.Status != k.Status || k.Seen.Unix() > d.seen || k.Fix.Time > d.fix.Time {
			d.inStep = false
		}
		d.seen = max(d.seen, k.Seen.Unix())
		if k.Fix.Time > d.fix.Time {
			d.fix = k.Fix
		}
		d.known = k
	}
	for imei, d := range f.devices {
		if !there[imei] && d.online != f.turn {
			delete(f.devices, imei)
		}
	}
}

// Stored takes what was committed.
func (f *Fleet) Stored(n *News, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for imei, at := range n.Seen {
		if at > 0 {
			d := f.entry(imei)
			d.seen, d.inStep = max(d.seen, at/1e6), false
		}
	}
	for i := range n.Fixes {
		fix := &n.Fixes[i]
		d := f.entry(fix.IMEI)
		if fix.Ignition != nil {
			d.ignition = fix.Ignition
		}
		if fix.Time < d.fix.Time && d.fix.Time <= now.Unix() {
			continue // it comes from the device's own memory
		}
		if d.fix.Latitude != fix.Latitude || d.fix.Longitude != fix.Longitude {
			d.moved = now.Unix()
		}
		d.fix = *fix
	}
	for i := range n.Beats {
		b := &n.Beats[i]
		d := f.entry(b.IMEI)
		if b.Battery != nil {
			d.battery = b.Battery
		}
		if b.Ignition != nil {
			d.ignition = b.Ignition
		}
		if b.Charging != nil {
			d.charging = b.Charging
		}
	}
	for i := range n.Alarms {
		if imei, err := protocol.ParseIMEI(n.Alarms[i].IMEI); err == nil {
			d := f.entry(imei)
			d.alarm, d.alarmAt = n.Alarms[i].Alarm, n.Alarms[i].Time
			n.Alarms[i].Name = d.known.Name
		}
	}
}

// look enters who is connected now. Each look is a turn; who changed since the
// last has its number.
func (f *Fleet) look(online []server.Online) {
	f.turn++
	for i := range online {
		o := &online[i]
		d := f.entry(o.IMEI)
		d.online, d.remote, d.adopted = f.turn, o.Remote, o.Heard == 0
		if o.Heard > d.seen {
			d.seen, d.inStep = o.Heard, false
		}
	}
	for _, d := range f.devices {
		if on := d.online == f.turn; on != d.wasOnline {
			d.wasOnline, d.inStep = on, false
		}
		if !d.inStep {
			d.inStep, d.shown = true, f.turn
		}
	}
}

// trouble takes what is wrong with devices beside what the fleet itself shows.
func (f *Fleet) trouble(all map[protocol.IMEI][]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for imei, d := range f.devices {
		if list := all[imei]; !slices.Equal(list, d.troubles) {
			d.troubles, d.inStep = list, false
		}
	}
}

// each calls show for every device that changed after a turn, and returns the
// turn of now.
func (f *Fleet) each(online []server.Online, after uint64, show func(*vehicle)) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look(online)
	for _, d := range f.devices {
		if d.shown > after {
			show(d)
		}
	}
	return f.turn
}

// The problems that the fleet shows; Source.Troubles has more.
const (
	ProblemSilent     = "silent"      // connected or not, it has not spoken for longer than it should
	ProblemNoFix      = "no fix"      // it never sent a place
	ProblemFrozen     = "frozen"      // it says that it drives, and its place stays
	ProblemBattery    = "battery low" // at most lowBattery per cent, and not charging
	ProblemBlocked    = "blocked"
	ProblemQuarantine = "quarantined"
)

const (
	lowBattery = 20
	drivingKMH = 5 // below it a receiver at rest shows speeds, too
)

func (d *vehicle) problems(now time.Time, s Settings, began time.Time) []string {
	list := []string{}
	for _, p := range []struct {
		name string
		is   bool
	}{
		{ProblemSilent, now.Unix()-d.seen > int64(s.Silent/time.Second)},
		{ProblemNoFix, d.fix.Time == 0},
		{ProblemFrozen, d.frozen(now, s.Window, began)},
		{ProblemBattery, d.battery != nil && *d.battery <= lowBattery && (d.charging == nil || !*d.charging)},
		{ProblemBlocked, d.known.Status == "blocked"},
		{ProblemQuarantine, d.known.Status == "quarantined"},
	} {
		if p.is {
			list = append(list, p.name)
		}
	}
	for _, t := range d.troubles {
		if !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

// frozen: it sends fixes in which it drives, and its place has not changed for
// a window.
func (d *vehicle) frozen(now time.Time, window time.Duration, began time.Time) bool {
	return d.fix.SpeedKMH >= drivingKMH && now.Unix()-d.seen <= int64(window/time.Second) && now.Sub(time.Unix(max(d.moved, began.Unix()), 0)) > window &&
		now.Unix()-d.fix.Time <= int64(window/time.Second)
}

// list returns the fleet, in no order.
func (f *Fleet) list(online []server.Online, now time.Time, s Settings, began time.Time) []control.Device {
	list := []control.Device{}
	f.each(online, 0, func(d *vehicle) { list = append(list, d.describe(f.turn, now, s, began)) })
	return list
}

func (d *vehicle) describe(turn uint64, now time.Time, s Settings, began time.Time) control.Device {
	out := control.Device{
		IMEI: d.known.IMEI, Name: d.known.Name, Model: d.known.Model, Status: d.known.Status, Online: d.online == turn,
		Battery: d.battery, Ignition: d.ignition, Alarm: d.alarm, AlarmTime: d.alarmAt, Problems: d.problems(now, s, began),
	}
	if out.Online {
		out.Remote = d.remote
	}
	if d.seen > 0 {
		out.LastSeen = rfc3339(d.seen)
	}
	if d.fix.Time > 0 {
		fix := d.fix
		out.FixTime = rfc3339(fix.Time)
		out.Latitude, out.Longitude, out.SpeedKMH, out.Course = &fix.Latitude, &fix.Longitude, &fix.SpeedKMH, &fix.Course
	}
	return out
}

func rfc3339(t int64) string { return time.Unix(t, 0).UTC().Format(time.RFC3339) }
