package protocol

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The readers of single dialects. Sources: PROTOCOL.md sections 11, 13 and 14.

// sized takes bytes that their length precedes.
func (c *cursor) sized() []byte { return c.take(int(c.number(1))) }

func readCard(c *cursor, _ *field) {
	if b := c.sized(); c.ok() {
		c.setText("card", text(b))
	}
}

func readCardTrimmed(c *cursor, _ *field) {
	if b := c.sized(); c.ok() {
		c.setText("card", text(trimmed(b)))
	}
}

// readBenway: bit 15 ignition, 14 input 2, 12 temperature instead of a
// voltage, 13 its scale.
func readBenway(c *cursor, _ *field) {
	w := int64(c.number(2))
	if !c.ok() {
		return
	}
	c.setBool("ignition", w&(1<<15) != 0)
	c.setBool("in2", w&(1<<14) != 0)
	switch {
	case w&(1<<12) != 0:
		v := w & 0x1ff
		if w&(1<<9) != 0 {
			v = -v
		}
		c.setInt("temp1", v)
	case w&(1<<13) != 0:
		c.setInt("adc1", w&0x3ff)
	default:
		c.setFloat("adc1", float64(w&0x3ff)/10)
	}
	if c.trace != nil {
		c.say("0x%04x", w)
	}
}

func readSignedByte(c *cursor, _ *field) {
	v := int64(c.number(1))
	if v&0x80 != 0 {
		v = -(v & 0x7f)
	}
	if c.ok() {
		c.setInt("temp1", v)
		if c.trace != nil {
			c.say("%d °C", v)
		}
	}
}

func readMileage10(c *cursor, _ *field) {
	if v := c.number(4); c.ok() {
		c.setInt("odometer", int64(v)*10)
	}
}

func readAnyAlarm(c *cursor, _ *field) {
	v := c.number(1)
	if c.ok() && v > 0 {
		c.addAlarm(AlarmGeneral)
	}
	if c.trace != nil {
		c.say("%d", v)
	}
}

func readTemperaturePositive(c *cursor, _ *field) {
	w := c.number(2)
	if !c.ok() {
		return
	}
	t := float64(w&0x7fff) / 10
	if w&0x8000 == 0 {
		t = -t
	}
	c.setFloat("temp1", t)
	if c.trace != nil {
		c.say("%g °C", t)
	}
}

func readTemperature100(c *cursor, _ *field) {
	w := c.number(2)
	if !c.ok() {
		return
	}
	t := float64(w&0x7fff) / 100
	if w&0x8000 != 0 {
		t = -t
	}
	c.setFloat("temp1", t)
	if c.trace != nil {
		c.say("%g °C", t)
	}
}

// readSatSignal: two counts of satellites (GPS and BeiDou), then the signal.
func readSatSignal(c *cursor, _ *field) {
	w := int64(c.number(2))
	if !c.ok() {
		return
	}
	c.setInt("sat", w>>10&0x1f+w>>5&0x1f)
	c.setInt("rssi", w&0x1f)
	if c.trace != nil {
		c.say("%d satellites, signal %d", w>>10&0x1f+w>>5&0x1f, w&0x1f)
	}
}

func readOBD6(c *cursor, _ *field) {
	mode, power := c.number(1), c.number(2)
	c.take(3) // reserved, working time
	if !c.ok() {
		return
	}
	c.setFloat("power", float64(power)/100)
	if c.trace != nil {
		c.say("mode %d, %g V", mode, float64(power)/100)
	}
	if mode == 4 {
		if t := int16(c.number(2)); c.ok() {
			c.setFloat("temp1", float64(t)/10)
		}
	}
}

func readPower12(c *cursor, _ *field) {
	if v := c.number(2) & 0xfff; c.ok() {
		c.setFloat("power", float64(v)/10)
		if c.trace != nil {
			c.say("%g V", float64(v)/10)
		}
	}
}

func readTag(c *cursor, _ *field) {
	b := c.take(8)
	if b == nil {
		return
	}
	if binary.BigEndian.Uint64(b) != 0 {
		c.setText("driverUniqueId", hexText(b))
	}
	if c.trace != nil {
		c.said = hexText(b)
	}
}

func readHours(c *cursor, _ *field) {
	if v := c.number(3); c.ok() {
		c.setInt("hours", int64(v)*60_000)
		if c.trace != nil {
			c.say("%d min", v)
		}
	}
}

func readHoursSeconds(c *cursor, _ *field) {
	if v := c.number(4); c.ok() {
		c.setInt("hours", int64(v)*1000)
		if c.trace != nil {
			c.say("%d s", v)
		}
	}
}

func readChargeMotion(c *cursor, _ *field) {
	if b := c.take(2); b != nil {
		c.setBool("charge", b[0] == 1)
		c.setBool("motion", b[1] == 1)
	}
}

func readDriver(c *cursor, _ *field) {
	n := int(c.number(1))
	if n == 0 {
		return
	}
	c.take(1)
	if b := c.take(n - 1); b != nil {
		c.setText("driverUniqueId", hexText(b))
	}
}

// readModules: id 2, length 1, value, until nothing is left.
func readModules(c *cursor, _ *field) {
	for c.ok() && c.at < len(c.b) {
		id, n := c.number(2), int(c.number(1))
		switch id {
		case 0x0018:
			if v := c.number(2); c.ok() {
				c.setFloat("battery", float64(v)/100)
			}
		case 0x0032:
			if v := c.number(1); c.ok() {
				c.setInt("startupStatus", int64(v))
			}
		case 0x006a:
			if v := c.number(1); c.ok() {
				c.setInt("batteryLevel", int64(v))
			}
		default:
			c.take(n)
		}
	}
}

func readModule(c *cursor, _ *field) {
	id, n := c.number(2), int(c.number(1))
	switch id {
	case 0x0027:
		if v := c.number(2); c.ok() {
			c.setFloat("power", float64(v)/100)
		}
	case 0x002e:
		if v := c.number(4); c.ok() {
			c.setInt("odometer", int64(v))
		}
	case 0x003b:
		if v := c.number(2); c.ok() {
			c.m.Accuracy = float64(v) / 100
			c.m.Has |= HasAccuracy
		}
	default:
		c.take(n)
	}
}

func (c *cursor) serverFlag() {
	if v := c.number(4); c.ok() {
		c.m.ServerFlag = uint32(v)
		c.m.Has |= HasServerFlag
	}
}

// readReply is 0x15: a length that counts the server flag too, the flag, text.
func readReply(c *cursor, _ *field) {
	n := int(c.number(1))
	if n == 0 {
		return
	}
	c.serverFlag()
	s := text(c.take(n - 4))
	if !c.ok() {
		return
	}
	const digits = 20
	if id, found := strings.CutPrefix(s, "<ICCID:"); found && utf8.RuneCountInString(id) >= digits {
		c.m.Kind = KindInfo
		c.setText("iccid", string([]rune(id)[:digits]))
	} else {
		c.setText("result", s)
	}
	if c.trace != nil {
		c.say("%q", s)
	}
}

// readTextInfo is 0x21: server flag, encoding, text to the end. An answer to a
// position query is a fix.
func readTextInfo(c *cursor, _ *field) {
	c.serverFlag()
	encoding := c.number(1)
	b := c.take(c.rest())
	if !c.ok() {
		return
	}
	var small [256]byte
	s := small[:0]
	if encoding == 1 {
		s = latin(b)
	} else {
		s = appendWide(s, b)
	}
	c.m.Kind = KindCommandReply
	if !c.position(s) {
		c.setText("result", string(s))
	}
	if c.trace != nil {
		c.say("%q", string(s))
	}
}

// position reads the answer to a position query: "Current position!Lat:N54.7,
// Lon:E25.2,Course:1.0,Speed:2.0,DateTime:2017-05-26 10:27:47".
func (c *cursor) position(s []byte) bool {
	s, found := bytes.CutPrefix(s, []byte("Current position!"))
	if !found {
		return false
	}
	var v [4]float64
	for i, key := range [...]string{"Lat:", "Lon:", "Course:", "Speed:"} {
		item, rest, more := bytes.Cut(s, []byte(","))
		number, named := bytes.CutPrefix(item, []byte(key))
		if !more || !named {
			return false
		}
		s = rest
		sign := 1.0
		if i < 2 {
			if len(number) == 0 {
				return false
			}
			switch hemispheres := [...]string{"NS", "EW"}[i]; number[0] {
			case hemispheres[0]:
			case hemispheres[1]:
				sign = -1
			default:
				return false
			}
			number = number[1:]
		}
		value, ok := decimal(number)
		if !ok {
			return false
		}
		v[i] = sign * value
	}
	date, named := bytes.CutPrefix(s, []byte("DateTime:"))
	day, clock, spaced := bytes.Cut(date, []byte(" "))
	clock = bytes.TrimLeft(clock, " ")
	if !named || !spaced || !shaped(day, "0000-00-00") || !shaped(clock, "00:00:00") {
		return false
	}
	c.m.Kind = KindLocation
	t, err := time.Parse(time.DateTime, string(day)+" "+string(clock))
	c.setTime(t.Unix(), err == nil, day)
	const knot = 1.852 // the number is taken for knots, as Traccar does
	c.m.SpeedKMH = v[3] * knot
	c.setFix(v[0], v[1], v[2], true)
	return true
}

// readInformation is 0x94: a sub-type and its data (PROTOCOL.md section 11).
func readInformation(c *cursor, f *field) {
	sub := c.number(1)
	if !c.ok() {
		return
	}
	switch sub {
	case 0x00:
		if v := c.number(2); c.ok() {
			c.setFloat("adc1", float64(v)/100)
		}
	case 0x04:
		c.statusText(c.take(c.rest()))
	case 0x05:
		if c.rest() >= 7 {
			readTime(c, f)
		}
		if v := c.number(1); c.ok() {
			c.setBool("door", v&1 != 0)
			c.setBool("io1", v&4 != 0)
		}
	case 0x0a:
		c.take(16) // IMEI, IMSI
		if b := c.take(10); b != nil {
			c.setText("iccid", strings.TrimRight(hexText(b), "f"))
		}
	case 0x0b:
		c.network()
	case 0x0d:
		c.fuel()
	case 0x1b:
		c.tagOrSerial()
	case 0x1e:
		t, h := int32(c.number(4)), int32(c.number(4))
		if c.ok() {
			c.setFloat("temp1", float64(t)/10)
			c.setFloat("humidity", float64(h)/10)
		}
	}
	if c.ok() {
		c.take(c.rest())
	}
	if c.trace != nil {
		c.say("sub-type 0x%02x", sub)
	}
}

// statusKeys are the items of a status text.
//
//nolint:gochecknoglobals // read-only table
var statusKeys = map[string]string{
	"ALM1": "alarm1Status", "ALM2": "alarm2Status", "ALM3": "alarm3Status", "ALM4": "alarm4Status",
	"STA1": "otherStatus", "DYD": "engineStatus",
}

// statusText reads "ALM1=C4;STA1=C0;DYD=01;…": hexadecimal bytes.
func (c *cursor) statusText(s []byte) {
	for item := range bytes.SplitSeq(s, []byte(";")) {
		name, value, _ := bytes.Cut(item, []byte("="))
		key, known := statusKeys[string(name)]
		if !known {
			if len(item) > 0 && len(bytes.Trim(item, "=")) == 0 {
				c.fail("an item without a name")
				return
			}
			continue
		}
		value, _, _ = bytes.Cut(value, []byte("="))
		v, ok := hexadecimal(value)
		if !ok {
			c.fail("%s is no hexadecimal number", name)
			return
		}
		c.setInt(key, v)
	}
}

func (c *cursor) network() {
	switch c.length - 6 {
	case 1:
		v := int8(c.number(1))
		if !c.ok() {
			return
		}
		name := "2G"
		if v > 0 {
			name = "4G"
		}
		c.setText("networkTechnology", name)
	case 2:
		if v := c.number(2); c.ok() {
			c.setFloat("power", float64(v)/100)
		}
	}
}

// fuel reads the sensor line "!AIOIL,address,output,temperature,version,codes,
// level,moving,waves,checksum", which may have a time before it.
func (c *cursor) fuel() {
	if c.at < len(c.b) && c.b[c.at] != '!' {
		c.take(6)
	}
	const temperature, level, count = 3, 6, 10
	var t, v float64
	n, ok := 0, true
	for item := range bytes.SplitSeq(c.take(c.rest()), []byte(",")) {
		good := true
		switch n {
		case 0:
			good = string(item) == "!AIOIL"
		case temperature:
			t, good = decimal(item)
		case level:
			v, good = decimal(item)
		}
		ok = ok && good
		n++
	}
	if !ok || n != count {
		c.fail("no fuel sensor line")
		return
	}
	c.setFloat("temp1", t)
	c.setFloat("fuel", v)
}

func (c *cursor) tagOrSerial() {
	if at := c.base + c.at; at < len(c.frame) && unicode.IsLetter(rune(c.frame[at])) {
		c.setText("serial", text(trimmed(c.take(c.rest()))))
		return
	}
	c.take(2)
	if b := c.take(4); b != nil {
		c.setText("driverUniqueId", hexText(b))
	}
	c.take(2)
}

func readSerialPort(c *cursor, _ *field) {
	b := c.take(c.rest())
	if !c.ok() {
		return
	}
	for _, v := range b {
		if v < 32 && v != '\r' && v != '\n' || v > 127 {
			c.setText("result", hexText(b))
			return
		}
	}
	c.setText("result", string(trimmed(b)))
}
