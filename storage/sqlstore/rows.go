package sqlstore

import (
	"math"
	"strconv"
	"time"

	"gt06/storage/event"
)

// The statements of the hot path are written as literals: measured twice as fast
// as placeholders. Strings are escaped by the dialect; names and keywords are
// constants of this package.

const positionColumns = "fix_time, kind, fix_hash, time_source, received_at, latitude, longitude, altitude, speed_kmh, course, satellites, valid, ignition, archived, protocol, serial, alarm, mcc, mnc, lac, cid, attributes"

//nolint:gochecknoglobals // read-only
var latestColumns = []string{
	"kind", "fix_hash", "time_source", "received_at", "latitude", "longitude", "altitude", "speed_kmh", "course", "satellites", "valid",
	"ignition", "archived", "protocol", "serial", "alarm", "mcc", "mnc", "lac", "cid", "attributes",
}

// values writes rows: literals for an INSERT, or plain text for LOAD DATA, a
// line a row, with tabs between the columns.
type values struct {
	d     dialect
	plain bool
	dst   []byte
}

func (v *values) open() {
	if !v.plain {
		v.dst = append(v.dst, '(')
	}
}

func (v *values) close() {
	if v.plain {
		v.dst[len(v.dst)-1] = '\n'
		return
	}
	v.dst[len(v.dst)-1] = ')'
	v.dst = append(v.dst, ',')
}

func (v *values) comma() {
	if v.plain {
		v.dst = append(v.dst, '\t')
		return
	}
	v.dst = append(v.dst, ',')
}

func (v *values) null() {
	if v.plain {
		v.dst = append(v.dst, `\N`...)
	} else {
		v.dst = append(v.dst, "NULL"...)
	}
	v.comma()
}

func (v *values) quote() {
	if !v.plain {
		v.dst = append(v.dst, '\'')
	}
}

func (v *values) text(s string) {
	if v.plain {
		v.dst = plainText(v.dst, s)
	} else {
		v.dst = v.d.text(v.dst, s)
	}
	v.comma()
}

// plainText escapes what separates columns and rows.
func plainText(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case '\\', '\t', '\n':
			dst = append(dst, '\\', c)
		case 0:
			dst = append(dst, `\0`...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func (v *values) int(n int64)   { v.dst = strconv.AppendInt(v.dst, n, 10); v.comma() }
func (v *values) blob(b []byte) { v.dst = v.d.blob(v.dst, b); v.comma() }

func (v *values) float(f float64) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		v.null()
		return
	}
	v.dst = strconv.AppendFloat(v.dst, f, 'g', -1, 64)
	v.comma()
}

func (v *values) bool(b bool) {
	n := int64(0)
	if b {
		n = 1
	}
	v.int(n)
}

func (v *values) seconds(t int64) {
	v.quote()
	v.dst = time.Unix(t, 0).UTC().AppendFormat(v.dst, time.DateTime)
	v.quote()
	v.comma()
}

func (v *values) micros(t int64) {
	v.quote()
	v.dst = time.UnixMicro(t).UTC().AppendFormat(v.dst, "2006-01-02 15:04:05.000000")
	v.quote()
	v.comma()
}

func (v *values) optional(n *int64) {
	if n == nil {
		v.null()
		return
	}
	v.int(*n)
}

func (v *values) maybe(b *bool) {
	if b == nil {
		v.null()
		return
	}
	v.bool(*b)
}

// hash is a signed number in SQLite, which knows no other; the bits are the
// same in both.
func (v *values) hash(h uint64) {
	if _, lite := v.d.(sqliteDialect); lite {
		v.int(int64(h))
		return
	}
	v.dst = strconv.AppendUint(v.dst, h, 10)
	v.comma()
}

func (v *values) position(device int64, p *event.Position) {
	v.open()
	v.int(device)
	v.seconds(p.FixTime)
	v.text(p.Kind)
	v.hash(p.Hash)
	v.text(string(p.Source))
	v.micros(p.ReceivedAt)
	v.place(p.HasFix, p.Latitude, p.Longitude)
	if p.Altitude == nil {
		v.null()
	} else {
		v.float(*p.Altitude)
	}
	if p.HasFix {
		v.float(p.SpeedKMH)
		v.float(p.Course)
	} else {
		v.null()
		v.null()
	}
	v.optional(p.Satellites)
	v.bool(p.HasFix && p.Valid)
	v.maybe(p.Ignition)
	v.bool(p.Archived)
	v.int(int64(p.Protocol))
	v.int(int64(p.Serial))
	if p.Alarm == "" {
		v.null()
	} else {
		v.text(p.Alarm)
	}
	if c := p.Cell; c == nil {
		v.null()
		v.null()
		v.null()
		v.null()
	} else {
		v.int(int64(c.MCC))
		v.int(int64(c.MNC))
		v.int(int64(c.LAC))
		v.int(int64(c.CID))
	}
	v.text(string(p.Attributes))
	v.close()
}

func (v *values) place(has bool, latitude, longitude float64) {
	if !has {
		v.null()
		v.null()
		return
	}
	v.float(latitude)
	v.float(longitude)
}

func (v *values) alarm(device int64, a *event.Alarm) {
	v.open()
	v.int(device)
	v.seconds(a.FixTime)
	v.text(a.Alarm)
	if a.Code == nil {
		v.null()
	} else {
		v.int(int64(*a.Code))
	}
	v.micros(a.ReceivedAt)
	v.place(a.HasFix, a.Latitude, a.Longitude)
	v.hash(a.Hash)
	v.close()
}

func (v *values) heartbeat(device int64, h *event.Heartbeat) {
	v.open()
	v.int(device)
	v.micros(h.ReceivedAt)
	v.int(int64(h.Spool))
	v.maybe(h.Ignition)
	v.maybe(h.Charging)
	v.maybe(h.Blocked)
	v.optional(h.Battery)
	v.optional(h.RSSI)
	v.text(string(h.Attributes))
	v.close()
}

func (v *values) event(device int64, e *event.DeviceEvent) {
	v.open()
	v.int(device)
	v.micros(e.ReceivedAt)
	v.int(int64(e.Spool))
	v.text(e.Kind)
	v.text(string(e.Attributes))
	v.close()
}

func (v *values) command(device int64, c *event.Command) {
	v.open()
	v.int(device)
	v.text(c.Text)
	if c.By == "" {
		v.null()
	} else {
		v.text(c.By)
	}
	v.int(int64(c.Flag))
	v.micros(c.SentAt)
	v.int(int64(c.Spool))
	v.close()
}

func (v *values) quarantined(q *event.Quarantined) {
	v.open()
	if q.Device == 0 {
		v.null()
	} else {
		v.text(q.Device.String())
	}
	v.micros(q.ReceivedAt)
	v.int(int64(q.Spool))
	v.blob(q.Frame)
	v.text(q.Reason)
	v.close()
}
