package board

import (
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unique"

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

	learning sync.Mutex // one at a time
	read     uint32     // of the last reading of the table
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

func (f *Fix) place() place {
	return place{f.Time, f.Latitude, f.Longitude, f.SpeedKMH, f.Course}
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

// vehicle is an entry of the fleet. There is one for each device there is,
// connected or not: it holds nothing by reference but strings that others hold
// too, and what few devices have. Times are Unix seconds.
type vehicle struct {
	imei               protocol.IMEI
	name               string
	of                 unique.Handle[words]
	rare               *rare // nil: nothing of it
	seen               int64
	place              place
	moved              int64  // when its place changed last, as the server's clock has it; 0: not since this process began
	online             uint64 // the turn in which it was connected
	shown              uint64 // the turn in which it changed
	read               uint32 // the reading of the table that it was in last
	battery            int8   // per cent, below 0: not said
	ignition, charging said
	adopted            bool // connected, taken over from another process, and not heard since
	wasOnline, inStep  bool
}

// words are what the operator says of many devices at once.
type words struct{ model, status string }

// rare is what few devices have.
type rare struct {
	alarm    raised // the last one; zero: none
	troubles []string
}

// has returns it.
func (d *vehicle) has() rare {
	if d.rare == nil {
		return rare{}
	}
	return *d.rare
}

// place is where a vehicle was: at 0 nowhere yet.
type place struct {
	at                  int64
	latitude, longitude float64
	speedKMH, course    float64
}

type raised struct{ name, at string }

// said is what a device may leave unsaid.
type said uint8

const (
	unsaid said = iota
	no
	yes
)

// hear takes what was said; nothing changes nothing.
func (s *said) hear(v *bool) {
	switch {
	case v == nil:
	case *v:
		*s = yes
	default:
		*s = no
	}
}

// value returns nil for what was not said.
func (s said) value() *bool {
	if s == unsaid {
		return nil
	}
	is := s == yes
	return &is
}

func newFleet() *Fleet {
	return &Fleet{devices: map[protocol.IMEI]*vehicle{}}
}

// entry returns the entry of a device; the lock is held. Devices that are not
// in the database are as many as the server admits.
func (f *Fleet) entry(imei protocol.IMEI) *vehicle {
	d := f.devices[imei]
	if d == nil {
		d = &vehicle{imei: imei, of: unique.Make(words{status: "allowed"}), battery: -1}
		f.devices[imei] = d
	}
	return d
}

// Learn takes what the database has, all that each yields: who is gone from it
// and not connected is forgotten. An error is each's, and forgets nobody.
func (f *Fleet) Learn(each func(learn func(*Known)) error) error {
	f.learning.Lock()
	defer f.learning.Unlock()
	f.read++
	if err := each(f.learn); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for imei, d := range f.devices {
		if d.read != f.read && d.online != f.turn {
			delete(f.devices, imei)
		}
	}
	return nil
}

func (f *Fleet) learn(k *Known) {
	imei, err := protocol.ParseIMEI(k.IMEI)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.entry(imei)
	d.read = f.read
	if of := unique.Make(words{k.Model, k.Status}); d.name != k.Name || d.of != of {
		d.name, d.of, d.inStep = k.Name, of, false
	}
	if k.Seen.Unix() > d.seen {
		d.seen, d.inStep = k.Seen.Unix(), false
	}
	if k.Fix.Time > d.place.at {
		d.place, d.inStep = k.Fix.place(), false
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
		d.ignition.hear(fix.Ignition)
		if fix.Time < d.place.at && d.place.at <= now.Unix() {
			continue // it comes from the device's own memory
		}
		if d.place.latitude != fix.Latitude || d.place.longitude != fix.Longitude {
			d.moved = now.Unix()
		}
		d.place = fix.place()
	}
	for i := range n.Beats {
		b := &n.Beats[i]
		d := f.entry(b.IMEI)
		if b.Battery != nil {
			d.battery = int8(min(max(*b.Battery, 0), math.MaxInt8))
		}
		d.ignition.hear(b.Ignition)
		d.charging.hear(b.Charging)
	}
	for i := range n.Alarms {
		if imei, err := protocol.ParseIMEI(n.Alarms[i].IMEI); err == nil {
			d := f.entry(imei)
			d.rare = &rare{raised{n.Alarms[i].Alarm, n.Alarms[i].Time}, d.has().troubles}
			n.Alarms[i].Name = d.name
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
		d.online, d.adopted = f.turn, o.Heard == 0
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
		if list := all[imei]; !slices.Equal(list, d.has().troubles) {
			d.rare, d.inStep = &rare{d.has().alarm, list}, false
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
		{ProblemNoFix, d.place.at == 0},
		{ProblemFrozen, d.frozen(now, s.Window, began)},
		{ProblemBattery, d.battery >= 0 && d.battery <= lowBattery && d.charging != yes},
		{ProblemBlocked, d.of.Value().status == "blocked"},
		{ProblemQuarantine, d.of.Value().status == "quarantined"},
	} {
		if p.is {
			list = append(list, p.name)
		}
	}
	for _, t := range d.has().troubles {
		if !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

// frozen: it sends fixes in which it drives, and its place has not changed for
// a window.
func (d *vehicle) frozen(now time.Time, window time.Duration, began time.Time) bool {
	return d.place.speedKMH >= drivingKMH && now.Unix()-d.seen <= int64(window/time.Second) && now.Sub(time.Unix(max(d.moved, began.Unix()), 0)) > window &&
		now.Unix()-d.place.at <= int64(window/time.Second)
}

// list returns the fleet, in no order.
func (f *Fleet) list(online []server.Online, now time.Time, s Settings, began time.Time) []control.Device {
	list := []control.Device{}
	remotes := make(map[protocol.IMEI]netip.AddrPort, len(online))
	for i := range online {
		remotes[online[i].IMEI] = online[i].Remote
	}
	f.each(online, 0, func(d *vehicle) {
		out := d.describe(now, s, began)
		if remote, is := remotes[d.imei]; is {
			out.Online, out.Remote = true, remote.String()
		}
		list = append(list, out)
	})
	return list
}

func (d *vehicle) describe(now time.Time, s Settings, began time.Time) control.Device {
	out := control.Device{
		IMEI: d.imei.String(), Name: d.name, Model: d.of.Value().model, Status: d.of.Value().status,
		Ignition: d.ignition.value(), Problems: d.problems(now, s, began),
	}
	if d.battery >= 0 {
		battery := int64(d.battery)
		out.Battery = &battery
	}
	alarm := d.has().alarm
	out.Alarm, out.AlarmTime = alarm.name, alarm.at
	if d.seen > 0 {
		out.LastSeen = rfc3339(d.seen)
	}
	if p := d.place; p.at > 0 {
		out.FixTime = rfc3339(p.at)
		out.Latitude, out.Longitude, out.SpeedKMH, out.Course = &p.latitude, &p.longitude, &p.speedKMH, &p.course
	}
	return out
}

func rfc3339(t int64) string { return time.Unix(t, 0).UTC().Format(time.RFC3339) }
