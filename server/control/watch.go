package control

import (
	"encoding/json"
	"time"
)

// TailArgs chooses what to see.
type TailArgs struct {
	IMEI         string `json:"imei,omitempty"`
	Unidentified bool   `json:"unidentified,omitempty"`
}

// Seen is one line of the stream of a tail: a frame, or bytes that are none.
type Seen struct {
	Time      time.Time       `json:"time"` // received
	IMEI      string          `json:"imei,omitempty"`
	Conn      string          `json:"conn"`
	Remote    string          `json:"remote"`
	Hex       string          `json:"hex"`
	Answer    string          `json:"answer"`               // as it will leave
	UTCOffset int32           `json:"utc_offset,omitempty"` // seconds, as the frame is decoded
	Model     string          `json:"model,omitempty"`
	LeftOut   int             `json:"left_out,omitempty"` // before this one, because they were not taken fast enough
	Frame     json.RawMessage `json:"frame"`              // the object of gt06ctl decode
}

// AlarmsArgs asks for alarms.
type AlarmsArgs struct {
	IMEI   string    `json:"imei,omitempty"`
	Since  time.Time `json:"since"`  // received at or after
	Most   int       `json:"most"`   // the last ones
	Follow bool      `json:"follow"` // and those to come
}

// Alarm is a row of alarms. The verb answers with lists of them, the oldest
// first.
type Alarm struct {
	IMEI       string    `json:"imei"`
	Time       time.Time `json:"time"` // of the fix
	ReceivedAt time.Time `json:"received_at"`
	Alarm      string    `json:"alarm"`
	Code       *int64    `json:"code"`
	Latitude   *float64  `json:"latitude"`
	Longitude  *float64  `json:"longitude"`
}

// TrackArgs asks where a device was.
type TrackArgs struct {
	IMEI string    `json:"imei"`
	From time.Time `json:"from"` // fixes at or after
	To   time.Time `json:"to"`   // and before
}

// Position is a row of positions. The verb streams lists of them, the oldest
// first, and ends with an empty one.
type Position struct {
	Time       time.Time       `json:"time"` // of the fix
	ReceivedAt time.Time       `json:"received_at"`
	Kind       string          `json:"kind"`
	Valid      bool            `json:"valid"`
	Latitude   *float64        `json:"latitude"` // degrees; null: no fix
	Longitude  *float64        `json:"longitude"`
	Altitude   *float64        `json:"altitude"` // metres
	SpeedKMH   *float64        `json:"speed_kmh"`
	Course     *float64        `json:"course"` // degrees
	Satellites *int64          `json:"satellites"`
	Ignition   *bool           `json:"ignition"`
	Alarm      string          `json:"alarm,omitempty"`
	Attributes json.RawMessage `json:"attributes"`
}

// TraceArgs asks for the frames of a device in the server's log.
type TraceArgs struct {
	IMEI string        `json:"imei,omitempty"` // "": which are traced
	For  time.Duration `json:"for"`            // 0: no longer
}

// Trace is a device whose frames are in the server's log until a time. The verb
// answers with all of them.
type Trace struct {
	IMEI  string    `json:"imei"`
	Until time.Time `json:"until"`
	By    string    `json:"by"`
}

// Support is what the server adds to a support bundle. No password is in it.
type Support struct {
	Version    string             `json:"version"`
	Go         string             `json:"go"`
	Config     string             `json:"config"`  // YAML
	Metrics    string             `json:"metrics"` // as Prometheus reads them
	Schema     int64              `json:"schema"`  // of the database; 0: not known
	SchemaOwn  int64              `json:"schema_own"`
	Quarantine []QuarantineReason `json:"quarantine"`
	Missing    string             `json:"missing,omitempty"` // why schema and quarantine are not known
}

// QuarantineReason says how many frames are in quarantine for a reason.
type QuarantineReason struct {
	Reason string `json:"reason"`
	Frames int64  `json:"frames"`
	First  string `json:"first"` // received, RFC 3339
	Last   string `json:"last"`
}
