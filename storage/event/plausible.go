package event

import (
	"fmt"
	"math"
	"time"

	"gt06/protocol"
)

// What a row says of a time that was not taken as it came: the value of
// timeFlag in its attributes. A clock that is ahead by whole quarters of an
// hour is flagged "zone +05:30".
const (
	flagImplausible = "implausible" // the row has the time of its receipt
	flagRollover    = "rollover"    // 1,024 or 2,048 weeks were added
)

const (
	// future is how far ahead of the receipt a fix may be before the device's
	// clock is not believed.
	future = 24 * time.Hour
	// era is after how long a GPS receiver with a 10-bit week counts from zero
	// again.
	era = 1024 * 7 * 24 * time.Hour
	// quarter is the unit of time zones; a clock is off by whole quarters when
	// somebody set it to local time.
	quarter = 15 * time.Minute
	// farthest is the zone farthest from UTC: Kiribati.
	farthest = 14 * time.Hour
	// lateness and haste are how much later and earlier than its time a fix
	// arrives that a clock is judged by.
	lateness = 120 * time.Second
	haste    = 30 * time.Second
)

// first is the oldest plausible time: no device is older than the protocol.
//
//nolint:gochecknoglobals // a constant
var first = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// fixTime chooses the time of a row: the fix's, else the device's, else the
// receipt's. A time that cannot be is said in flag.
func fixTime(m *protocol.Message, received int64, archived bool) (t int64, source TimeSource, flag string) {
	switch {
	case m.Has&protocol.HasFixTime != 0:
		t, source = m.FixTime, FromGPS
	case m.Has&protocol.HasDeviceTime != 0:
		t, source = m.DeviceTime, FromDevice
	default:
		return received, FromServer, ""
	}
	for n := int64(1); n <= 2; n++ {
		if now := t + n*seconds(era); near(now, received, future) {
			return now, source, flagRollover
		}
	}
	if t > received+seconds(future) || t < first {
		return received, FromServer, flagImplausible
	}
	// Behind the receipt, a row alone cannot tell a clock from a late upload.
	if off := offBy(t, received); off > 0 && !archived {
		return t, source, "zone " + Zone(off)
	}
	return t, source, ""
}

func near(a, b int64, within time.Duration) bool {
	d := a - b
	return d <= seconds(within) && d >= -seconds(within)
}

// offBy returns by how many whole quarters of an hour a clock is ahead of the
// receipt, in seconds; 0: it is right, or off by something else.
func offBy(t, received int64) int32 {
	off := t - received
	k := int64(math.Round(float64(off) / quarter.Seconds()))
	rest := off - k*seconds(quarter)
	if k == 0 || rest > seconds(haste) || rest < -seconds(lateness) || k*seconds(quarter) > seconds(farthest) || k*seconds(quarter) < -seconds(farthest) {
		return 0
	}
	return int32(k * seconds(quarter))
}

// Zone writes an offset from UTC as "+05:30".
func Zone(offset int32) string {
	sign, minutes := '+', offset/60
	if minutes < 0 {
		sign, minutes = '-', -minutes
	}
	return fmt.Sprintf("%c%02d:%02d", sign, minutes/60, minutes%60)
}

const (
	// fastest is how fast a vehicle may have gone between two fixes, metres a
	// second; at less than nearby nobody asks, for a fix is not exact.
	fastest = 100
	nearby  = 2000
	// enough is how many fixes in a row must agree with each other before what
	// they say is believed: that the vehicle is somewhere else, or that a clock
	// is off.
	enough = 3
	// span is how long a clock must have been off: a late upload has many times
	// and one receipt.
	span = 60
)

// Judge follows the positions of one device in the order of the log: what a
// single row cannot tell. The zero value knows nothing. It is a plain value, so
// that a transaction which fails can go back to the last one.
type Judge struct {
	at, elsewhere point
	agree         uint8 // fixes in a row that agree with elsewhere
	run           uint8 // live fixes in a row that are off by off
	off           int32 // seconds ahead of the receipt
	zone          int32 // of the records, seconds east of UTC
	since, until  int64 // the first and the last fix of that run, Unix seconds

	jumps, rollovers, wrong, nowhere trouble
}

type point struct {
	latitude, longitude float64
	t                   int64 // Unix seconds; 0: no point
}

// trouble is what happened how often, and when last.
type trouble struct {
	count int
	last  int64 // Unix microseconds
}

func (t *trouble) at(received int64) {
	t.count++
	t.last = max(t.last, received)
}

// Known tells a judge where its device was last, after a start.
func (j *Judge) Known(latitude, longitude float64, fixTime int64) {
	j.at = point{latitude, longitude, fixTime}
}

// Look takes the next position into account and says whether it may be the
// latest one of its device: it has a fix, a time of its own, and its place can
// have been reached from the place before.
func (j *Judge) Look(p *Position) bool {
	switch p.timeFlag {
	case flagRollover:
		j.rollovers.at(p.ReceivedAt)
	case flagImplausible:
		j.wrong.at(p.ReceivedAt)
	}
	j.clock(p)
	if !p.HasFix || !p.Valid || p.Source != FromGPS {
		return false
	}
	here := point{p.Latitude, p.Longitude, p.FixTime}
	if here.latitude == 0 && here.longitude == 0 {
		j.nowhere.at(p.ReceivedAt) // a receiver's way to say that it does not know
		return false
	}
	// Older than the latest, it cannot become that one. A latest one from the
	// future was a wrong clock, and is over once the clock is right.
	if here.t < j.at.t && (p.Archived || j.at.t <= p.ReceivedAt/1e6) {
		return true
	}
	if j.at.t == 0 || here.t < j.at.t || reachable(j.at, here) {
		j.at, j.agree = here, 0
		return true
	}
	j.jumps.at(p.ReceivedAt)
	if j.agree > 0 && reachable(j.elsewhere, here) {
		j.agree++
	} else {
		j.agree = 1
	}
	j.elsewhere = here
	if j.agree < enough {
		return false
	}
	j.at, j.agree = here, 0 // it was the place before that was wrong
	return true
}

// clock follows by how much live fixes are off.
func (j *Judge) clock(p *Position) {
	if p.Source == FromServer || p.Archived || p.timeFlag == flagRollover {
		return
	}
	off := offBy(p.FixTime, p.ReceivedAt/1e6)
	switch {
	case off == 0 && !near(p.FixTime, p.ReceivedAt/1e6, lateness):
		return // a late upload says nothing of the clock
	case off == 0:
		j.run = 0
	case j.run > 0 && off == j.off && p.UTCOffset == j.zone:
		j.run = min(j.run+1, enough)
	default:
		j.run, j.off, j.zone, j.since = 1, off, p.UTCOffset, p.FixTime
	}
	j.until = p.FixTime
	if j.run == enough && j.until-j.since < span {
		j.run-- // all of them at once
	}
}

// reachable says whether a vehicle can have gone from one point to another.
func reachable(from, to point) bool {
	const metresPerDegree = 111_195
	north := (to.latitude - from.latitude) * metresPerDegree
	east := math.Remainder(to.longitude-from.longitude, 360) * metresPerDegree * math.Cos((from.latitude+to.latitude)/2*math.Pi/180)
	distance := math.Hypot(north, east)
	return distance < nearby || distance < fastest*float64(max(1, to.t-from.t))
}

// ProblemKind names what is wrong with a device.
type ProblemKind string

// The problems that positions show.
const (
	ProblemZone     ProblemKind = "zone"     // the clock is off by whole quarters of an hour
	ProblemClock    ProblemKind = "clock"    // times in the future or before 2010
	ProblemRollover ProblemKind = "rollover" // the receiver counts weeks from zero again
	ProblemJump     ProblemKind = "jump"     // places that cannot be reached in time
	ProblemNowhere  ProblemKind = "nowhere"  // fixes at 0, 0
)

// Problem is one of them.
type Problem struct {
	Kind  ProblemKind
	Count int
	Last  int64 // Unix microseconds
	Zone  int32 // of ProblemZone: the offset from UTC that would make the times right, seconds
}

// Problems lists what is wrong with the device.
func (j *Judge) Problems() (list []Problem) {
	if j.run >= enough {
		list = append(list, Problem{Kind: ProblemZone, Count: int(j.run), Last: (j.until - int64(j.off)) * 1e6, Zone: j.zone + j.off})
	}
	for _, t := range []struct {
		kind ProblemKind
		trouble
	}{{ProblemClock, j.wrong}, {ProblemRollover, j.rollovers}, {ProblemJump, j.jumps}, {ProblemNowhere, j.nowhere}} {
		if t.count > 0 {
			list = append(list, Problem{Kind: t.kind, Count: t.count, Last: t.last})
		}
	}
	return list
}
