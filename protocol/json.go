package protocol

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the object of `gt06ctl decode --json` (DESIGN.md section
// 6). A field is there when the frame carries it; zero and false are values.
// answers are the bytes the frame is answered with.
func AppendJSON(dst []byte, m *Message, s Session, answers []byte) []byte {
	w := jsonWriter{dst: append(dst, '{')}
	w.text("type", m.Kind.String())
	w.int("protocol", int64(m.Type))
	if m.Has&HasSerial != 0 {
		w.int("serial", int64(m.Serial))
	}
	if m.Has&HasCRC != 0 {
		w.bool("crc_ok", m.CRCOK)
	}
	switch {
	case m.Has&HasIMEI != 0:
		w.text("imei", m.IMEI.String())
	case s.IMEI != 0:
		w.text("imei", s.IMEI.String())
	}
	if m.Has&HasUTCOffset != 0 {
		w.int("utc_offset", int64(m.UTCOffset))
	}
	if m.Has&HasDeviceTime != 0 {
		w.time("device_time", m.DeviceTime)
	}
	if m.Has&HasFixTime != 0 {
		w.time("fix_time", m.FixTime)
	}
	if m.Has&HasFix != 0 {
		w.bool("valid", m.Valid)
		w.float("latitude", m.Latitude)
		w.float("longitude", m.Longitude)
		if m.Has&HasAltitude != 0 {
			w.float("altitude", m.Altitude)
		}
		w.float("speed_kmh", m.SpeedKMH)
		w.float("course", m.Course)
	}
	if m.Has&HasAccuracy != 0 {
		w.float("accuracy", m.Accuracy)
	}
	w.cells(m.Cells)
	w.accessPoints(m.WiFi)
	if len(m.Alarms) > 0 {
		w.key("alarms")
		w.list(len(m.Alarms), func(i int) { w.quote(string(m.Alarms[i])) })
	}
	w.key("attributes")
	w.dst = AppendAttributes(w.dst, m.Attributes)
	w.key("reply")
	w.dst = append(w.dst, '[')
	EachFrame(answers, func(frame []byte) {
		if w.dst[len(w.dst)-1] != '[' {
			w.dst = append(w.dst, ',')
		}
		w.quote(hex.EncodeToString(frame))
	})
	w.dst = append(w.dst, ']')
	if m.Error != "" {
		w.text("error", m.Error)
	}
	return append(w.dst, '}')
}

// AppendAttributes appends the attributes as a JSON object, in their order.
func AppendAttributes(dst []byte, attributes []Attribute) []byte {
	w := jsonWriter{dst: append(dst, '{')}
	for i := range attributes {
		a := &attributes[i]
		switch a.Type {
		case Int:
			w.int(a.Key, a.Int)
		case Float:
			w.float(a.Key, a.Float)
		case Bool:
			w.bool(a.Key, a.Int != 0)
		case String:
			w.text(a.Key, a.Text)
		}
	}
	return append(w.dst, '}')
}

// AppendNetwork appends the cells and access points as members of a JSON object
// that is open at the end of dst.
func AppendNetwork(dst []byte, m *Message) []byte {
	w := jsonWriter{dst: dst}
	w.cells(m.Cells)
	w.accessPoints(m.WiFi)
	return w.dst
}

type jsonWriter struct{ dst []byte }

func (w *jsonWriter) key(name string) {
	if w.dst[len(w.dst)-1] != '{' {
		w.dst = append(w.dst, ',')
	}
	w.quote(name)
	w.dst = append(w.dst, ':')
}

func (w *jsonWriter) quote(s string) {
	if safe(s) { // all names and almost all values
		w.dst = append(append(append(w.dst, '"'), s...), '"')
		return
	}
	b, err := json.Marshal(s)
	if err != nil {
		b = []byte(`""`)
	}
	w.dst = append(w.dst, b...)
}

// safe says whether a string is its own JSON.
func safe(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

func (w *jsonWriter) text(name, v string)      { w.key(name); w.quote(v) }
func (w *jsonWriter) int(name string, v int64) { w.key(name); w.dst = strconv.AppendInt(w.dst, v, 10) }
func (w *jsonWriter) bool(name string, v bool) { w.key(name); w.dst = strconv.AppendBool(w.dst, v) }

// float keeps a fraction on whole numbers, so that the type of a value never
// depends on its size.
func (w *jsonWriter) float(name string, v float64) {
	w.key(name)
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		w.dst = strconv.AppendFloat(w.dst, v, 'f', 1, 64)
		return
	}
	w.dst = strconv.AppendFloat(w.dst, v, 'g', -1, 64)
}

func (w *jsonWriter) time(name string, v int64) {
	w.text(name, time.Unix(v, 0).UTC().Format(time.RFC3339))
}

func (w *jsonWriter) list(n int, item func(i int)) {
	w.dst = append(w.dst, '[')
	for i := range n {
		if i > 0 {
			w.dst = append(w.dst, ',')
		}
		item(i)
	}
	w.dst = append(w.dst, ']')
}

func (w *jsonWriter) cells(cells []Cell) {
	if len(cells) == 0 {
		return
	}
	w.key("cells")
	w.list(len(cells), func(i int) {
		c := &cells[i]
		w.dst = append(w.dst, '{')
		w.int("mcc", int64(c.MCC))
		w.int("mnc", int64(c.MNC))
		w.int("lac", int64(int32(c.LAC)))
		w.int("cid", int64(c.CID))
		if c.HasRSSI {
			w.int("rssi", int64(c.RSSI))
		}
		w.dst = append(w.dst, '}')
	})
}

func (w *jsonWriter) accessPoints(list []AccessPoint) {
	if len(list) == 0 {
		return
	}
	w.key("wifi")
	w.list(len(list), func(i int) {
		a := &list[i]
		w.dst = append(w.dst, '{')
		var mac [17]byte
		for k, v := range a.MAC {
			if k > 0 {
				mac[3*k-1] = ':'
			}
			hex.Encode(mac[3*k:3*k+2], []byte{v})
		}
		w.text("mac", string(mac[:]))
		if a.HasRSSI {
			w.int("rssi", int64(a.RSSI))
		}
		w.dst = append(w.dst, '}')
	})
}
