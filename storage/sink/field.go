package sink

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// Class is what a value of an event can be written as.
type Class string

// The classes.
const (
	ClassText   Class = "text"
	ClassDigits Class = "digits" // text that is a number, too
	ClassNumber Class = "number"
	ClassBool   Class = "bool"
	ClassTime   Class = "time" // RFC 3339, UTC
	ClassObject Class = "object"
)

// Field is a value of an event.
type Field struct {
	Name     string
	Class    Class
	Optional bool    // an event can be without it
	Low      float64 // of a number: what can be expected of it
	High     float64 // the same; 0: anything. Of text: its longest length, 0: no limit
}

// bounds are what columns must be able to hold. A receiver that checks them
// refuses a table before the first row is refused by it.
//
//nolint:gochecknoglobals // read-only table
var bounds = map[string]struct{ low, high float64 }{
	"latitude": {-90, 90}, "longitude": {-180, 180}, "speed_kmh": {0, 255}, "course": {0, 360}, "altitude": {-500, 9000}, "satellites": {0, 40},
	"protocol": {0, 255}, "serial": {0, 65535}, "mcc": {0, 999}, "mnc": {0, 999}, "lac": {0, 65535}, "cid": {0, 1<<28 - 1}, "code": {0, 65535},
	"battery_level": {0, 100}, "rssi": {0, 31}, "flag": {0, 1<<32 - 1},
	"imei": {0, 15}, "type": {0, 13}, "time_source": {0, 6}, "kind": {0, 13}, "alarm": {0, 32}, "fix_hash": {0, 20},
}

// Fields returns what an event of a type has, besides what is in its attributes.
func Fields(t Type) []Field {
	body := map[Type]any{
		TypePosition: position{}, TypeAlarm: alarmBody{}, TypeHeartbeat: heartbeatBody{}, TypeDeviceEvent: deviceEventBody{},
		TypeCommand: commandBody{}, TypeCommandReply: replyBody{}, TypeQuarantined: quarantinedBody{},
	}[t]
	var list []Field
	for _, part := range []any{head{}, body} {
		for f := range reflect.TypeOf(part).Fields() {
			name, omit, _ := strings.Cut(f.Tag.Get("json"), ",")
			b := bounds[name]
			list = append(list, Field{
				Name: name, Class: class(name, f.Type), Low: b.low, High: b.high,
				Optional: f.Type.Kind() == reflect.Pointer || omit != "" && t == TypeQuarantined, // all others have a device
			})
		}
	}
	return list
}

func class(name string, t reflect.Type) Class {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case name == "imei" || name == "fix_hash":
		return ClassDigits
	case strings.HasSuffix(name, "_time") || strings.HasSuffix(name, "_at"):
		return ClassTime
	case t == reflect.TypeFor[json.RawMessage]():
		return ClassObject
	case t.Kind() == reflect.String:
		return ClassText
	case t.Kind() == reflect.Bool:
		return ClassBool
	}
	return ClassNumber
}

// FieldNames returns the names of the fields of several types, each once.
func FieldNames(types []Type) (names []string) {
	for _, t := range types {
		for _, f := range Fields(t) {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	return names
}
