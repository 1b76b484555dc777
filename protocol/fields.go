package protocol

import (
	"encoding/hex"
	"time"
)

// The readers of the fields most layouts share. Each takes its bytes from the
// cursor, fills the message and, for the annotated dump, says what it saw.

func readSkip(c *cursor, f *field) {
	n := int(f.size)
	if n == 0 {
		n = c.rest()
	}
	c.take(n)
}

func readIMEI(c *cursor, _ *field) {
	const size = 8
	var b []byte
	if c.rest() < size && len(c.frame) >= c.base+size+len(tail) {
		// Clones leave serial and checksum out and say the usual length.
		b = c.frame[c.base : c.base+size]
		c.at = len(c.b)
	} else if b = c.take(size); b == nil {
		return
	}
	c.m.IMEI = imeiFromWire(b)
	c.m.Has |= HasIMEI
	if c.trace != nil {
		c.say("%s", c.m.IMEI)
	}
}

// readZone: bits 15 to 4 are hours times 100 plus minutes, bit 3 west
// (PROTOCOL.md section 4).
func readZone(c *cursor, _ *field) {
	w := int32(c.number(2))
	offset := ((w>>4)/100*60 + (w>>4)%100) * 60
	if w&8 != 0 {
		offset = -offset
	}
	c.m.UTCOffset = offset
	c.m.Has |= HasUTCOffset
	if c.trace != nil {
		c.say("%+d s", offset)
	}
}

// civil returns Unix seconds of a date in UTC; the year counts from 2000. A date that does not exist is
// refused: rolling month 13 over would invent a fix in the next year.
func civil(year, month, day, hour, minute, second int) (int64, bool) {
	if year > 99 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	last := monthDays[month-1]
	if month == 2 && year%4 == 0 { // 2000 to 2099
		last++
	}
	if day > last {
		return 0, false
	}
	const epoch = 10957 // days from 1970 to 2000
	days := epoch + 365*year + (year+3)/4 + daysBefore[month-1] + day - 1
	if month > 2 && year%4 == 0 {
		days++
	}
	return int64(days)*86400 + int64(hour*3600+minute*60+second), true
}

//nolint:gochecknoglobals // read-only tables
var (
	monthDays  = [12]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
	daysBefore = [12]int{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334}
)

func readTime(c *cursor, _ *field) {
	b := c.take(6)
	if b == nil {
		return
	}
	t, ok := civil(int(b[0]), int(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5]))
	c.setTime(t-int64(c.session.UTCOffset), ok, b)
}

func readTimeBCD(c *cursor, _ *field) {
	b := c.take(6)
	if b == nil {
		return
	}
	var v [6]int
	for i, x := range b {
		v[i] = int(x>>4)*10 + int(x&0xf)
	}
	t, ok := civil(v[0], v[1], v[2], v[3], v[4], v[5])
	c.setTime(t, ok, b)
}

func (c *cursor) setTime(t int64, ok bool, raw []byte) {
	c.hasTime = ok
	if !ok {
		if c.m.Error != "" {
			c.m.Error += "; "
		}
		c.m.Error += "impossible date " + hexText(raw)
		if c.trace != nil {
			c.say("impossible date")
		}
		return
	}
	c.time = t
	c.m.DeviceTime = t
	c.m.Has |= HasDeviceTime
	if c.trace != nil {
		c.said = time.Unix(t, 0).UTC().Format(time.RFC3339)
	}
}

func readSatellites(c *cursor, _ *field) {
	n := c.number(1) & 0xf
	if c.ok() {
		c.setInt("sat", int64(n))
	}
}

func readLatitude(c *cursor, _ *field) {
	c.north = float64(c.number(4)) / 60 / 30000
	if c.trace != nil {
		c.say("%.7f°", c.north)
	}
}

func readLongitude(c *cursor, _ *field) {
	c.east = float64(c.number(4)) / 60 / 30000
	if c.trace != nil {
		c.say("%.7f°", c.east)
	}
}

func readSpeed(c *cursor, f *field) {
	v := c.number(int(f.size))
	c.m.SpeedKMH = float64(v)
	if c.trace != nil {
		c.say("%d km/h", v)
	}
}

// readCourse ends the GPS block: only now are the signs and the validity known.
func readCourse(c *cursor, _ *field) {
	w := c.number(2)
	if !c.ok() {
		c.m.SpeedKMH = 0
		return
	}
	c.course(w)
}

// course applies the word of course and status to the coordinates before it.
func (c *cursor) course(w uint64) {
	if w&(1<<10) == 0 {
		c.north = -c.north
	}
	if w&(1<<11) != 0 {
		c.east = -c.east
	}
	if w&(1<<14) != 0 {
		c.setBool("ignition", w&(1<<15) != 0)
	}
	if c.trace != nil {
		c.say("%d°, positioned %v, north %v, west %v", w&0x3ff, w&(1<<12) != 0, w&(1<<10) != 0, w&(1<<11) != 0)
	}
	c.setFix(c.north, c.east, float64(w&0x3ff), w&(1<<12) != 0)
}

func (c *cursor) setFix(latitude, longitude, course float64, valid bool) {
	m := c.m
	if latitude > 90 || latitude < -90 || longitude > 180 || longitude < -180 {
		if m.Error == "" {
			m.Error = "impossible coordinates"
		}
		m.SpeedKMH = 0
		return
	}
	m.Latitude, m.Longitude, m.Course, m.Valid = latitude, longitude, course, valid
	m.Has |= HasFix
	if c.hasTime {
		m.FixTime = c.time
		m.Has |= HasFixTime
	}
}

func readUint(c *cursor, f *field) {
	v := c.number(int(f.size))
	if c.ok() {
		c.setNumber(f, int64(v))
	}
}

func readInt(c *cursor, f *field) {
	v := int64(c.number(int(f.size)))
	if shift := 64 - 8*f.size; c.ok() {
		c.setNumber(f, v<<shift>>shift)
	}
}

func (c *cursor) setNumber(f *field, v int64) {
	if f.scale == 0 {
		c.setInt(f.key, v)
		return
	}
	c.setFloat(f.key, float64(v)/f.scale)
}

func readBool(c *cursor, f *field) {
	v := c.number(1) > 0
	if c.ok() {
		c.setBool(f.key, v)
	}
}

// hexText allocates once where hex.EncodeToString does twice: most values are
// addresses and numbers of cards.
func hexText(b []byte) string {
	var small [48]byte
	return string(hex.AppendEncode(small[:0], b))
}

func readHex(c *cursor, f *field) {
	if b := c.take(int(f.size)); b != nil {
		c.setText(f.key, hexText(b))
	}
}

// readUpload and the next are the ends of location frames (PROTOCOL.md section
// 6): the first says all three, the second keeps a re-upload only when it is
// one, as Traccar does.
func readUpload(c *cursor, _ *field) {
	b := c.take(3)
	if b == nil {
		return
	}
	c.setBool("ignition", b[0] > 0)
	c.setInt("event", int64(b[1]))
	c.setBool("archive", b[2] > 0)
	if c.trace != nil {
		c.say("%v, %d, %v", b[0] > 0, b[1], b[2] > 0)
	}
}

func readUploadTail(c *cursor, _ *field) {
	b := c.take(3)
	if b == nil {
		return
	}
	c.setBool("ignition", b[0] > 0)
	if b[2] > 0 {
		c.setBool("archive", true)
	}
	if c.trace != nil {
		c.say("%v, %d, %v", b[0] > 0, b[1], b[2] > 0)
	}
}

// readStatus is the terminal information byte (PROTOCOL.md section 7).
func readStatus(c *cursor, _ *field) {
	v := c.number(1)
	if !c.ok() {
		return
	}
	c.m.setStatus(byte(v))
	if c.trace != nil {
		c.say("ignition %v, charge %v, cut %v, alarm bits %d", v&2 != 0, v&4 != 0, v&0x80 != 0, v>>3&7)
	}
}

// readStatusVXT01 gives the last alarm another meaning.
func readStatusVXT01(c *cursor, f *field) {
	readStatus(c, f)
	if n := len(c.m.Alarms); n > 0 && c.m.Alarms[n-1] == AlarmRemoving {
		c.m.Alarms[n-1] = AlarmOverspeed
	}
}

func (m *Message) setStatus(v byte) {
	m.setInt("status", int64(v))
	m.setBool("ignition", v&2 != 0)
	m.setBool("charge", v&4 != 0)
	m.setBool("blocked", v&0x80 != 0)
	m.addAlarm(statusAlarms[v>>3&7])
}

func readBattery(c *cursor, _ *field) {
	v := c.number(1)
	if !c.ok() {
		return
	}
	percent, ok := level(byte(v))
	switch {
	case ok:
		c.setInt("batteryLevel", percent)
		if c.trace != nil {
			c.say("%d %%", percent)
		}
	case c.trace != nil:
		c.say("%d: no level", v)
	}
}

// level: 0 to 6 are levels, up to 100 percent, more is nonsense.
func level(v byte) (percent int64, ok bool) {
	if v <= 6 {
		return int64(v) * 100 / 6, true
	}
	return int64(v), v <= 100
}

func readAlarm(c *cursor, _ *field) {
	if v := c.number(1); c.ok() {
		c.setAlarm(uint16(v))
	}
}

// readAlarmTRX16i keeps the code as an event, and gives two another meaning.
func readAlarmTRX16i(c *cursor, f *field) {
	v := c.number(1)
	if !c.ok() {
		return
	}
	c.setInt(f.key, int64(v))
	group := c.group
	c.group = modelTRX16i
	c.setAlarm(uint16(v))
	c.group = group
}

// readAlarmWide: the high bits of the code are the high half of the language
// byte behind it.
func readAlarmWide(c *cursor, _ *field) {
	v := c.number(1)
	if at := c.base + c.at; at < len(c.frame) {
		v |= uint64(c.frame[at]>>4) << 8
	}
	if c.ok() {
		c.setAlarm(uint16(v))
	}
}

func (c *cursor) setAlarm(code uint16) {
	a := c.m.setAlarm(code, c.group)
	if c.trace != nil {
		c.say("0x%02x %s", code, a)
	}
}

func (m *Message) setAlarm(code uint16, group modelGroup) Alarm {
	m.AlarmCode, m.HasAlarmCode = code, true
	a := alarmOf(code, group)
	m.addAlarm(a)
	return a
}

// report takes terminal information, battery, signal and alarm.
func (m *Message) report(b []byte, group modelGroup) {
	m.setStatus(b[0])
	if percent, ok := level(b[1]); ok {
		m.setInt("batteryLevel", percent)
	}
	m.setInt("rssi", int64(b[2]))
	m.setAlarm(uint16(b[3]), group)
}

// readArmed is the short terminal information of the GK310.
func readArmed(c *cursor, _ *field) {
	v := c.number(1)
	if !c.ok() {
		return
	}
	c.setBool("armed", v&1 != 0)
	c.setBool("ignition", v&2 != 0)
	c.setBool("charge", v&4 != 0)
	if c.trace != nil {
		c.say("armed %v, ignition %v, charge %v", v&1 != 0, v&2 != 0, v&4 != 0)
	}
}

// readFence takes the number of the fence. Firmwares that leave it out, or send
// a cell that is longer than its place, are read as Traccar reads them: into
// the serial behind.
func readFence(c *cursor, _ *field) {
	at := c.base + c.at
	if at >= len(c.frame) {
		return
	}
	v := int64(c.frame[at])
	c.at = min(c.at+1, len(c.b))
	c.setInt("geofence", v)
}
