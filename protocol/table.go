package protocol

import "slices"

// The building blocks that layouts share (PROTOCOL.md sections 5 to 7).
//
//nolint:gochecknoglobals // read-only tables
var (
	gps = asBlock((*cursor).gpsBlock, []field{
		{read: readTime, name: "time"},
		{read: readSatellites, name: "satellites"},
		{read: readLatitude, name: "latitude"},
		{read: readLongitude, name: "longitude"},
		{read: readSpeed, name: "speed", size: 1},
		{read: readCourse, name: "course and status"},
	})
	cell        = oneCell(2, 3)
	cellSized   = sizedCell(2, 3)
	wideCell    = []field{{read: readCell, name: "cell", lac: 2, cid: 4, wideMNC: true, when: when{least: 1}}}
	wifi        = []field{{read: readWiFi, name: "access points"}}
	timing      = skip("timing advance", 1)
	status      = []field{{read: readStatus, name: "terminal information"}}
	statusVXT01 = []field{{read: readStatusVXT01, name: "terminal information"}}
	levels      = []field{{read: readBattery, name: "battery level"}, {read: readUint, name: "signal", size: 1, key: "rssi"}}
	alarm       = []field{{read: readAlarm, name: "alarm"}}
	report      = asBlock((*cursor).reportBlock, status, levels, alarm)
	wideAlarm   = []field{{read: readAlarmWide, name: "alarm"}, {read: readSkip, name: "language", size: 1}}
	// rest: three or seven bytes left are ignition, mode and re-upload, four are
	// the mileage (PROTOCOL.md section 6, "Trailing rule").
	restKnown = []field{
		{read: readUploadTail, name: "ignition, mode, re-upload", when: when{exact: [2]uint8{3, 7}}},
		{read: readUint, name: "mileage", size: 4, key: "odometer", unit: "m", when: when{exact: [2]uint8{4, 4}}},
	}
	rest      = asBlock((*cursor).nothingLeft, restKnown, left())
	fence     = []field{{read: readFence, name: "fence number"}}
	powerV    = []field{{read: readUint, name: "external voltage", size: 2, key: "power", unit: "V", scale: 100}}
	upload    = []field{{read: readUpload, name: "ignition, event, re-upload", when: when{least: 3}}}
	altitude  = []field{{read: readAltitude, name: "altitude", unit: "m"}}
	sl4xCell  = []field{{read: readCell, name: "cell", lac: 2, cid: 8, wideMNC: true, when: when{least: 1}}}
	sl4xSized = []field{{read: readCellSized, name: "cell", lac: 2, cid: 8, wideMNC: true, when: when{least: 1}}}
	// azLocation: the GPS block and the cell carry their lengths.
	azLocation = []field{
		{read: readSizedGPS, name: "time, GPS with its length"},
		{read: readAZCell, name: "cell with its length", lac: 2, cid: 3},
		{read: readSized, name: "more cells"},
		{read: readSized, name: "access points"},
	}
	login = []field{
		{read: readIMEI, name: "imei"},
		{read: readSkip, name: "model code", size: 2, when: when{least: 2}},
	}
	skip8 = []field{{read: readSkip, name: "imei", size: 8}}
)

func skip(name string, size uint8) []field { return []field{{read: readSkip, name: name, size: size}} }

func join(parts ...[]field) []field { return slices.Concat(parts...) }

// asBlock makes one block of fields.
func asBlock(read func(*cursor) bool, parts ...[]field) []field {
	fields := join(parts...)
	fields[0].block = &block{len(fields), read}
	return fields
}

// manyCells is a time zone's neighbour in many layouts: country, network, then
// n cells (0: a count says how many) of the given widths.
func manyCells(n, lac, cid uint8) []field {
	return []field{{read: readCells, name: "cells", size: n, lac: lac, cid: cid}}
}

func oneCell(lac, cid uint8) []field {
	return []field{{read: readCell, name: "cell", lac: lac, cid: cid, when: when{least: 1}}}
}

// sizedCell: alarms carry a length in front of the cell.
func sizedCell(lac, cid uint8) []field {
	return []field{{read: readCellSized, name: "cell", lac: lac, cid: cid, when: when{least: 1}}}
}

// left names what a layout leaves.
func left() []field { return []field{{read: readSkip, name: "not decoded"}} }

//nolint:gochecknoglobals // read-only table
var table = [256][]row{
	typeLogin: {
		{min: 0x10, layout: layout{"login with time zone", KindLogin, answerSame, join(login, []field{{read: readZone, name: "time zone and language", when: when{least: 2}}}, left())}},
		{layout: layout{"login", KindLogin, answerSame, join(login, left())}},
	},
	0x10: {{layout: layout{"location", KindLocation, answerSame, join(gps, rest)}}},
	0x11: {{layout: layout{"location, wide cell", KindLocation, answerSame, join(gps, wideCell, rest)}}},
	0x12: {
		{model: modelQH302R, layout: layout{"location (QH302R)", KindLocation, answerSame, join(skip8, gps, cell, rest)}},
		{header: headerBasic, min: 0x24, max: 0x24, layout: layout{"location (VXT01)", KindLocation, answerSame, join(gps, cell, statusVXT01, powerV, []field{{read: readUint, name: "signal", size: 1, key: "rssi"}}, skip("alarm extension", 1), rest)}},
		{header: headerBasic, min: 0x71, layout: layout{"location (GT06E with card reader)", KindLocation, answerSame, join(gps, cell, []field{
			{read: readUint, name: "mileage", size: 4, key: "odometer", unit: "m"},
			{read: readCardTrimmed, name: "card, trimmed"},
		}, skip("alarm", 1), skip("swiped", 1), rest)}},
		{header: headerBasic, min: 0x21, max: 0x21, layout: layout{"location (Benway)", KindLocation, answerSame, join(gps, cell, []field{{read: readBenway, name: "Benway inputs"}}, rest)}},
		{header: headerBasic, min: 0x2b, max: 0x2b, layout: layout{"location (S5)", KindLocation, answerSame, join(gps, cell, status, powerV, []field{
			{read: readUint, name: "signal", size: 1, key: "rssi"},
			{read: readAlarm, name: "alarm"},
			{read: readUint, name: "oil", size: 2, key: "oil"},
			{read: readSignedByte, name: "temperature, sign and magnitude"},
			{read: readMileage10, name: "mileage, 10 m"},
		}, rest)}},
		{header: headerBasic, min: 0x29, max: 0x29, layout: layout{"location (WeTrust)", KindLocation, answerSame, join(gps, cell, []field{
			{read: readUint, name: "mileage", size: 4, key: "odometer", unit: "m"},
			{read: readCard, name: "card"},
			{read: readAnyAlarm, name: "alarm, any"},
			{read: readUint, name: "card status", size: 1, key: "cardStatus"},
			{read: readUint, name: "driving time", size: 2, key: "drivingTime"},
		}, rest)}},
		{layout: layout{"location", KindLocation, answerSame, join(gps, cell, rest)}},
	},
	0x13: {
		{min: 0x15, max: 0x15, layout: layout{"heartbeat, long", KindHeartbeat, answerSame, join(
			skip("terminal information", 1), skip("satellites", 2), skip("alarm", 1), skip("language", 1), []field{
				{read: readUint, name: "battery level", size: 1, key: "batteryLevel", unit: "%"},
			}, skip("working mode", 1), skip("working voltage", 2), skip("reserved", 1), skip("working times", 2), skip("working time", 2), []field{
				{read: readTemperaturePositive, name: "temperature, bit 15 positive"},
			}, left())}},
		{header: headerBasic, min: 0x13, max: 0x13, layout: layout{"heartbeat (OBD6)", KindHeartbeat, answerSame, join(status, []field{
			{read: readSatSignal, name: "satellites and signal"},
			{read: readAlarm, name: "alarm"},
			{read: readSkip, name: "language", size: 1},
			{read: readUint, name: "battery level", size: 1, key: "batteryLevel", unit: "%"},
			{read: readOBD6, name: "mode, power, temperature"},
		}, rest)}},
		{model: modelLW, layout: layout{"heartbeat (LW)", KindHeartbeat, answerSame, join(status, levels, []field{{read: readPower12, name: "external voltage, 12 bits"}}, rest)}},
		{model: modelSeeWorld, layout: layout{"heartbeat (SeeWorld)", KindHeartbeat, answerSame, join(status, levels, []field{{read: readUint, name: "external voltage", size: 1, key: "power", unit: "V", scale: 1}}, rest)}},
		{model: modelR11, layout: layout{"heartbeat (R11)", KindHeartbeat, answerSame, join(status, powerV, []field{{read: readUint, name: "signal", size: 1, key: "rssi"}}, alarm, rest)}},
		{layout: layout{"heartbeat", KindHeartbeat, answerSame, join(report, rest)}},
	},
	0x14: {{header: headerBasic, layout: layout{"satellites", KindStatus, answerSame, left()}}},
	0x15: {{layout: layout{"command reply", KindCommandReply, answerSame, []field{{read: readReply, name: "reply, old form"}, {read: readSkip, name: "language"}}}}},
	0x16: {
		{header: headerBasic, min: 0x24, max: 0x24, layout: layout{"alarm (VXT01)", KindAlarm, answerSame, join(gps, cell, statusVXT01, levels, skip("alarm", 1), rest)}},
		{header: headerBasic, min: 0x2d, max: 0x2d, layout: layout{"alarm (TRX16i)", KindAlarm, answerSame, join(gps, cellSized, status, levels, []field{{read: readAlarmTRX16i, name: "alarm", key: "event"}, {read: readSkip, name: "language", size: 1}, {read: readTag, name: "tag, unless zero"}}, rest)}},
		{header: headerBasic, min: 0x26, max: 0x26, layout: layout{"alarm (SeeWorld)", KindAlarm, answerSame, join(gps, sizedCell(2, 4), report, rest)}},
		{layout: layout{"alarm", KindAlarm, answerSame, join(gps, cellSized, report, rest)}},
	},
	typeWiFi: {
		{header: headerBasic, min: 0x28, max: 0x28, layout: layout{"location with tag", KindLocation, answerSame, join(gps, cell, []field{{read: readHex, name: "tag", size: 8, key: "driverUniqueId"}}, skip("validity", 1), rest)}},
		{layout: layout{"access points", KindWiFi, answerWiFi, []field{{read: readTimeBCD, name: "time"}, {read: readCountedWiFi, name: "access points, counted by the length byte"}, {read: readCountedCells, name: "cells, counted"}, {read: readSkip, name: "not decoded"}}}},
	},
	0x18: {{layout: layout{"cells and access points", KindWiFi, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(7, 2, 3), timing, wifi, left())}}},
	0x19: {
		{header: headerBasic, min: 0x17, layout: layout{"cells (Space10X)", KindLBS, answerNone, left()}},
		{layout: layout{"alarm without GPS", KindAlarm, answerSame, join(cell, report, rest)}},
	},
	0x1a: {{layout: layout{"location with phone number", KindLocation, answerSame, join(gps, rest)}}},
	0x1e: {{layout: layout{"location (JI09)", KindLocation, answerSame, join(gps, rest)}}},
	0x21: {{layout: layout{"text", KindString, answerNone, []field{{read: readTextInfo, name: "text"}}}}},
	0x22: {
		{model: modelNT, layout: layout{"location (NT)", KindLocation, answerSame, join(skip("source", 1), skip8, []field{{read: readTime, name: "device time"}}, gps, cellSized, status, powerV, []field{
			{read: readUint, name: "battery", size: 1, key: "battery", unit: "V", scale: 10}, {read: readUint, name: "signal", size: 1, key: "rssi"},
		}, alarm, skip("language", 1), []field{
			{read: readUint, name: "mileage", size: 3, key: "odometer", unit: "m"}, {read: readHours, name: "hours, minutes"},
		}, rest)}},
		{header: headerBasic, min: 0x2f, max: 0x2f, layout: layout{"location (SeeWorld)", KindLocation, answerSame, join(gps, oneCell(2, 4), []field{{read: readBool, name: "ignition", key: "ignition"}}, skip("upload mode", 1), skip("re-upload", 1), []field{
			{read: readUint, name: "mileage", size: 4, key: "odometer", unit: "m"},
			{read: readSkip, name: "travel time", size: 4},
			{read: readTemperature100, name: "temperature, 1/100"},
			{read: readUint, name: "humidity", size: 2, key: "humidity", unit: "%", scale: 100},
		}, rest)}},
		{layout: layout{"location", KindLocation, answerSame, join(gps, cell, []field{{read: readUpload, name: "ignition, event, re-upload", when: when{least: 3}}}, rest)}},
	},
	0x23: {{layout: layout{"heartbeat (GK310)", KindHeartbeat, answerSame, []field{
		{read: readArmed, name: "terminal information"},
		{read: readUint, name: "battery", size: 2, key: "battery", unit: "V", scale: 100, when: when{least: 2}},
		{read: readUint, name: "signal", size: 1, key: "rssi", when: when{least: 1}},
		{read: readSkip, name: "language"},
	}}}},
	0x24: {
		{header: headerBasic, min: 0x2e, max: 0x2e, layout: layout{"location (SR411 mini)", KindLocation, answerNone, join(gps, cell, []field{{read: readBool, name: "ignition", key: "ignition"}}, powerV, []field{{read: readUint, name: "battery", size: 2, key: "battery", unit: "V", scale: 100}}, left())}},
		{header: headerBasic, min: 0x31, max: 0x31, layout: layout{"cells (Wanway S20)", KindLBS, answerSame, join([]field{{read: readTime, name: "time"}}, skip("timing advance", 1), manyCells(0, 2, 3), left())}},
		{layout: layout{"cells", KindLBS, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(7, 2, 3), timing, left())}},
	},
	0x25: {
		{model: modelNT, layout: layout{"location with driver (XT40)", KindLocation, answerSame, join(skip("source", 1), skip8, []field{{read: readTime, name: "device time"}}, gps, sizedCell(2, 4), status, powerV, []field{
			{read: readUint, name: "battery", size: 1, key: "battery", unit: "V", scale: 10}, {read: readUint, name: "signal", size: 1, key: "rssi"},
		}, alarm, skip("language", 1), []field{
			{read: readUint, name: "mileage", size: 3, key: "odometer", unit: "m"}, {read: readHours, name: "hours, minutes"}, {read: readDriver, name: "driver"},
		}, rest)}},
		{layout: layout{"location with driver", KindLocation, answerSame, join(gps, oneCell(2, 4), rest)}},
	},
	0x26: {{layout: layout{"alarm", KindAlarm, answerSame, join(gps, cellSized, report, rest)}}},
	0x27: {{layout: layout{"alarm with fence", KindAlarm, answerSame, join(gps, cellSized, status, levels, wideAlarm, restKnown, fence, left())}}},
	0x28: {{layout: layout{"cells", KindLBS, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(7, 2, 3), timing, left())}}},
	0x2a: {{layout: layout{"address request", KindAddressRequest, answerAddress, left()}}},
	0x2c: {{layout: layout{"cells and access points", KindWiFi, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(7, 2, 3), timing, wifi, left())}}},
	0x2d: {{layout: layout{"location", KindLocation, answerSame, join(gps, cell, []field{{read: readUpload, name: "ignition, event, re-upload", when: when{least: 3}}}, rest)}}},
	0x2e: {{layout: layout{"cells", KindLBS, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(7, 2, 3), timing, left())}}},
	0x31: {
		{header: headerBasic, min: 0x2a, max: 0x2a, layout: layout{"location (SL4X)", KindLocation, answerSame, join(gps, sl4xCell, upload, []field{{read: readSL4XTail, name: "mileage and altitude", when: when{least: 2}}}, rest)}},
		{layout: layout{"location", KindLocation, answerSame, join(gps, cell, upload, rest)}},
	},
	0x32: {
		{header: headerExtended, layout: layout{"location (AZ735)", KindLocation, answerExtended, join(azLocation, []field{{read: readAZStatus, name: "status"}, {read: readSized, name: "extension"}}, left())}},
		{min: 0x27, max: 0x27, layout: layout{"alarm (SL4X)", KindAlarm, answerSame, join(gps, sl4xSized, report, altitude, rest)}},
		{min: 0x29, max: 0x29, layout: layout{"alarm (SL4X)", KindAlarm, answerSame, join(gps, sl4xSized, report, altitude, rest)}},
		{layout: layout{"alarm", KindAlarm, answerSame, join(gps, cellSized, report, rest)}},
	},
	0x33: {
		{header: headerExtended, layout: layout{"alarm (AZ735)", KindAlarm, answerExtended, join(azLocation, []field{{read: readAZStatus, name: "status", key: "alarm"}, {read: readSized, name: "extension"}}, left())}},
		{layout: layout{"cells and access points", KindWiFi, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(6, 2, 4), timing, wifi, left())}},
	},
	0x34: {
		{header: headerBasic, min: 0x37, max: 0x37, layout: layout{"cells (SL4X)", KindLBS, answerSame, join([]field{{read: readTime, name: "time"}}, timing, []field{{read: readCells, name: "cells", size: 7, lac: 2, cid: 4, wideMNC: true}}, left())}},
		{layout: layout{"location (X1)", KindLocation, answerNone, join(skip("data and alarm", 4), gps, skip("terminal information", 2), []field{
			{read: readUint, name: "mileage", size: 4, key: "odometer", unit: "m"},
			{read: readPlainCell, name: "cell"},
			{read: readDriverNumber, name: "driver", size: 4, key: "driverUniqueId"},
			{read: readUint, name: "battery", size: 2, key: "battery", unit: "V", scale: 100},
		}, powerV, []field{{read: readPorts, name: "ports"}}, left())}},
	},
	0x35: {{layout: layout{"photo announced (X1)", KindPhoto, answerPhoto, join([]field{{read: readTime, name: "time"}}, skip("fix status", 1), skip("latitude", 4), skip("longitude", 4), skip("camera", 1), skip("source", 1), skip("format", 1), []field{
		{read: readPhotoTotal, name: "photo size", unit: "bytes"},
		{read: readPhotoID, name: "photo id"},
	}, left())}}},
	0x36: {
		{header: headerBasic, min: 0x35, max: 0x35, layout: layout{"location with tag (TRX16i)", KindLocation, answerSame, join(gps, oneCell(2, 4), []field{
			{read: readBool, name: "ignition", key: "ignition"},
			{read: readUint, name: "upload mode", size: 1, key: "uploadMode"},
			{read: readBool, name: "re-upload", key: "archive"},
			{read: readUint, name: "mileage", size: 4, key: "odometer", unit: "m"},
		}, powerV, []field{
			{read: readUint, name: "battery", size: 1, key: "battery", unit: "V", scale: 10},
			{read: readHours, name: "hours, minutes"},
			{read: readTag, name: "tag, unless zero"},
		}, left())}},
		{header: headerBasic, layout: layout{"heartbeat with modules", KindHeartbeat, answerSame, join(report, skip("language", 1), []field{{read: readModules, name: "modules"}})}},
		{header: headerExtended, layout: layout{"photo data (X1)", KindPhoto, answerPhotoNext, join([]field{{read: readPhotoID, name: "photo id"}, {read: readPhotoPart, name: "offset, size, bytes"}}, left())}},
	},
	0x37: {{layout: layout{"location with module", KindLocation, answerSame, join(gps, cell, []field{{read: readUpload, name: "ignition, event, re-upload", when: when{least: 3}}, {read: readModule, name: "module"}}, rest)}}},
	0x38: {{layout: layout{"location with typed cell", KindLocation, answerNone, join(gps, skip("upload mode", 1), skip("re-upload", 1), []field{{read: readTypedCell, name: "cell"}}, left())}}},
	0x39: {{layout: layout{"alarm with modules", KindAlarm, answerSame, join(gps, []field{{read: readTypedCell, name: "cell"}}, status, levels, wideAlarm, []field{{read: readModules, name: "modules"}})}}},
	0x40: {{layout: layout{"battery management", KindInfo, answerSame, join(skip("serial number", 8), []field{
		{read: readUnix, name: "time"},
		{read: readUint, name: "relative capacity", size: 1, key: "relativeCapacity", unit: "%"},
		{read: readUint, name: "remaining capacity", size: 2, key: "remainingCapacity"},
		{read: readUint, name: "absolute capacity", size: 1, key: "absoluteCapacity", unit: "%"},
		{read: readUint, name: "full capacity", size: 2, key: "fullCapacity"},
		{read: readUint, name: "battery health", size: 1, key: "batteryHealth", unit: "%"},
		{read: readBatteryTemperature, name: "battery temperature", key: "batteryTemp", unit: "°C"},
		{read: readUint, name: "current", size: 2, key: "current"},
		{read: readUint, name: "battery", size: 2, key: "battery", unit: "V", scale: 1000},
		{read: readUint, name: "cycles", size: 2, key: "cycleIndex"},
		{read: readCellVoltages, name: "cell voltages"},
		{read: readUint, name: "current charge interval", size: 2, key: "currentChargeInterval"},
		{read: readUint, name: "longest charge interval", size: 2, key: "maxChargeInterval"},
		{read: readText, name: "barcode", size: 16, key: "barcode"},
		{read: readUint, name: "battery version", size: 2, key: "batteryVersion"},
		{read: readText, name: "manufacturer", size: 16, key: "manufacturer"},
		{read: readUint, name: "battery status", size: 4, key: "batteryStatus"},
		{read: readUint, name: "controller status", size: 4, key: "controllerStatus"},
		{read: readUint, name: "controller fault", size: 4, key: "controllerFault"},
	}, left())}}},
	0x41: {{layout: layout{"multimedia", KindPhoto, answerExtended, join(skip("serial number", 8), skip("time", 4), skip("gps", 14), skip("cell", 8), []field{
		{read: readPhotoID, name: "photo id"},
		{read: readPhotoTotal, name: "photo size", unit: "bytes"},
		{read: readMedia, name: "media type, format, event, number, bytes"},
	}, left())}}},
	0x61:     {{layout: layout{"location with iButton", KindLocation, answerSame, join(skip8, gps, oneCell(2, 4), []field{{read: readNumberText, name: "iButton", size: 6, key: "driverUniqueId"}}, left())}}},
	0x65:     {{header: headerBasic, layout: layout{"trouble codes", KindOBD, answerSame, left()}}, {layout: layout{"trouble codes", KindOBD, answerNone, left()}}},
	0x66:     {{header: headerBasic, layout: layout{"engine parameters", KindOBD, answerSame, left()}}, {layout: layout{"engine parameters", KindOBD, answerNone, left()}}},
	0x70:     {{layout: layout{"modules", KindInfo, answerSame, []field{{read: readModular, name: "items"}}}}},
	0x80:     {{layout: layout{"command", KindUnknown, answerNone, left()}}},
	0x81:     {{layout: layout{"command", KindUnknown, answerNone, left()}}},
	0x82:     {{layout: layout{"command", KindUnknown, answerNone, left()}}},
	typeTime: {{layout: layout{"time request", KindTimeRequest, answerTime, left()}}},
	0x8c:     {{layout: layout{"engine values", KindOBD, answerNone, []field{{read: readTime, name: "time"}, {read: readBool, name: "ignition", key: "ignition"}, {read: readOBD, name: "items"}}}}},
	0x94: {
		{header: headerBasic, layout: layout{"voltage", KindInfo, answerNone, join([]field{{read: readInt, name: "external voltage", size: 2, key: "power", unit: "V", scale: 100}}, left())}},
		{layout: layout{"information", KindInfo, answerNone, []field{{read: readInformation, name: "information"}}}},
	},
	0x95: {{layout: layout{"alarm of a camera", KindAlarm, answerSame, []field{{read: readCameraAlarm, name: "alarm"}}}}},
	0x9b: {{layout: layout{"serial port", KindInfo, answerNone, []field{{read: readSkip, name: "device type", size: 1}, {read: readSerialPort, name: "printable or hex"}}}}},
	0xa0: {{layout: layout{"location, 4G", KindLocation, answerSame, join(gps, oneCell(4, 8), rest)}}},
	0xa1: {{layout: layout{"cells, 4G", KindLBS, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(7, 4, 8), timing, left())}}},
	0xa2: {
		{header: headerBasic, min: 0x40, max: 0x40, layout: layout{"location with status (LW4G)", KindLocation, answerSame, join(gps, oneCell(4, 8), skip("network indicator", 1), status, powerV, levels, alarm, skip("language", 1), []field{
			{read: readUint, name: "mileage", size: 4, key: "odometer", unit: "m"},
			{read: readHoursSeconds, name: "hours, seconds"},
			{read: readSkip, name: "terminal id", size: 8},
			{read: readUint, name: "inputs", size: 2, key: "input"},
		}, rest)}},
		{layout: layout{"cells and access points, 4G", KindWiFi, answerSame, join([]field{{read: readTime, name: "time"}}, manyCells(7, 4, 8), timing, wifi, left())}},
	},
	0xa3: {
		{header: headerBasic, min: 0x0c, max: 0x0c, layout: layout{"status (SeeWorld)", KindStatus, answerSame, join(report, rest)}},
		{header: headerBasic, min: 0x18, max: 0x18, layout: layout{"status (SeeWorld, long)", KindStatus, answerSame, join(status, skip("extension", 2), skip("voltage level", 1), []field{
			{read: readUint, name: "signal", size: 1, key: "rssi"},
			{read: readUint, name: "external voltage", size: 1, key: "power", unit: "V", scale: 1},
		}, skip("language", 1), skip("sound switch", 1), skip("light switch", 1), []field{
			{read: readUint, name: "steps", size: 4, key: "steps"},
			{read: readUint, name: "battery level", size: 1, key: "batteryLevel", unit: "%"},
			{read: readChargeMotion, name: "charging and motion"},
		}, rest)}},
		{layout: layout{"location, single fence", KindLocation, answerSame, join(gps, cell, rest)}},
	},
	0xa4: {{layout: layout{"alarm with fence, 4G", KindAlarm, answerSame, join(gps, cellSized, status, levels, wideAlarm, restKnown, fence, left())}}},
	0xa5: {{layout: layout{"alarm without GPS, 4G", KindAlarm, answerSame, join(oneCell(4, 8), report, rest)}}},
	0xa7: {{layout: layout{"address request, 4G", KindAddressRequest, answerSame, join(cell, rest)}}},
	0xa9: {{layout: layout{"alarm with cells and access points", KindAlarm, answerSame, join([]field{{read: readTime, name: "time"}, {read: readAlarmCells, name: "cells"}}, timing, wifi, wideAlarm, left())}}},
	0xb0: {{header: headerBasic, layout: layout{"attendance", KindInfo, answerSame, left()}}, {layout: layout{"attendance", KindInfo, answerNone, left()}}},
	0xb2: {{layout: layout{"Bluetooth clock", KindInfo, answerSame, []field{
		{read: readTime, name: "time"},
		{read: readInt, name: "signal", size: 1, key: "rssi"},
		{read: readHex, name: "tag address", size: 6, key: "tagMac"},
		{read: readHex, name: "tag uuid", size: 16, key: "tagUuid"},
		{read: readUint, name: "tag major", size: 2, key: "tagMajor"},
		{read: readUint, name: "tag minor", size: 2, key: "tagMinor"},
		{read: readUint, name: "tag battery", size: 2, key: "tagBattery", unit: "V", scale: 100},
		{read: readClock, name: "clocked"},
		{read: readSkip, name: "not decoded"},
	}}}},
	0xf1:      {{layout: layout{"device status", KindStatus, answerSame, []field{{read: readUnix, name: "time"}, {read: readDeviceStatus, name: "items"}}}}},
	0xf2:      {{layout: layout{"peripherals", KindInfo, answerSame, []field{{read: readUnix, name: "time"}, {read: readPeripherals, name: "items"}}}}},
	0xf3:      {{layout: layout{"access points", KindWiFi, answerNone, []field{{read: readTimeBCD, name: "time"}, {read: readBareWiFi, name: "access points"}, {read: readSkip, name: "not decoded"}}}}},
	typeWiFi2: {{layout: layout{"access points", KindWiFi, answerWiFi, []field{{read: readTimeBCD, name: "time"}, {read: readCountedWiFi, name: "access points, counted by the length byte"}, {read: readCountedCells, name: "cells, counted"}, {read: readSkip, name: "not decoded"}}}}},
}
