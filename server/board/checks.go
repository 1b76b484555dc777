package board

import (
	"fmt"
	"math"
	"time"

	"gt06/server"
	"gt06/server/control"
)

// Settings are the spans by which a fleet is judged.
type Settings struct {
	Window time.Duration // in which places must change and reconnects are counted
	Silent time.Duration // a device that has not spoken for longer is silent
}

// The limits of the three checks (SOP section 7).
const (
	lookBack     = 6   // windows: who spoke within them should speak now
	speakPart    = 0.8 // of those
	movePart     = 0.8 // of the devices that say they drive
	reconnectMax = 2.0 // connections for each device that should speak, in a window
	reconnectMin = 10  // so many are no storm, however small the fleet
)

// facts are what the checks are made from.
type facts struct {
	Settings
	age      time.Duration // of this server
	rated    time.Duration // how far back the rates are known
	accepted float64       // connections in the window

	devices  int // known at all
	online   int
	expected int // spoke within lookBack windows
	spoke    int // of them within Silent
	adopted  int // taken over from another process and not heard since: nobody can say yet
	moving   int // their place changed in the window
	frozen   int // say they drive and stay where they are
	parked   int // speak, with the ignition off and no speed
}

// judge makes the three checks: timestamps move, places move, nobody reconnects
// all the time. A check whose own evidence is shorter than its span warms up
// and is not red: no server is red for its own start.
func judge(f facts) control.Validation {
	v := control.Validation{OK: true}
	add := func(name string, ok, young bool, value, limit float64, text string) {
		v.Checks = append(v.Checks, control.Check{Name: name, OK: ok || young, WarmingUp: young, Value: value, Limit: limit, Text: text})
		v.OK, v.WarmingUp = v.OK && (ok || young), v.WarmingUp || young
	}

	part, text := 1.0, "no device has connected yet"
	switch judged := f.expected - f.adopted; {
	case judged > 0:
		part = float64(f.spoke) / float64(judged)
		text = fmt.Sprintf("%d of %d devices spoke within %s", f.spoke, judged, short(f.Silent))
		if n := judged - f.spoke; n > 0 {
			text += fmt.Sprintf(", %d silent", n)
		}
	case f.adopted > 0:
		text = fmt.Sprintf("%d devices were taken over and have not spoken yet", f.adopted)
	case f.devices > 0:
		part, text = 0, fmt.Sprintf("none of %d devices spoke within %s", f.devices, short(lookBack*f.Window))
	}
	add("timestamps", part >= speakPart, f.age < f.Silent, math.Round(part*1000)/1000, speakPart, text)

	limit := 1.0
	if f.frozen > 0 {
		limit = math.Max(1, math.Ceil(movePart*float64(f.moving+f.frozen)))
	}
	text = fmt.Sprintf("%d of %d devices moved within %s", f.moving, f.spoke, short(f.Window))
	switch {
	case f.devices == 0:
		limit, text = 0, "no device has connected yet"
	case f.spoke == 0:
		text = "no device speaks, so no place changes"
	case f.frozen > 0:
		text += fmt.Sprintf(", %d say they drive and stay where they are", f.frozen)
	case f.moving == 0 && f.parked == f.spoke:
		limit, text = 0, fmt.Sprintf("all %d devices are parked, ignition off", f.parked)
	}
	add("locations", float64(f.moving) >= limit, f.age < f.Window, float64(f.moving), limit, text)

	// Not by who is online: in a storm that is nobody now and everybody then.
	limit = math.Max(reconnectMin, reconnectMax*float64(f.expected))
	text = fmt.Sprintf("%.0f connections opened within %s, %d of %d devices online", f.accepted, short(f.Window), f.online, f.expected)
	add("reconnects", f.accepted <= limit, f.rated < f.Window, f.accepted, limit, text)
	return v
}

// short writes a span without its zeros: 10m, not 10m0s.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// facts counts the fleet for judge.
func (f *Fleet) facts(online []server.Online, s Settings, began, now time.Time) facts {
	out := facts{Settings: s, age: now.Sub(began), online: len(online)}
	recent := func(at int64, d time.Duration) bool { return now.Sub(time.Unix(at, 0)) <= d }
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look(online)
	for _, d := range f.devices {
		out.devices++
		on := d.online == f.turn
		if !on && !recent(d.seen, lookBack*s.Window) {
			continue
		}
		out.expected++
		if !recent(d.seen, s.Silent) {
			if on && d.adopted && out.age < s.Silent {
				out.adopted++
			}
			continue
		}
		out.spoke++
		switch {
		case d.moved > 0 && recent(d.moved, s.Window):
			out.moving++
		case d.frozen(now, s.Window, began):
			out.frozen++
		case d.ignition == no && d.place.speedKMH < drivingKMH:
			out.parked++
		}
	}
	return out
}
