package protocol

import (
	"bytes"
	"strconv"
	"time"
)

// The readers of messages that are lists of numbered items, and of those that
// carry a Unix time. Sources: PROTOCOL.md sections 13 and 14.

// readUnix takes a Unix time of the device.
func readUnix(c *cursor, _ *field) {
	v := int64(c.number(4))
	if !c.ok() {
		return
	}
	c.time, c.hasTime = v, true
	c.m.DeviceTime = v
	c.m.Has |= HasDeviceTime
	if c.trace != nil {
		c.said = time.Unix(v, 0).UTC().Format(time.RFC3339)
	}
}

// readModular is the content of 0x70: id 2, length 2, value (the AZ and Wetrack
// families). Values of known items have their own size, whatever the length
// says.
func readModular(c *cursor, _ *field) {
	for c.ok() && c.rest() > 0 {
		id, n := c.number(2), int(c.number(2))
		switch id {
		case 0x03:
			c.hexItem("iccid", 10)
		case 0x09:
			c.intItem("sat", 1)
		case 0x0a:
			c.intItem("satVisible", 1)
		case 0x11:
			mcc, mnc, lac, cid, rssi := c.number(2), c.number(2), c.number(2), c.number(3), c.number(1)
			if c.ok() && cid > 0 {
				c.m.Cells = append(c.m.Cells[:0], Cell{MCC: uint16(mcc), MNC: uint16(mnc), LAC: uint32(lac), CID: cid, RSSI: -int16(rssi), HasRSSI: true})
			}
		case 0x18:
			c.floatItem("battery", 2, 100)
		case 0x28:
			c.floatItem("hdop", 1, 10)
		case 0x29:
			c.intItem("index", 4)
		case 0x2a:
			if v := c.number(1); c.ok() {
				c.setBool("door", v&0xf > 0)
				c.setBool("tamper", v>>4 > 0)
			}
		case 0x2b:
			c.intItem("bootReason", 1)
		case 0x2e:
			if b := c.take(4); b != nil {
				c.setInt("odometer", int64(b[3])<<24|int64(b[2])<<16|int64(b[1])<<8|int64(b[0]))
			}
		case 0x33:
			c.modularFix()
		case 0x34:
			c.modularEvent()
		case 0x7f:
			c.hexItem("tag1Id", 6)
			c.floatItem("tag1Battery", 2, 1000)
			c.intItem("tag1BatteryLevel", 1)
			if t, h := int16(c.number(2)), int16(c.number(2)); c.ok() {
				c.setFloat("tag1Temp", float64(t)/10)
				c.setInt("tag1Humidity", int64(h))
			}
			c.intItem("tag1Status", 1)
		default:
			c.take(n)
		}
	}
	// The serial is taken from behind the last item, which is where it stands
	// unless an item is longer than its length says.
	c.m.echo = c.base + c.at
}

func (c *cursor) intItem(key string, size int) {
	if v := c.number(size); c.ok() {
		c.setInt(key, int64(v))
	}
}

func (c *cursor) floatItem(key string, size int, scale float64) {
	if v := c.number(size); c.ok() {
		c.setFloat(key, float64(v)/scale)
	}
}

func (c *cursor) hexItem(key string, size int) {
	if b := c.take(size); b != nil {
		c.setText(key, hexText(b))
	}
}

// modularFix is item 0x33: Unix time, satellites, altitude and a GPS block.
func (c *cursor) modularFix() {
	t, sat, altitude := int64(c.number(4)), c.number(1), int16(c.number(2))
	north, east := float64(c.number(4))/60/30000, float64(c.number(4))/60/30000
	speed, flags := c.number(1), c.number(2)
	if !c.ok() {
		return
	}
	c.time, c.hasTime = t, true
	c.m.DeviceTime = t
	c.m.Altitude, c.m.SpeedKMH = float64(altitude), float64(speed)
	c.m.Has |= HasDeviceTime | HasAltitude
	c.m.Kind = KindLocation
	c.setInt("sat", int64(sat))
	if flags&(1<<10) == 0 {
		north = -north
	}
	if flags&(1<<11) != 0 {
		east = -east
	}
	c.setFix(north, east, float64(flags&0x3ff), flags&(1<<12) != 0)
}

//nolint:gochecknoglobals // read-only table
var modularAlarms = [256]Alarm{
	0x10: AlarmDoor, 0x12: AlarmRemoving, 0x14: AlarmGeofenceEnter, 0x15: AlarmGeofenceExit, 0x16: AlarmTemperature, 0x1a: AlarmLowBattery,
	0x1b: AlarmOverspeed, 0x1c: AlarmPowerOn, 0x1d: AlarmPowerOff, 0x20: AlarmVibration, 0x21: AlarmPowerCut, 0x23: AlarmTampering,
}

// modularEvent is item 0x34: an event, its time, and content that has its own
// length.
func (c *cursor) modularEvent() {
	v := c.number(1)
	c.take(4)
	c.take(int(c.number(1)))
	if c.ok() {
		c.addAlarm(modularAlarms[byte(v)])
		c.setInt("event", int64(v))
	}
}

// readDeviceStatus is the list of 0xF1: id 2, length 1, value.
func readDeviceStatus(c *cursor, _ *field) {
	for c.ok() && c.rest() > 0 {
		id, n := c.number(2), int(c.number(1))
		flag := func(key string) {
			if v := c.number(1); c.ok() {
				c.setBool(key, v > 0)
			}
		}
		switch id {
		case 0x0001:
			if v := c.number(1); c.ok() {
				c.setBool("motion", v == 2 || v == 4)
			}
		case 0x0002:
			flag("armed")
		case 0x0004:
			flag("ignition")
		case 0x0005:
			c.floatItem("power", 2, 100)
		case 0x0007:
			flag("charge")
		case 0x000a:
			c.intItem("chargeVoltage", 2)
		case 0x000b:
			c.floatItem("batteryTemp", 2, 10)
		default:
			c.take(n)
		}
	}
}

// readPeripherals is the list of 0xF2: id 2, then a length of one byte or two.
func readPeripherals(c *cursor, _ *field) {
	for c.ok() && c.rest() > 0 {
		switch id := c.number(2); id {
		case 0x000a:
			const fixed = 10
			n := int(c.number(2))
			c.take(1) // kind of address
			c.hexItem("mac", 6)
			event, data, kind := c.number(1), c.number(1), c.number(1)
			details := c.take(n - fixed)
			if !c.ok() {
				return
			}
			c.setInt("event", int64(event))
			if event > 0 {
				c.setInt("eventData", int64(data))
			}
			c.setInt("dataType", int64(kind))
			c.setText("dataDetails", hexText(details))
		case 0x000c:
			c.take(1)
			c.intItem("externalBatteryLevel", 1)
			if v := c.number(1); c.ok() && v > 0 {
				c.setBool("externalBatteryCharge", true)
			}
			c.intItem("externalBatteryCycles", 2)
			c.take(6)
		default:
			n := int(c.number(1))
			if n == 0 {
				n = int(c.number(1))
			}
			c.take(n)
		}
	}
}

// readBatteryTemperature: tenths of a kelvin.
func readBatteryTemperature(c *cursor, f *field) {
	if v := c.number(2); c.ok() {
		c.setFloat(f.key, float64(v)/10-273.1)
	}
}

// readCellVoltages: fourteen cells of a battery, millivolts.
func readCellVoltages(c *cursor, _ *field) {
	for i := range cellKeys {
		c.floatItem(cellKeys[i], 2, 1000)
	}
}

//nolint:gochecknoglobals // read-only tables
var (
	cellKeys = numbered("batteryCell", 14)
	portKeys = numbered("adc", 15)
)

func numbered(key string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = key + strconv.Itoa(i+1)
	}
	return keys
}

// readText takes text of a fixed size.
func readText(c *cursor, f *field) {
	if b := c.take(int(f.size)); b != nil {
		c.setText(f.key, text(trimmed(b)))
	}
}

// readNumberText is a number that is kept as text: ids of drivers.
func readNumberText(c *cursor, f *field) {
	if v := c.number(int(f.size)); c.ok() {
		c.setText(f.key, strconv.FormatUint(v, 10))
	}
}

// readDriverNumber does it for one that is zero when there is no driver.
func readDriverNumber(c *cursor, f *field) {
	if v := c.number(int(f.size)); c.ok() && v > 0 {
		c.setText(f.key, strconv.FormatUint(v, 10))
	}
}

// readPorts is the end of the X1's location: port information whose bits 20 to
// 23 count the analogue inputs behind inputs and outputs.
func readPorts(c *cursor, _ *field) {
	info := c.number(4)
	c.intItem("input", 1)
	c.intItem("output", 1)
	for i := range int(info >> 20 & 0xf) {
		c.floatItem(portKeys[i], 2, 100)
	}
}

// readPlainCell is the X1's: the country is not masked, the network one byte.
func readPlainCell(c *cursor, _ *field) {
	mcc, mnc, lac, cid := c.number(2), c.number(1), c.number(2), c.number(4)
	if c.ok() {
		c.m.Cells = append(c.m.Cells, Cell{MCC: uint16(mcc), MNC: uint16(mnc), LAC: uint32(lac), CID: cid})
	}
}

// readTypedCell begins with the kind of the network: from 3 on it is 4G, with
// wider fields.
func readTypedCell(c *cursor, _ *field) {
	kind := c.number(1)
	mcc, mnc := c.operator(false)
	lacSize, cidSize, rssiSize := 2, 3, 1
	if kind >= 3 {
		lacSize, cidSize, rssiSize = 4, 8, 2
	}
	lac, cid := c.number(lacSize), c.number(cidSize)
	c.number(rssiSize)
	if c.ok() {
		c.m.Cells = append(c.m.Cells, Cell{MCC: mcc, MNC: mnc, LAC: uint32(lac), CID: cid})
	}
}

// readAlarmCells is 0xA9: cells whose width a byte tells, and how many.
func readAlarmCells(c *cursor, _ *field) {
	mcc, mnc := c.operator(false)
	lac, cid := uint8(2), uint8(3)
	if c.number(1) > 0 {
		lac, cid = 4, 8
	}
	wide := field{lac: lac, cid: cid, size: uint8(c.number(1))}
	if wide.size > 0 {
		c.cells(&wide, mcc, mnc, int(wide.size))
	}
}

// readAltitude is metres, signed.
func readAltitude(c *cursor, _ *field) {
	if v := int16(c.number(2)); c.ok() {
		c.m.Altitude = float64(v)
		c.m.Has |= HasAltitude
	}
}

// readSL4XTail: mileage when there is room for it, and the altitude.
func readSL4XTail(c *cursor, _ *field) {
	if c.rest() > 2 {
		c.intItem("odometer", 4)
	}
	readAltitude(c, nil)
}

// readSizedGPS is the GPS block with its length behind the time; zero: no fix.
func readSizedGPS(c *cursor, f *field) {
	readTime(c, f)
	if c.number(1) == 0 {
		return
	}
	readSatellites(c, f)
	readLatitude(c, f)
	readLongitude(c, f)
	readSpeed(c, &field{size: 1})
	readCourse(c, f)
}

// readAZCell: the cell with its length; when there is one, its strength.
func readAZCell(c *cursor, f *field) {
	before := len(c.m.Cells)
	readCellSized(c, f)
	if c.ok() && len(c.m.Cells) > before {
		c.intItem("rssi", 1)
	}
}

// readSized passes over bytes that their length precedes.
func readSized(c *cursor, _ *field) { c.take(int(c.number(1))) }

// readAZStatus is the status of the AZ735, in alarms with a meaning.
func readAZStatus(c *cursor, f *field) {
	v := c.number(1)
	if !c.ok() {
		return
	}
	c.setInt("status", int64(v))
	if f.key == "" {
		return
	}
	switch v {
	case 0xa0, 0xa1:
		c.setBool("armed", v == 0xa0)
	case 0xa2, 0xa3:
		c.addAlarm(AlarmLowBattery)
	case 0xa4:
		c.addAlarm(AlarmGeneral)
	case 0xa5:
		c.addAlarm(AlarmDoor)
	}
}

//nolint:gochecknoglobals // read-only table
var cameraAlarms = [256]Alarm{
	0x0e: AlarmLowPower, 0x76: AlarmTemperature, 0x80: AlarmVibration, 0x87: AlarmOverspeed, 0x88: AlarmPowerCut, 0x90: AlarmAcceleration,
	0x91: AlarmBraking, 0x92: AlarmCornering, 0x93: AlarmAccident,
}

// readCameraAlarm is 0x95. Short ones have a time only; the JC400's begin with
// FF FF and carry satellites, a wide speed behind the course, and a voltage.
func readCameraAlarm(c *cursor, f *field) {
	const short = 7
	jc400 := !c.m.Extended && len(c.b) >= 2 && c.b[0] == 0xff && c.b[1] == 0xff
	long := c.length-5 > short
	switch {
	case !long:
		readTime(c, f)
	case jc400:
		c.take(3) // marker, version
		readTime(c, f)
		readSatellites(c, f)
		readLatitude(c, f)
		readLongitude(c, f)
		flags := c.take(2)
		speed := c.number(2)
		if !c.ok() {
			return
		}
		c.course(uint64(flags[0])<<8 | uint64(flags[1]))
		if c.m.Has&HasFix != 0 {
			c.m.SpeedKMH = float64(speed)
		}
	default:
		readTime(c, f)
		readLatitude(c, f)
		readLongitude(c, f)
		readCourse(c, f)
	}
	if jc400 {
		c.floatItem("power", 2, 10)
	}
	event, data := c.number(1), c.number(2)
	if !c.ok() {
		return
	}
	c.setInt("event", int64(event))
	c.setInt("eventData", int64(data))
	switch {
	case event != 1:
		c.addAlarm(cameraAlarms[byte(event)])
	case long:
		c.addAlarm(AlarmSOS)
	default:
		c.addAlarm(AlarmGeneral)
	}
	if n := c.rest(); n > 0 {
		c.setText("eventFiles", text(c.take(n)))
	}
}

// readClock is the end of the Bluetooth clock's report.
func readClock(c *cursor, _ *field) {
	if v := c.number(1); c.ok() {
		c.setInt("clock", int64(v>>2&0xf))
	}
}

// readBareWiFi is 0xF3: a count, then two bytes and an address each, without a
// strength.
func readBareWiFi(c *cursor, _ *field) {
	for range int(c.number(1)) {
		c.take(2)
		b := c.take(6)
		if b == nil {
			return
		}
		c.addAccessPoint(AccessPoint{MAC: [6]byte(b)})
	}
}

// obdKeys are the items of 0x8C by their number, hexadecimal values of hundredths.
//
//nolint:gochecknoglobals // read-only table
var obdKeys = [256]string{0x28: "odometer", 0x2b: "fuel", 0x2d: "coolantTemp", 0x35: "obdSpeed", 0x36: "rpm", 0x47: "fuelUsed", 0x49: "hours"}

// readOBD is "28=1234,2B=50,…"; twelve bytes behind it are not told.
func readOBD(c *cursor, _ *field) {
	const behind, vin = 12, 0x4a
	b := c.take(c.rest() - behind)
	if !c.ok() {
		return
	}
	for len(b) > 0 {
		var pair []byte
		pair, b, _ = bytes.Cut(b, []byte(","))
		name, value, _ := bytes.Cut(pair, []byte("="))
		if len(value) == 0 {
			continue
		}
		value, _, _ = bytes.Cut(value, []byte("="))
		id, ok := hexadecimal(name[:min(2, len(name))])
		if !ok || len(name) < 2 {
			c.fail("%q names no item", text(name))
			return
		}
		if id == vin {
			c.setText("vin", text(value))
			continue
		}
		key := obdKeys[byte(id)]
		if key == "" {
			continue
		}
		v, ok := hexadecimal(value)
		if !ok {
			c.fail("%s is no hexadecimal number", key)
			return
		}
		c.setFloat(key, float64(v)/100)
	}
	c.take(c.rest())
}

func readPhotoTotal(c *cursor, _ *field) {
	if v := c.number(4); c.ok() {
		c.m.Photo.Total = uint32(v)
		c.m.Has |= HasPhoto
		if c.trace != nil {
			c.say("%d", v)
		}
	}
}

func readPhotoID(c *cursor, _ *field) {
	if v := c.number(4); c.ok() {
		c.m.Photo.ID = uint32(v)
		c.m.Has |= HasPhoto
		if c.trace != nil {
			c.say("%08x", v)
		}
	}
}

// readPhotoPart: offset, size, bytes.
func readPhotoPart(c *cursor, _ *field) {
	place, n := c.number(4), int(c.number(2))
	c.photoBytes(uint32(place), n)
}

func (c *cursor) photoBytes(place uint32, n int) {
	at := c.base + c.at
	if c.take(n) == nil {
		return
	}
	c.m.Photo.Place, c.m.Photo.At, c.m.Photo.Len = place, at, n
	if c.trace != nil {
		c.say("%d bytes at %d", n, place)
	}
}

// readMedia is the end of 0x41: of pictures, which have type and format 0, the
// number of the part and its bytes.
func readMedia(c *cursor, _ *field) {
	kind, format := c.number(1), c.number(1)
	if !c.ok() || kind != 0 || format != 0 {
		return
	}
	c.take(1) // event
	place := c.number(2)
	if c.ok() {
		c.m.Photo.Numbered = true
		c.photoBytes(uint32(place), c.rest())
	}
}
