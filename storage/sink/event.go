package sink

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
)

// Type is what an event is about: a table of the database each.
type Type string

// The types.
const (
	TypePosition     Type = "position"
	TypeAlarm        Type = "alarm"
	TypeHeartbeat    Type = "heartbeat"
	TypeDeviceEvent  Type = "device_event"
	TypeCommand      Type = "command"       // bytes a device did not ask for were sent to it
	TypeCommandReply Type = "command_reply" // and what it replied
	TypeQuarantined  Type = "quarantined"   // a frame nobody could place
)

// Types returns all types.
func Types() []Type {
	return []Type{TypePosition, TypeAlarm, TypeHeartbeat, TypeDeviceEvent, TypeCommand, TypeCommandReply, TypeQuarantined}
}

// Event is one thing that a record stands for.
type Event struct {
	ID     string // never another event's; the same after any kill
	Type   Type
	Device protocol.IMEI // 0: the connection had not logged in
	JSON   []byte        // an object, with the names of the database's columns
	Record *storage.Record
}

// Encoder makes events of records. It belongs to one goroutine.
type Encoder struct {
	node    string
	only    map[Type]bool // empty: all
	decoder protocol.Decoder
	msg     protocol.Message
	rows    event.Rows
}

// NewEncoder prepares one. Node is of the data directory, only are the types
// that are wanted, none: all.
func NewEncoder(node string, only []Type) *Encoder {
	e := &Encoder{node: node, only: map[Type]bool{}}
	for _, t := range only {
		e.only[t] = true
	}
	return e
}

// Rows calls fn with what each item stands for. The rows are valid until fn
// returns.
func (e *Encoder) Rows(items []Item, fn func(it *Item, rows *event.Rows)) {
	for i := range items {
		it := &items[i]
		rec := &it.Record
		e.rows.Reset()
		switch {
		case event.IsCommand(rec):
			event.BuildCommands(&e.rows, rec, it.End)
		case event.IsFrame(rec):
			e.decode(it)
		default:
			continue
		}
		fn(it, &e.rows)
	}
}

// decode never lets one frame stop a sink: a decoder that panics on it makes it
// a quarantined one.
func (e *Encoder) decode(it *Item) {
	rec := &it.Record
	defer func() {
		if p := recover(); p != nil {
			e.rows.Reset()
			e.rows.Quarantine(rec, it.End, fmt.Sprintf("decoder: %v", p))
		}
	}()
	e.decoder.Decode(&e.msg, rec.Input, protocol.Session{IMEI: rec.Device, UTCOffset: rec.UTCOffset, Model: rec.Model})
	event.Build(&e.rows, rec, it.End, &e.msg)
}

// ID returns the id of the n-th event of an item.
func (e *Encoder) ID(it *Item, n int) string {
	return fmt.Sprintf("%s-%x-%d", e.node, uint64(it.End), n)
}

// Events returns what items stand for.
func (e *Encoder) Events(items []Item) (list []Event, err error) {
	e.Rows(items, func(it *Item, rows *event.Rows) {
		n := 0
		add := func(t Type, device protocol.IMEI, received int64, body any) {
			id := e.ID(it, n)
			n++ // of all types: an id does not depend on what is wanted
			if len(e.only) > 0 && !e.only[t] {
				return
			}
			h := head{ID: id, Type: t, ReceivedAt: micros(received)}
			if device != 0 {
				h.IMEI = device.String()
			}
			b, fault := join(h, body)
			if fault != nil && err == nil {
				err = fmt.Errorf("encode %s: %w", id, fault)
			}
			list = append(list, Event{ID: id, Type: t, Device: device, JSON: b, Record: &it.Record})
		}
		for i := range rows.Positions {
			p := &rows.Positions[i]
			add(TypePosition, p.Device, p.ReceivedAt, positionBody(p))
		}
		for i := range rows.Alarms {
			a := &rows.Alarms[i]
			b := alarmBody{FixTime: seconds(a.FixTime), Alarm: a.Alarm, Code: a.Code, FixHash: hash(a.Hash)}
			if a.HasFix {
				b.Latitude, b.Longitude = &a.Latitude, &a.Longitude
			}
			add(TypeAlarm, a.Device, a.ReceivedAt, b)
		}
		for i := range rows.Heartbeats {
			h := &rows.Heartbeats[i]
			add(TypeHeartbeat, h.Device, h.ReceivedAt, heartbeatBody{h.Ignition, h.Charging, h.Blocked, h.Battery, h.RSSI, h.Attributes})
		}
		for i := range rows.Events {
			v := &rows.Events[i]
			add(TypeDeviceEvent, v.Device, v.ReceivedAt, deviceEventBody{v.Kind, v.Attributes})
		}
		for i := range rows.Commands {
			c := &rows.Commands[i]
			add(TypeCommand, c.Device, c.SentAt, commandBody{c.Flag, c.Text, c.By})
		}
		for i := range rows.Replies {
			r := &rows.Replies[i]
			add(TypeCommandReply, r.Device, r.ReceivedAt, replyBody{r.Flag, r.Text})
		}
		for i := range rows.Quarantined {
			q := &rows.Quarantined[i]
			add(TypeQuarantined, q.Device, q.ReceivedAt, quarantinedBody{hex.EncodeToString(q.Frame), q.Reason})
		}
	})
	return list, err
}

// head begins every event. Of a command received_at is when it was sent.
type head struct {
	ID         string `json:"id"`
	Type       Type   `json:"type"`
	IMEI       string `json:"imei,omitempty"`
	ReceivedAt string `json:"received_at"`
}

// The bodies. What a frame does not carry is null.
type (
	position struct {
		FixTime    string           `json:"fix_time"`
		TimeSource event.TimeSource `json:"time_source"`
		Kind       string           `json:"kind"`
		Valid      bool             `json:"valid"`
		Latitude   *float64         `json:"latitude"`
		Longitude  *float64         `json:"longitude"`
		Altitude   *float64         `json:"altitude"`
		SpeedKMH   *float64         `json:"speed_kmh"`
		Course     *float64         `json:"course"`
		Satellites *int64           `json:"satellites"`
		Ignition   *bool            `json:"ignition"`
		Archived   bool             `json:"archived"`
		Protocol   byte             `json:"protocol"`
		Serial     uint16           `json:"serial"`
		Alarm      *string          `json:"alarm"`
		MCC        *uint16          `json:"mcc"`
		MNC        *uint16          `json:"mnc"`
		LAC        *uint32          `json:"lac"`
		CID        *uint64          `json:"cid"`
		FixHash    string           `json:"fix_hash"` // with imei, fix_time and kind what makes a row of the database
		Attributes json.RawMessage  `json:"attributes"`
	}
	alarmBody struct {
		FixTime   string   `json:"fix_time"`
		Alarm     string   `json:"alarm"`
		Code      *uint16  `json:"code"`
		Latitude  *float64 `json:"latitude"`
		Longitude *float64 `json:"longitude"`
		FixHash   string   `json:"fix_hash"`
	}
	heartbeatBody struct {
		Ignition     *bool           `json:"ignition"`
		Charging     *bool           `json:"charging"`
		Blocked      *bool           `json:"blocked"`
		BatteryLevel *int64          `json:"battery_level"`
		RSSI         *int64          `json:"rssi"`
		Attributes   json.RawMessage `json:"attributes"`
	}
	deviceEventBody struct {
		Kind       string          `json:"kind"`
		Attributes json.RawMessage `json:"attributes"`
	}
	commandBody struct {
		Flag        uint32 `json:"flag"`
		Command     string `json:"command"`
		RequestedBy string `json:"requested_by"`
	}
	replyBody struct {
		Flag  uint32 `json:"flag"`
		Reply string `json:"reply"`
	}
	quarantinedBody struct {
		Frame  string `json:"frame"`
		Reason string `json:"reason"`
	}
)

func positionBody(p *event.Position) position {
	b := position{
		FixTime: seconds(p.FixTime), TimeSource: p.Source, Kind: p.Kind, Valid: p.Valid, Altitude: p.Altitude, Satellites: p.Satellites,
		Ignition: p.Ignition, Archived: p.Archived, Protocol: p.Protocol, Serial: p.Serial, FixHash: hash(p.Hash), Attributes: p.Attributes,
	}
	if p.HasFix {
		b.Latitude, b.Longitude, b.SpeedKMH, b.Course = &p.Latitude, &p.Longitude, &p.SpeedKMH, &p.Course
	}
	if p.Alarm != "" {
		b.Alarm = &p.Alarm
	}
	if c := p.Cell; c != nil {
		b.MCC, b.MNC, b.LAC, b.CID = &c.MCC, &c.MNC, &c.LAC, &c.CID
	}
	return b
}

// join makes one object of two.
func join(a, b any) ([]byte, error) {
	first, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	second, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	return append(append(first[:len(first)-1], ','), second[1:]...), nil
}

func seconds(t int64) string { return time.Unix(t, 0).UTC().Format(time.RFC3339) }

func micros(t int64) string { return time.UnixMicro(t).UTC().Format("2006-01-02T15:04:05.000000Z") }

// hash is text: not every receiver holds 64 bits in a number.
func hash(h uint64) string { return strconv.FormatUint(h, 10) }
