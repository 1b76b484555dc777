package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrTooLong is returned by encoders when a text does not fit its length byte.
var ErrTooLong = errors.New("gt06/protocol: text does not fit into a frame")

// Decoder turns frames into Messages. It keeps nothing between frames and may
// be used by many goroutines at once.
type Decoder struct{}

// cursor walks over the content of one frame.
type cursor struct {
	frame   []byte
	b       []byte // content: behind the type, before serial and checksum
	at      int
	base    int // where b begins in the frame
	m       *Message
	session Session
	group   modelGroup
	typ     byte
	length  int // the length field
	damage  string
	trace   func(Range) // the annotated dump; nil when decoding
	said    string      // value of the field, for the trace
	time    int64       // of the GPS block
	hasTime bool
	north   float64 // degrees before the sign is known
	east    float64
}

// Decode decodes one frame as a Framer cut it. m is reset in whole; its slices
// are reused. What is damaged is said in m.Error, and what was decoded before
// the damage is kept. A frame of an unknown type is a Message of KindUnknown,
// not an error.
func (d *Decoder) Decode(m *Message, frame []byte, s Session) {
	if !fast(m, frame, &s) {
		slow(m, frame, s)
	}
}

// slow decodes by the table.
func slow(m *Message, frame []byte, s Session) {
	c := m.scratch
	if c == nil || c.m != m { // new, or a copy of another Message
		c = new(cursor)
		m.scratch = c
	}
	c.at, c.base, c.damage, c.hasTime = 0, 0, "", false
	c.decode(m, frame, s)
	c.frame, c.b = nil, nil
}

// reset empties m field by field and keeps its slices' memory. One assignment
// of a whole Message would be built beside it and copied: a sixth of the time
// of a decode.
func (m *Message) reset() {
	m.Kind, m.Type, m.Extended, m.CRCOK, m.Has, m.Serial = 0, 0, false, false, 0, 0
	m.IMEI, m.UTCOffset, m.DeviceTime, m.FixTime = 0, 0, 0, 0
	m.Valid, m.Latitude, m.Longitude, m.Altitude, m.SpeedKMH, m.Course, m.Accuracy = false, 0, 0, 0, 0, 0, 0
	m.Cells, m.WiFi, m.Alarms, m.Attributes = m.Cells[:0], m.WiFi[:0], m.Alarms[:0], m.Attributes[:0]
	m.AlarmCode, m.HasAlarmCode, m.ServerFlag, m.Photo, m.Error, m.echo, m.seen = 0, false, 0, Photo{}, "", 0, 0
}

// decode runs the layout of the frame over its content.
func (c *cursor) decode(m *Message, frame []byte, s Session) {
	m.reset()
	c.m, c.session = m, s
	l := c.open(frame)
	if l == nil {
		return
	}
	m.Kind = l.kind
	for i := 0; i < len(l.fields); i++ {
		f := &l.fields[i]
		if f.block != nil && c.trace == nil && f.block.read(c) {
			i += f.block.fields - 1
			continue
		}
		if f.when != (when{}) && !f.when.holds(c.rest()) {
			continue
		}
		if c.trace == nil {
			f.read(c, f)
		} else {
			c.show(f)
		}
		if c.damage != "" {
			if m.Error == "" {
				m.Error = f.name + ": " + c.damage
			}
			return
		}
	}
}

// show reads a field for the annotated dump.
func (c *cursor) show(f *field) {
	start, known := c.at, len(c.m.Attributes)
	c.said = ""
	f.read(c, f)
	if c.said == "" {
		c.said = said(c.m.Attributes[known:], c.frame[c.base+start:c.base+max(start, c.at)])
	}
	if c.at > start {
		c.trace(Range{Offset: c.base + start, Len: c.at - start, Name: f.name, Value: c.said, Unit: f.unit})
	}
}

// open reads what is around the content and finds the layout.
func (c *cursor) open(frame []byte) *layout {
	m := c.m
	at := 3
	if len(frame) > 0 && frame[0] != headerBasic {
		m.Extended = true
		at = 4
	}
	if len(frame) <= at {
		m.Error = "frame: too short for a type"
		return nil
	}
	c.length = int(frame[2])
	if m.Extended {
		c.length = int(frame[2])<<8 | int(frame[3])
	}
	c.frame = frame
	c.typ = frame[at]
	m.Type = c.typ
	c.base = at + 1
	c.group = groupOf(c.session.Model)
	l := find(m.Extended, c.typ, c.length, c.group)
	end := len(frame) - 6 // serial, checksum, tail
	if end >= 0 {
		m.Serial = binary.BigEndian.Uint16(frame[end:])
		m.Has |= HasSerial
	}
	if l.answer == answerWiFi {
		end = len(frame) - 2
		m.Has &^= HasSerial
		m.Serial = 0
	} else if end >= c.base {
		m.Has |= HasCRC
		m.CRCOK = CRC(frame[2:end+2]) == binary.BigEndian.Uint16(frame[end+2:])
	}
	c.b = frame[c.base:max(c.base, end)]
	return l
}

func (c *cursor) fail(format string, args ...any) { c.damage = fmt.Sprintf(format, args...) }

// take returns the next n bytes.
func (c *cursor) take(n int) []byte {
	at := c.at
	if n < 0 || at+n > len(c.b) {
		return c.takeBehind(n)
	}
	c.at = at + n
	return c.b[at : at+n]
}

// takeBehind is take where the content is too short: it runs into serial and
// checksum. Some clones leave those out, so the bytes are taken for what they
// would be, and the message says so. Behind the frame there is nothing: then it
// is nil and a damage.
func (c *cursor) takeBehind(n int) []byte {
	if n < 0 || c.base+c.at+n > len(c.frame) {
		c.fail("needs %d bytes, %d are left", n, max(0, len(c.b)-c.at))
		c.at = max(c.at, len(c.b))
		return nil
	}
	b := c.frame[c.base+c.at : c.base+c.at+n]
	c.at += n
	if c.at > len(c.b) && c.m.Error == "" {
		c.m.Error = "content is too short: fields run into the checksum"
	}
	return b
}

// rest returns how many bytes of the content are left.
func (c *cursor) rest() int { return max(0, len(c.b)-c.at) }

// number takes a big-endian unsigned number of n bytes.
func (c *cursor) number(n int) uint64 {
	at := c.at
	if at+n > len(c.b) {
		return bigEndian(c.takeBehind(n))
	}
	c.at = at + n
	return bigEndian(c.b[at : at+n])
}

func bigEndian(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	v := uint64(0)
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}

// gpsBlock begins most layouts: its six fields one by one take a third of the
// time of a decode.
func (c *cursor) gpsBlock() bool {
	const size = 18
	m := c.m
	if c.at+size > len(c.b) || !m.gps(c.b[c.at:c.at+size], c.session.UTCOffset) {
		return false
	}
	c.at += size
	c.time, c.hasTime = m.FixTime, true
	return true
}

// nothingLeft is the end of most layouts.
func (c *cursor) nothingLeft() bool { return c.at >= len(c.b) }

// reportBlock is terminal information, battery, signal, alarm: of heartbeats
// and alarms.
func (c *cursor) reportBlock() bool {
	const size = 4
	if c.at+size > len(c.b) {
		return false
	}
	c.m.report(c.b[c.at:c.at+size], c.group)
	c.at += size
	return true
}

func (c *cursor) ok() bool { return c.damage == "" }

// say sets the value for the annotated dump. Callers ask for the trace first,
// because the arguments would be allocated for nothing.
func (c *cursor) say(format string, args ...any) { c.said = fmt.Sprintf(format, args...) }

func (c *cursor) setInt(key string, v int64)     { c.m.setInt(key, v) }
func (c *cursor) setFloat(key string, v float64) { c.m.attribute(key, Float).Float = v }
func (c *cursor) setBool(key string, v bool)     { c.m.setBool(key, v) }

// setText leaves out empty texts.
func (c *cursor) setText(key, v string) {
	if v != "" {
		c.m.attribute(key, String).Text = v
	}
}

func (c *cursor) addAlarm(a Alarm) { c.m.addAlarm(a) }

// Unknown makes m an unknown frame that could not be decoded because of why: a
// frame on which the decoder failed is kept and answered all the same.
func Unknown(m *Message, frame []byte, why string) {
	c := cursor{m: m}
	m.reset()
	c.open(frame)
	m.Kind, m.Error = KindUnknown, why
}
