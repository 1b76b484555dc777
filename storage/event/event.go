// Package event says what a record of the log stands for: the rows of the
// database. It is the table of DESIGN.md section 6, "frame goes to", and the
// only place that judges whether a time or a frame is plausible. It is pure:
// the same record gives the same rows, so a replay changes nothing.
package event

import (
	"encoding/binary"
	"hash/fnv"
	"math"

	"gt06/protocol"
	"gt06/storage"
)

// TimeSource says where a row's fix_time comes from.
type TimeSource string

// The sources of a time, best first.
const (
	FromGPS    TimeSource = "gps"
	FromDevice TimeSource = "device"
	FromServer TimeSource = "server"
)

// Why a frame is in quarantine. The names are the column's values.
const (
	ReasonNoLogin = "no login"
	ReasonUnknown = "unknown frame"
	ReasonDamaged = "damaged: "
)

// Position is a row of positions.
type Position struct {
	Device     protocol.IMEI
	FixTime    int64 // Unix seconds
	Kind       string
	Hash       uint64
	Source     TimeSource
	ReceivedAt int64 // Unix microseconds
	HasFix     bool
	Valid      bool
	Latitude   float64
	Longitude  float64
	Altitude   *float64
	SpeedKMH   float64
	Course     float64
	Satellites *int64
	Ignition   *bool
	Archived   bool
	Protocol   byte
	Serial     uint16
	Alarm      string
	Cell       *protocol.Cell
	Attributes []byte // JSON object

	UTCOffset int32  // what the times were decoded with, seconds; no column
	Believed  bool   // a judge found its place and time plausible; no column
	timeFlag  string // of Attributes
}

// Alarm is a row of alarms.
type Alarm struct {
	Device     protocol.IMEI
	FixTime    int64
	Alarm      string
	Code       *uint16
	ReceivedAt int64
	HasFix     bool
	Latitude   float64
	Longitude  float64
	Hash       uint64
}

// Heartbeat is a row of heartbeats.
type Heartbeat struct {
	Device     protocol.IMEI
	ReceivedAt int64
	Spool      storage.Position
	Ignition   *bool
	Charging   *bool
	Blocked    *bool
	Battery    *int64
	RSSI       *int64
	Attributes []byte
}

// DeviceEvent is a row of device_events; of a command reply it is what
// device_commands is completed with.
type DeviceEvent struct {
	Device     protocol.IMEI
	ReceivedAt int64
	Spool      storage.Position
	Kind       string
	Attributes []byte
}

// Command is a row of device_commands: bytes that were sent to a device it did
// not ask for.
type Command struct {
	Device protocol.IMEI
	SentAt int64 // Unix microseconds
	Spool  storage.Position
	Flag   uint32
	Text   string
	By     string // who asked for it; "": nobody knows
}

// Reply completes the row of the command it answers.
type Reply struct {
	Device     protocol.IMEI
	ReceivedAt int64 // Unix microseconds
	Flag       uint32
	Text       string
}

// Quarantined is a row of quarantined_frames.
type Quarantined struct {
	Device     protocol.IMEI
	ReceivedAt int64
	Spool      storage.Position
	Frame      []byte
	Reason     string
}

// Rows collects what records stand for. The zero value is ready; Reset keeps
// the memory.
type Rows struct {
	Positions   []Position
	Alarms      []Alarm
	Heartbeats  []Heartbeat
	Events      []DeviceEvent
	Quarantined []Quarantined
	Commands    []Command
	Replies     []Reply
	Seen        map[protocol.IMEI]int64 // devices and when they spoke last, Unix microseconds
	Frames      int                     // records that were frames: each is a row of one of the tables or merged into one

	text  []byte               // what Attributes of the rows lie in
	extra []protocol.Attribute // of one of them
}

// Reset empties the rows.
func (r *Rows) Reset() {
	r.Positions, r.Alarms, r.Heartbeats = r.Positions[:0], r.Alarms[:0], r.Heartbeats[:0]
	r.Events, r.Quarantined, r.Frames = r.Events[:0], r.Quarantined[:0], 0
	r.Commands, r.Replies = r.Commands[:0], r.Replies[:0]
	r.text = r.text[:0]
	if r.Seen == nil {
		r.Seen = map[protocol.IMEI]int64{}
	}
	clear(r.Seen)
}

// Len returns how many rows there are.
func (r *Rows) Len() int {
	return len(r.Positions) + len(r.Alarms) + len(r.Heartbeats) + len(r.Events) + len(r.Commands) + len(r.Quarantined)
}

// IsFrame says whether a record is a frame at all: junk, half frames, carried
// answers and bytes that only went out are none.
func IsFrame(rec *storage.Record) bool {
	return len(rec.Input) > 0 && rec.Flags&(storage.Junk|storage.Carry|storage.Partial) == 0
}

// IsCommand says whether a record is bytes that a device did not ask for.
func IsCommand(rec *storage.Record) bool {
	return len(rec.Input) == 0 && len(rec.Answer) > 0 && rec.Flags == 0 && rec.Device != 0
}

// BuildCommands adds the rows of a record of commands.
func BuildCommands(rows *Rows, rec *storage.Record, pos storage.Position) {
	rows.Seen[rec.Device] = max(rows.Seen[rec.Device], 0) // its id is needed
	protocol.EachFrame(rec.Answer, func(frame []byte) {
		if flag, text, ok := protocol.ParseCommand(frame); ok {
			rows.Commands = append(rows.Commands, Command{Device: rec.Device, SentAt: rec.ReceivedAt, Spool: pos, Flag: flag, Text: text, By: rec.Model})
		}
	})
}

// Build adds the rows of one record. m is its frame, decoded in the session
// the record carries; pos is where the record ends in the log.
func Build(rows *Rows, rec *storage.Record, pos storage.Position, m *protocol.Message) {
	if !IsFrame(rec) {
		return
	}
	rows.Frames++
	if rec.Device == 0 {
		rows.Quarantine(rec, pos, ReasonNoLogin)
		return
	}
	rows.Seen[rec.Device] = max(rows.Seen[rec.Device], rec.ReceivedAt)
	if m.Error != "" && !onlyDate(m) {
		rows.Quarantine(rec, pos, ReasonDamaged+m.Error)
		return
	}
	switch m.Kind {
	case protocol.KindUnknown:
		rows.Quarantine(rec, pos, ReasonUnknown)
	case protocol.KindLocation, protocol.KindAlarm, protocol.KindLBS, protocol.KindWiFi:
		rows.position(rec, m)
	case protocol.KindHeartbeat, protocol.KindStatus:
		rows.Heartbeats = append(rows.Heartbeats, Heartbeat{
			Device: rec.Device, ReceivedAt: rec.ReceivedAt, Spool: pos,
			Ignition: boolean(m, "ignition"), Charging: boolean(m, "charge"), Blocked: boolean(m, "blocked"),
			Battery: integer(m, "batteryLevel"), RSSI: integer(m, "rssi"),
			Attributes: rows.attributes(m, false),
		})
	default:
		if a := find(m, "result"); m.Kind == protocol.KindCommandReply && a != nil {
			rows.Replies = append(rows.Replies, Reply{Device: rec.Device, ReceivedAt: rec.ReceivedAt, Flag: m.ServerFlag, Text: a.Text})
		}
		if m.Has&protocol.HasFix != 0 {
			rows.position(rec, m)
			return
		}
		rows.Events = append(rows.Events, DeviceEvent{
			Device: rec.Device, ReceivedAt: rec.ReceivedAt, Spool: pos, Kind: m.Kind.String(), Attributes: rows.attributes(m, false),
		})
	}
}

// Quarantine adds a record as a frame nobody could place.
func (r *Rows) Quarantine(rec *storage.Record, pos storage.Position, reason string) {
	const most = 250
	r.Quarantined = append(r.Quarantined, Quarantined{
		Device: rec.Device, ReceivedAt: rec.ReceivedAt, Spool: pos,
		Frame: append([]byte(nil), rec.Input...), Reason: reason[:min(len(reason), most)],
	})
}

// onlyDate says whether the damage is an impossible date alone: the rest of
// such a frame is good.
func onlyDate(m *protocol.Message) bool {
	const prefix = "impossible date"
	return len(m.Error) >= len(prefix) && m.Error[:len(prefix)] == prefix
}

func (r *Rows) position(rec *storage.Record, m *protocol.Message) {
	received := rec.ReceivedAt / 1e6
	p := Position{
		Device: rec.Device, ReceivedAt: rec.ReceivedAt, Kind: m.Kind.String(),
		HasFix: m.Has&protocol.HasFix != 0, Valid: m.Valid, Latitude: m.Latitude, Longitude: m.Longitude,
		SpeedKMH: m.SpeedKMH, Course: m.Course, Protocol: m.Type, Serial: m.Serial,
		Satellites: integer(m, "sat"), Ignition: boolean(m, "ignition"), UTCOffset: rec.UTCOffset,
	}
	if archived := boolean(m, "archive"); archived != nil {
		p.Archived = *archived
	}
	if m.Has&protocol.HasAltitude != 0 {
		altitude := m.Altitude // m is used again
		p.Altitude = &altitude
	}
	if len(m.Alarms) > 0 {
		p.Alarm = string(m.Alarms[0])
	}
	if len(m.Cells) > 0 {
		cell := m.Cells[0]
		p.Cell = &cell
	}
	p.FixTime, p.Source, p.timeFlag = fixTime(m, received, p.Archived)
	p.Hash = hash(m)
	p.Attributes = r.attributes(m, true, p.timeFlag)
	r.Positions = append(r.Positions, p)
	if m.Kind == protocol.KindAlarm {
		r.alarms(&p, m)
	}
}

func (r *Rows) alarms(p *Position, m *protocol.Message) {
	a := Alarm{
		Device: p.Device, FixTime: p.FixTime, ReceivedAt: p.ReceivedAt, HasFix: p.HasFix,
		Latitude: p.Latitude, Longitude: p.Longitude, Hash: p.Hash,
	}
	if m.HasAlarmCode {
		code := m.AlarmCode
		a.Code = &code
	}
	names := m.Alarms
	if len(names) == 0 && m.HasAlarmCode && m.AlarmCode != 0 && m.AlarmCode&0xff != 0xff {
		names = []protocol.Alarm{"unknown"}
	}
	for i, name := range names {
		if i > 0 && name == names[0] {
			continue // the terminal information and the alarm byte say the same
		}
		a.Alarm = string(name)
		r.Alarms = append(r.Alarms, a)
	}
}

// hash is what makes two rows of one device and second the same: coordinates,
// speed, course and alarm code, not serial, checksum or re-upload flag, which
// differ when a device sends a fix again. Without a fix the cells and access
// points stand for the place.
func hash(m *protocol.Message) uint64 {
	h := fnv.New64a()
	var b [8]byte
	put := func(v uint64) {
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = h.Write(b[:])
	}
	if m.Has&protocol.HasFix != 0 {
		put(math.Float64bits(m.Latitude))
		put(math.Float64bits(m.Longitude))
		put(math.Float64bits(m.SpeedKMH))
		put(math.Float64bits(m.Course))
	} else {
		for i := range m.Cells {
			put(uint64(m.Cells[i].LAC)<<32 ^ m.Cells[i].CID)
			put(uint64(m.Cells[i].RSSI))
		}
		for i := range m.WiFi {
			copy(b[:], m.WiFi[i].MAC[:])
			_, _ = h.Write(b[:6])
		}
	}
	put(uint64(m.AlarmCode))
	return h.Sum64()
}

func find(m *protocol.Message, key string) *protocol.Attribute {
	for i := range m.Attributes {
		if m.Attributes[i].Key == key {
			return &m.Attributes[i]
		}
	}
	return nil
}

func integer(m *protocol.Message, key string) *int64 {
	if a := find(m, key); a != nil && a.Type == protocol.Int {
		v := a.Int
		return &v
	}
	return nil
}

func boolean(m *protocol.Message, key string) *bool {
	if a := find(m, key); a != nil && a.Type == protocol.Bool {
		v := a.Int != 0
		return &v
	}
	return nil
}

// attributes returns the JSON of what has no column. A row without a fix keeps
// cells and access points here; a checksum that is wrong and a time that is not
// believed are said.
func (r *Rows) attributes(m *protocol.Message, place bool, flags ...string) []byte {
	extra := append(r.extra[:0], m.Attributes...)
	if m.Has&protocol.HasCRC != 0 && !m.CRCOK {
		extra = append(extra, protocol.Attribute{Key: "crcWrong", Type: protocol.Bool, Int: 1})
	}
	for _, f := range flags {
		if f != "" {
			extra = append(extra, protocol.Attribute{Key: "timeFlag", Type: protocol.String, Text: f})
		}
	}
	if m.Error != "" {
		extra = append(extra, protocol.Attribute{Key: "error", Type: protocol.String, Text: m.Error})
	}
	r.extra = extra
	at := len(r.text)
	r.text = protocol.AppendAttributes(r.text, extra)
	if place && m.Has&protocol.HasFix == 0 && len(m.Cells)+len(m.WiFi) > 0 {
		r.text = append(protocol.AppendNetwork(r.text[:len(r.text)-1], m), '}')
	}
	return r.text[at:len(r.text):len(r.text)]
}
