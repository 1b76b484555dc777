// Package device is the device's side of the wire: it builds the frames a
// tracker sends and keeps the ledger of what was sent and answered. It is pure;
// package fleet dials.
package device

import (
	"encoding/binary"
	"time"

	"gt06/protocol"
)

// Kind is a frame a simulated device can send.
type Kind uint8

// The kinds.
const (
	Login Kind = iota
	Location
	LocationOld // 0x12
	Location4G  // 0xA0
	Heartbeat
	Alarm
	Cells
	Information
	TimeRequest
	numKinds
)

// Type returns the protocol number.
func (k Kind) Type() byte {
	return [numKinds]byte{0x01, 0x22, 0x12, 0xa0, 0x13, 0x26, 0x28, 0x94, 0x8a}[k]
}

// Answered says whether a server answers the kind.
func (k Kind) Answered() bool { return k != Information }

// Fix says whether the kind is a row of positions with a place.
func (k Kind) Fix() bool {
	return k == Location || k == LocationOld || k == Location4G || k == Alarm
}

// IMEI returns the n-th IMEI of the simulator: a type allocation code of the
// test range and a right check digit, so that no real device has it.
func IMEI(n int) protocol.IMEI {
	const tac, space = 99_000_000, 1_000_000
	v := uint64(tac*space+n%space) * 10
	for check := range uint64(10) {
		if id := bcd(v + check); id.LuhnOK() {
			return id
		}
	}
	return 0
}

func bcd(v uint64) protocol.IMEI {
	var id protocol.IMEI
	for shift := 0; v > 0; shift += 4 {
		id |= protocol.IMEI(v%10) << shift
		v /= 10
	}
	return id
}

// Place is what a fix says, so that its row can be compared.
type Place struct {
	Time      time.Time
	Latitude  float64
	Longitude float64
	SpeedKMH  float64
	Course    float64
}

// raw are the units of the wire.
type raw struct {
	latitude, longitude uint32
	speed               byte
	course              uint16
}

// place is where the n-th fix of a device is: a walk in which no two fixes are
// alike, so that each is a row of its own. Device and number can be read from
// the coordinates.
func place(device, n int) raw {
	return raw{
		latitude:  uint32(20_000_000 + device%100_000*700 + n%600),
		longitude: uint32(130_000_000 + n%1_000_000*50),
		speed:     byte(30 + n%60),
		course:    uint16(n % 360),
	}
}

func (r raw) place(at time.Time) Place {
	return Place{
		Time: at.UTC().Truncate(time.Second), Latitude: float64(r.latitude) / 60 / 30000, Longitude: float64(r.longitude) / 60 / 30000,
		SpeedKMH: float64(r.speed), Course: float64(r.course),
	}
}

// Frame is one built frame.
type Frame struct {
	Kind   Kind
	Serial uint16
	Bytes  []byte
	Place  Place // of kinds with a fix
}

// Build makes the n-th frame of a device at a time, with the serial n+1, which
// wraps.
func Build(kind Kind, device, n int, at time.Time) Frame {
	f := Frame{Kind: kind, Serial: uint16(n + 1)}
	var c []byte
	cell := []byte{0x01, 0x94, 0x0a, 0x12, 0x34, 0x00, 0x56, 0x78}
	fix := func() {
		r := place(device, n)
		f.Place = r.place(at)
		c = appendGPS(c, f.Place.Time, r)
	}
	switch kind {
	case Login:
		c = append(IMEI(device).AppendBCD(c), 0x36, 0x08, 0x00, 0x00)
	case Location:
		fix()
		c = append(append(c, cell...), 1, 0, 0)
	case LocationOld:
		fix()
		c = append(c, cell...)
	case Location4G:
		fix()
		c = append(c, 0x01, 0x94, 0x0a, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0x56, 0x78, 0x9a, 1, 0, 0)
	case Heartbeat:
		c = append(c, 0x46, 4, 4, 0, 1)
	case Alarm:
		fix()
		c = append(append(append(c, 9), cell...), 0x46, 4, 4, 1, 2)
	case Cells:
		c = appendTime(c, at.UTC())
		c = append(c, 0x01, 0x94, 0x0a)
		c = append(c, 0x12, 0x34, 0, byte(device), byte(n), 60)
		c = append(c, make([]byte, 6*6)...)
		c = append(c, 0xff, 0, 2)
	case Information:
		return f.extended(append(c, 0x00, 0x04, 0xb0))
	case TimeRequest, numKinds:
	}
	f.Bytes = protocol.AppendFrame(nil, kind.Type(), c, f.Serial)
	return f
}

func (f Frame) extended(content []byte) Frame {
	f.Bytes = protocol.AppendExtended(nil, f.Kind.Type(), content, f.Serial)
	return f
}

func appendTime(c []byte, t time.Time) []byte {
	return append(c, byte(t.Year()-2000), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
}

func appendGPS(c []byte, t time.Time, r raw) []byte {
	c = append(appendTime(c, t), 0xcb)
	c = binary.BigEndian.AppendUint32(c, r.latitude)
	c = binary.BigEndian.AppendUint32(c, r.longitude)
	c = append(c, r.speed)
	return binary.BigEndian.AppendUint16(c, 0x1400|r.course) // positioned, north, east
}
