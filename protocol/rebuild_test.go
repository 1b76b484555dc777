package protocol_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/vectortest"
)

// form is a frame that a device can build again from what was decoded of it.
// free are the bits of its content that decoding does not keep, each with the
// reason: all others must come back as they were.
type form struct {
	typ   byte
	size  int // of the content
	cell  int // where it is; 0: there is none
	free  map[int]byte
	build func(m *protocol.Message) []byte
}

// gpsFree: the length of the GPS block beside the satellites, differential
// positioning, and an ignition without the bit that says there is one.
func gpsFree(more map[int]byte) map[int]byte {
	free := map[int]byte{6: 0xf0, 16: 0x20 | 0x80}
	maps.Copy(free, more)
	return free
}

var forms = []form{
	// The pad before the IMEI, the model's code, the language; a zone has several spellings.
	{typ: 0x01, size: 12, free: map[int]byte{0: 0xf0, 8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff}, build: func(m *protocol.Message) []byte {
		minutes, west := m.UTCOffset/60, uint16(0)
		if minutes < 0 {
			minutes, west = -minutes, 8
		}
		return binary.BigEndian.AppendUint16(append(m.IMEI.AppendBCD(nil), 0, 0), uint16(minutes/60*100+minutes%60)<<4|west)
	}},
	{typ: 0x12, size: 26, cell: 18, free: gpsFree(nil), build: func(m *protocol.Message) []byte {
		return appendCell(appendGPS(nil, m), m, 2, 3)
	}},
	// Ignition and re-upload: any number but zero is yes. The ignition of the course is outranked.
	{typ: 0x22, size: 29, cell: 18, free: gpsFree(map[int]byte{16: 0xe0, 26: 0xff, 28: 0xff}), build: func(m *protocol.Message) []byte {
		return append(appendCell(appendGPS(nil, m), m, 2, 3), number(m, "ignition"), number(m, "event"), number(m, "archive"))
	}},
	{typ: 0xa0, size: 36, cell: 18, free: gpsFree(map[int]byte{16: 0xe0, 33: 0xff, 34: 0xff, 35: 0xff}), build: func(m *protocol.Message) []byte {
		return append(appendCell(appendGPS(nil, m), m, 4, 8), number(m, "ignition"), 0, number(m, "archive"))
	}},
	// A level is a percentage by now; the language.
	{typ: 0x13, size: 5, free: map[int]byte{1: 0xff, 4: 0xff}, build: func(m *protocol.Message) []byte {
		return []byte{number(m, "status"), number(m, "batteryLevel"), number(m, "rssi"), byte(m.AlarmCode), 0}
	}},
	{typ: 0x26, size: 32, cell: 19, free: gpsFree(map[int]byte{16: 0xe0, 18: 0xff, 28: 0xff, 31: 0xff}), build: func(m *protocol.Message) []byte {
		c := appendCell(append(appendGPS(nil, m), 9), m, 2, 3)
		return append(c, number(m, "status"), number(m, "batteryLevel"), number(m, "rssi"), byte(m.AlarmCode), 0)
	}},
}

// rebuild returns the frame of a message and the bits in it that are free, or
// nil where no form fits.
func rebuild(m *protocol.Message, frame []byte) (again, free []byte) {
	if m.Error != "" || !m.CRCOK || m.Extended || frame[1] != 0x78 || len(frame) != int(frame[2])+5 || !bytes.HasSuffix(frame, []byte("\r\n")) {
		return nil, nil
	}
	for _, f := range forms {
		const around = 10 // header, length, type, serial, checksum, tail
		if f.typ != m.Type || f.size != len(frame)-around {
			continue
		}
		if c := 4 + f.cell; f.cell > 0 && (len(m.Cells) != 1 || frame[c]&0x80 != 0 || f.cell == 19 && frame[c-1] > 9) {
			continue // a wide network code or a longer cell: another form
		}
		if m.UTCOffset > 40*3600 || m.UTCOffset < -40*3600 {
			continue // in no canonical spelling
		}
		again = protocol.AppendFrame(nil, f.typ, f.build(m), m.Serial)
		free = make([]byte, len(again))
		for at, bits := range f.free {
			free[4+at] = bits
		}
		free[len(free)-4], free[len(free)-3] = 0xff, 0xff // the checksum covers the free bits
		return again, free
	}
	return nil, nil
}

func appendGPS(b []byte, m *protocol.Message) []byte {
	t := time.Unix(m.DeviceTime, 0).UTC()
	b = append(b, byte(t.Year()-2000), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), number(m, "sat"))
	const units = 60 * 30000
	b = binary.BigEndian.AppendUint32(b, uint32(math.Round(math.Abs(m.Latitude)*units)))
	b = binary.BigEndian.AppendUint32(b, uint32(math.Round(math.Abs(m.Longitude)*units)))
	w := uint16(m.Course)
	ignition := len(m.Attributes) > 1 && m.Attributes[1].Key == "ignition"
	for bit, set := range map[int]bool{10: !math.Signbit(m.Latitude), 11: math.Signbit(m.Longitude), 12: m.Valid, 14: ignition, 15: ignition && number(m, "ignition") != 0} {
		if set {
			w |= 1 << bit
		}
	}
	return binary.BigEndian.AppendUint16(append(b, byte(m.SpeedKMH)), w)
}

func appendCell(b []byte, m *protocol.Message, lac, cid int) []byte {
	c := m.Cells[0]
	b = append(binary.BigEndian.AppendUint16(b, c.MCC), byte(c.MNC))
	b = append(b, binary.BigEndian.AppendUint64(nil, uint64(c.LAC))[8-lac:]...)
	return append(b, binary.BigEndian.AppendUint64(nil, c.CID)[8-cid:]...)
}

// number returns an attribute; a battery level that is none is left out.
func number(m *protocol.Message, key string) byte {
	for _, a := range m.Attributes {
		if a.Key == key {
			return byte(a.Int)
		}
	}
	if key == "batteryLevel" {
		return 0xff
	}
	return 0
}

// mask clears the free bits.
func mask(b, free []byte) []byte {
	c := bytes.Clone(b)
	for i := range c {
		c[i] &^= free[i]
	}
	return c
}

// sameFrame asks that what was decoded of a frame is all of it: the frame built
// again from the message equals it, and decodes alike.
func sameFrame(t *testing.T, m *protocol.Message, frame []byte, s protocol.Session) bool {
	t.Helper()
	again, free := rebuild(m, frame)
	if again == nil {
		return false
	}
	if !bytes.Equal(mask(again, free), mask(frame, free)) {
		t.Errorf("%x\n%x is what its content makes\n%x is free", frame, again, free)
	}
	var d protocol.Decoder
	var twin protocol.Message
	d.Decode(&twin, again, s)
	if a, b := protocol.AppendJSON(nil, m, s, nil), protocol.AppendJSON(nil, &twin, s, nil); !bytes.Equal(a, b) {
		t.Errorf("%x: %s\n%x: %s", frame, a, again, b)
	}
	return true
}

// Each frame of the vectors that a form fits comes back.
func TestRebuild(t *testing.T) {
	t.Parallel()
	built := map[byte]int{}
	for _, file := range []string{"captures.jsonl", "generated.jsonl"} {
		vectortest.Lines(t, file, func(line []byte) {
			var v vectortest.Vector
			if err := json.Unmarshal(line, &v); err != nil {
				t.Fatal(err)
			}
			var d protocol.Decoder
			var m protocol.Message
			frame := unhex(t, v.Hex)
			d.Decode(&m, frame, protocol.Session{})
			if sameFrame(t, &m, frame, protocol.Session{}) {
				built[m.Type]++
			}
		})
	}
	t.Logf("built again, by type: %v", built)
	for _, f := range forms {
		if built[f.typ] < 5 {
			t.Errorf("only %d of type 0x%02x", built[f.typ], f.typ)
		}
	}
}
