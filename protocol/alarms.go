package protocol

// The alarm names this package knows; they are Traccar's.
const (
	AlarmSOS           Alarm = "sos"
	AlarmPowerCut      Alarm = "powerCut"
	AlarmVibration     Alarm = "vibration"
	AlarmGeofence      Alarm = "geofence"
	AlarmGeofenceEnter Alarm = "geofenceEnter"
	AlarmGeofenceExit  Alarm = "geofenceExit"
	AlarmOverspeed     Alarm = "overspeed"
	AlarmTow           Alarm = "tow"
	AlarmLowBattery    Alarm = "lowBattery"
	AlarmLowPower      Alarm = "lowPower"
	AlarmPowerOn       Alarm = "powerOn"
	AlarmPowerOff      Alarm = "powerOff"
	AlarmTampering     Alarm = "tampering"
	AlarmDoor          Alarm = "door"
	AlarmRemoving      Alarm = "removing"
	AlarmAccident      Alarm = "accident"
	AlarmAcceleration  Alarm = "hardAcceleration"
	AlarmBraking       Alarm = "hardBraking"
	AlarmCornering     Alarm = "hardCornering"
	AlarmFallDown      Alarm = "fallDown"
	AlarmJamming       Alarm = "jamming"
	AlarmLock          Alarm = "lock"
	AlarmUnlock        Alarm = "unlock"
	AlarmFuelLeak      Alarm = "fuelLeak"
	AlarmTemperature   Alarm = "temperature"
	AlarmIdle          Alarm = "idle"
	AlarmGeneral       Alarm = "general"
)

// statusAlarms are bits 5 to 3 of the terminal information (PROTOCOL.md
// section 7).
//
//nolint:gochecknoglobals // read-only table
var statusAlarms = [8]Alarm{1: AlarmVibration, 2: AlarmPowerCut, 3: AlarmLowBattery, 4: AlarmSOS, 6: AlarmGeofence, 7: AlarmRemoving}

// alarmCodes are what the alarm byte means on most models (PROTOCOL.md
// sections 7 and 14, item 11). Codes with high bits are in wideAlarms, codes a
// model gives another meaning in alarmOf.
//
//nolint:gochecknoglobals // read-only table
var alarmCodes = [256]Alarm{
	0x01: AlarmSOS, 0x02: AlarmPowerCut, 0x03: AlarmVibration, 0x04: AlarmGeofenceEnter, 0x05: AlarmGeofenceExit,
	0x06: AlarmOverspeed, 0x09: AlarmVibration, 0x0c: AlarmTampering, 0x0e: AlarmLowBattery, 0x0f: AlarmLowBattery,
	0x11: AlarmPowerOff, 0x13: AlarmTampering, 0x14: AlarmDoor, 0x18: AlarmRemoving, 0x19: AlarmLowBattery,
	0x1a: AlarmBraking, 0x1b: AlarmCornering, 0x23: AlarmFallDown, 0x25: AlarmTampering, 0x26: AlarmAcceleration,
	0x27: AlarmBraking, 0x28: AlarmBraking, 0x29: AlarmAcceleration, 0x2a: AlarmCornering, 0x2b: AlarmCornering,
	0x2c: AlarmAccident, 0x2e: AlarmCornering, 0x30: AlarmJamming, 0x32: AlarmTampering, 0x33: AlarmLock,
	0x34: AlarmUnlock, 0x53: AlarmFuelLeak, 0x5b: AlarmTemperature, 0x5c: AlarmTemperature, 0xc9: AlarmIdle,
	0xf0: AlarmAcceleration, 0xf1: AlarmBraking, 0xf2: AlarmAccident,
}

// modelAlarms are the codes that mean something else on some models.
//
//nolint:gochecknoglobals // read-only table
var modelAlarms = []struct {
	model modelGroup
	code  uint16
	alarm Alarm
}{
	{modelVL, 0x09, AlarmTow},
	{modelVL, 0x28, AlarmPowerOff},
	{modelVL, 0x30, AlarmBraking},
	{modelLW, 0x18, AlarmAccident},
	{modelLW, 0x19, AlarmAcceleration},
	{modelSeeWorld, 0x28, AlarmCornering},
	{modelSeeWorld, 0x29, AlarmAccident},
	{modelTRX16i, 0x09, AlarmGeofence},
	{modelTRX16i, 0x0e, AlarmLowPower},
}

// alarmOf returns the name of an alarm code, "" for none.
func alarmOf(code uint16, model modelGroup) Alarm {
	if code > 0xff {
		if code == 0x107 || code == 0x10b {
			return AlarmJamming
		}
		return ""
	}
	if model != anyModel {
		for i := range modelAlarms {
			if a := &modelAlarms[i]; a.model == model && a.code == code {
				return a.alarm
			}
		}
	}
	return alarmCodes[code]
}
