package protocol_test

import (
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
)

// Corners of the dialects that no captured frame reaches. The expected values
// were read in the decoder of Traccar 6.14, case by case; what differs on
// purpose is in DESIGN.md.
func TestCornersOfDialects(t *testing.T) {
	t.Parallel()
	const (
		place   = "180b19101112" + "c5" + "027ac8180c465860" + "32" + "1400" // 2024-11-25, 5 satellites, north east, 50 km/h, positioned
		cell    = "01cc00287d001f71"
		zeros   = "0000000000000000000000000000000000000000000000000000000000000000000000"
		report  = "7e06040f" // status with removal, full, signal 4, alarm 0x0f
		date    = "180b19101112"
		nothing = "<absent>"
	)
	type want map[string]any
	for name, c := range map[string]struct {
		extended bool
		typ      byte
		content  string
		model    string
		want     want
	}{
		"removal is overspeed on a VXT01 only": {false, 0x16, place + cell + "3e06040000", "", want{"alarms": []any{"overspeed"}}},
		"a 0x26 of the VXT01's length":         {false, 0x26, place + "08" + cell + report, "", want{"alarms": []any{"removing", "lowBattery"}}},
		"DEL is printable":                     {true, 0x9b, "03417f42", "", want{"attributes.result": "A\x7fB"}},
		"a high byte is not":                   {true, 0x9b, "034180", "", want{"attributes.result": "4180"}},
		"an empty reply":                       {false, 0x15, "0400000001" + "0001", "", want{"attributes.result": nothing}},
		"an empty text":                        {true, 0x21, "0000000101", "", want{"attributes.result": nothing}},
		"a long heartbeat with two length bytes": {true, 0x13, "00" + "0000" + "00" + "00" + "55" + "01" + "0000" + "00" + "0000" + "0000" + "80fa", "", want{
			"attributes.batteryLevel": 85.0, "attributes.temp1": 25.0, "attributes.status": nothing,
		}},
		"a 4G cell of the AZ family has a negative signal": {true, 0x70, "0011000a" + "01cc0001287d001f713e", "", want{"cells": []any{map[string]any{"mcc": 460.0, "mnc": 1.0, "lac": 10365.0, "cid": 8049.0, "rssi": -62.0}}}},
		"a high cell id of four bytes": {false, 0x33, date + "01cc00" + "287dfffffffb3e" + zeros + "00" + "00", "", want{
			"cells": []any{map[string]any{"mcc": 460.0, "mnc": 0.0, "lac": 10365.0, "cid": -5.0, "rssi": -62.0}},
		}},
		"an alarm of two bytes at the end":         {false, 0x27, place + "00" + "46040407", "", want{"alarms": []any{"jamming"}}}, // the serial begins with 1
		"a long name of a model":                   {false, 0x13, "460604" + "107b" + "0001", "LW4G-4B-WITH-A-LONG-NAME", want{"attributes.power": 12.3}},
		"a login that says nothing of a time zone": {false, 0x01, "0123456789012345", "", want{"utc_offset": nothing, "imei": "123456789012345"}},
		"access points counted in a long frame":    {true, 0x69, "241125101112" + "00" + "01cc00", "", want{"wifi": nothing, "reply": []any{"787800692411251011120d0a"}}},
		"a position as text": {true, 0x21, "0000000101" + hexOf("Current position!Lat:S54.5,Lon:W25.25,Course:1.5,Speed:10.0,DateTime:2017-05-26  10:27:47"), "", want{
			"latitude": -54.5, "longitude": -25.25, "course": 1.5, "speed_kmh": 18.52, "fix_time": "2017-05-26T10:27:47Z",
		}},
		"a position without decimals is a text": {true, 0x21, "0000000101" + hexOf("Current position!Lat:N54,Lon:E25,Course:1,Speed:2,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position that is no number":          {true, 0x21, "0000000101" + hexOf("Current position!Lat:Nnan,Lon:Einf,Course:1.0,Speed:2.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position without a hemisphere":       {true, 0x21, "0000000101" + hexOf("Current position!Lat:54.0,Lon:E25.0,Course:1.0,Speed:2.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position without a place":            {true, 0x21, "0000000101" + hexOf("Current position!Lat:,Lon:E25.0,Course:1.0,Speed:2.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position without a speed":            {true, 0x21, "0000000101" + hexOf("Current position!Lat:N54.0,Lon:E25.0,Course:1.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position with more behind it":        {true, 0x21, "0000000101" + hexOf("Current position!Lat:N54.0,Lon:E25.0,Course:1.0,Speed:2.0,DateTime:2017-05-26 10:27:47Z"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position without a clock":            {true, 0x21, "0000000101" + hexOf("Current position!Lat:N54.0,Lon:E25.0,Course:1.0,Speed:2.0,DateTime:2017-05-26"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position with too many digits":       {true, 0x21, "0000000101" + hexOf("Current position!Lat:N54.0,Lon:E25.0,Course:1.0,Speed:1234567890123456789.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "type": "command_reply"}},
		"a position on no day":                  {true, 0x21, "0000000101" + hexOf("Current position!Lat:N54.0,Lon:E25.0,Course:1.0,Speed:2.0,DateTime:2017-13-26 10:27:47"), "", want{"latitude": 54.0, "fix_time": nothing}},
		"the poles, and the date line":          {true, 0x21, "0000000101" + hexOf("Current position!Lat:S90.0,Lon:W180.0,Course:1.5,Speed:10.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": -90.0, "longitude": -180.0}},
		"the other ones":                        {true, 0x21, "0000000101" + hexOf("Current position!Lat:N90.0,Lon:E180.0,Course:1.5,Speed:10.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": 90.0, "longitude": 180.0}},
		"north of north":                        {true, 0x21, "0000000101" + hexOf("Current position!Lat:N90.1,Lon:E180.0,Course:1.5,Speed:10.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "error": "impossible coordinates"}},
		"south of south":                        {true, 0x21, "0000000101" + hexOf("Current position!Lat:S90.1,Lon:E180.0,Course:1.5,Speed:10.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "error": "impossible coordinates"}},
		"west of west":                          {true, 0x21, "0000000101" + hexOf("Current position!Lat:N90.0,Lon:W180.1,Course:1.5,Speed:10.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "error": "impossible coordinates"}},
		"east of east":                          {true, 0x21, "0000000101" + hexOf("Current position!Lat:N90.0,Lon:E180.1,Course:1.5,Speed:10.0,DateTime:2017-05-26 10:27:47"), "", want{"latitude": nothing, "error": "impossible coordinates"}},
		"battery level 0":                       {false, 0x13, "0000040001", "", want{"attributes.batteryLevel": 0.0}},
		"battery level 6":                       {false, 0x13, "0006040001", "", want{"attributes.batteryLevel": 100.0}},
		"battery level 7":                       {false, 0x13, "0007040001", "", want{"attributes.batteryLevel": 7.0}},
		"battery level 100":                     {false, 0x13, "0064040001", "", want{"attributes.batteryLevel": 100.0}},
		"battery level 101":                     {false, 0x13, "0065040001", "", want{"attributes.batteryLevel": nothing}},
		"battery level 255":                     {false, 0x13, "00ff040001", "", want{"attributes.batteryLevel": nothing}},
		"a fuel line":                           {true, 0x94, "0d" + hexOf("!AIOIL,02,025.900,025.400,519J,0200,027.140,0,0,F9"), "", want{"attributes.temp1": 25.4, "attributes.fuel": 27.14}},
		"a fuel line that is no number":         {true, 0x94, "0d" + hexOf("!AIOIL,02,025.900,nan,519J,0200,0x1p-2,0,0,F9"), "", want{"attributes.temp1": nothing, "attributes.fuel": nothing}},
		"an item of signs only":                 {true, 0x94, "04" + hexOf("ALM1=C4;=="), "", want{"attributes.alarm1Status": 196.0, "error": "information: an item without a name"}},
		"no cell, and its place":                {false, 0x26, place + "00" + "00000000000000000000" + zeros[:68], "", want{"cells": nothing}},
	} {
		content, err := hex.DecodeString(c.content)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		const serial = 0x1001
		frame := protocol.AppendFrame(nil, c.typ, content, serial)
		if c.extended {
			frame = protocol.AppendExtended(nil, c.typ, content, serial)
		}
		var m protocol.Message
		s := protocol.Session{Model: c.model}
		new(protocol.Decoder).Decode(&m, frame, s)
		var got map[string]any
		text := protocol.AppendJSON(nil, &m, s, protocol.AppendAnswer(nil, &m, frame, time.Time{}))
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
		for path, w := range c.want {
			object, key := got, path
			if in, k, found := strings.Cut(path, "."); found {
				object, key = got[in].(map[string]any), k
			}
			g, there := object[key]
			if w == nothing && there || w != nothing && !reflect.DeepEqual(g, w) {
				t.Errorf("%s: %s is %v, want %v\n%x\n%s", name, path, g, w, frame, text)
			}
		}
	}
}

func hexOf(s string) string { return hex.EncodeToString([]byte(s)) }

// The status of an AZ735 is an attribute; in its alarms it has a meaning.
func TestStatusOfAnAZ735(t *testing.T) {
	t.Parallel()
	for status, want := range map[byte]string{
		0xa0: `"status":160,"armed":true`, 0xa1: `"status":161,"armed":false`, 0xa2: `"lowBattery"`, 0xa3: `"lowBattery"`, 0xa4: `"general"`, 0xa5: `"door"`, 0xa6: `"status":166`,
	} {
		content := unhex(t, "11070609020b00000000a0034600")
		content[10] = status
		for typ, has := range map[byte]bool{0x33: true, 0x32: false} {
			frame := protocol.AppendExtended(nil, typ, content, 1)
			var m protocol.Message
			new(protocol.Decoder).Decode(&m, frame, protocol.Session{})
			got := string(protocol.AppendJSON(nil, &m, protocol.Session{}, nil))
			if strings.Contains(got, want) != has && status != 0xa6 || !strings.Contains(got, `"status":`) {
				t.Errorf("status %#x in type %#x: %s", status, typ, got)
			}
		}
	}
}
