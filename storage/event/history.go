package event

import (
	"gt06/protocol"
	"gt06/storage"
)

// Fix is what a table of somebody else keeps of a position.
type Fix struct {
	Device     protocol.IMEI
	FixTime    int64 // Unix seconds
	ReceivedAt int64 // Unix microseconds
	Valid      bool
	Latitude   float64
	Longitude  float64
	SpeedKMH   float64
	Course     float64
	Altitude   *float64
	Satellites *int64
	Ignition   *bool
}

// Foreign is a row of somebody else's table.
type Foreign struct {
	Key     int64 // in whose order the table is read
	Fix     Fix
	Refused string // why it is no position, "": it is one
}

// History adds the row of a fix that another server received. It is judged as a
// device's own late upload is, and its protocol is 0: no frame has that.
func (r *Rows) History(f *Fix) {
	m := protocol.Message{
		Kind: protocol.KindLocation, Has: protocol.HasFixTime | protocol.HasFix, FixTime: f.FixTime, Valid: f.Valid,
		Latitude: f.Latitude, Longitude: f.Longitude, SpeedKMH: f.SpeedKMH, Course: f.Course,
		Attributes: []protocol.Attribute{{Key: "archive", Type: protocol.Bool, Int: 1}},
	}
	if f.Altitude != nil {
		m.Has |= protocol.HasAltitude
		m.Altitude = *f.Altitude
	}
	if f.Satellites != nil {
		m.Attributes = append(m.Attributes, protocol.Attribute{Key: "sat", Type: protocol.Int, Int: *f.Satellites})
	}
	if f.Ignition != nil {
		a := protocol.Attribute{Key: "ignition", Type: protocol.Bool}
		if *f.Ignition {
			a.Int = 1
		}
		m.Attributes = append(m.Attributes, a)
	}
	r.Seen[f.Device] = max(r.Seen[f.Device], f.ReceivedAt)
	r.position(&storage.Record{Device: f.Device, ReceivedAt: f.ReceivedAt}, &m)
}
