package protocol

import "slices"

// Kind is what a frame is about, independent of the protocol number and the
// model that sent it. It is the `type` of `gt06ctl decode --json`.
type Kind uint8

// The kinds. KindUnknown is a value like any other: the frame is kept,
// answered as its header is answered, and counted.
const (
	KindUnknown Kind = iota
	KindLogin
	KindLocation
	KindHeartbeat
	KindAlarm
	KindLBS
	KindWiFi
	KindStatus
	KindInfo
	KindString
	KindCommandReply
	KindTimeRequest
	KindAddressRequest
	KindPhoto
	KindOBD
	numKinds
)

//nolint:gochecknoglobals // read-only table
var kindNames = [numKinds]string{
	"unknown", "login", "location", "heartbeat", "alarm", "lbs", "wifi", "status", "info",
	"string", "command_reply", "time_request", "address_request", "photo", "obd",
}

// String returns the name used in JSON and as a metric label.
func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return kindNames[KindUnknown]
}

// IMEI is a device identity as it stands in a login frame: 16 BCD digits in
// big-endian order without the first, which is a pad (PROTOCOL.md section 4).
// Zero means "not logged in". A device may send nibbles above 9; they are kept
// and shown as hexadecimal digits, and Valid reports false.
type IMEI uint64

// Fields says which fields of a Message the frame carried. Zero and false are
// values; only what is not in this set is absent.
type Fields uint32

// One bit for each optional field of a Message.
const (
	HasSerial     Fields = 1 << iota
	HasIMEI              // IMEI
	HasUTCOffset         // UTCOffset
	HasDeviceTime        // DeviceTime
	HasFixTime           // FixTime
	HasFix               // Valid, Latitude, Longitude, SpeedKMH, Course
	HasAltitude          // Altitude
	HasAccuracy          // Accuracy
	HasPhoto             // Photo
	HasServerFlag        // ServerFlag
	HasCRC               // the form of the frame carries a CRC at all
)

// Cell is one mobile network cell. RSSI is as the frame has it (see HasRSSI);
// Traccar's sign convention (negative dBm-like) is kept.
type Cell struct {
	MCC, MNC uint16
	LAC      uint32
	CID      uint64
	RSSI     int16
	HasRSSI  bool
}

// AccessPoint is one WiFi access point seen by the device.
type AccessPoint struct {
	MAC     [6]byte
	RSSI    int16
	HasRSSI bool
}

// ValueType is the JSON type of an attribute value.
type ValueType uint8

// The JSON types an attribute can have.
const (
	Int ValueType = iota
	Float
	Bool
	String
)

// Attribute is one named value of a frame. Keys and units are Traccar's
// (batteryLevel in percent, power in volt, odometer in metre, rssi, ...).
type Attribute struct {
	Key   string // a constant of this package, never device input
	Type  ValueType
	Int   int64 // Int, and Bool as 0 or 1
	Float float64
	Text  string // device input: bytes that are not UTF-8 are replaced
}

// Photo is a part of a photo. At and Len say where its bytes are in the frame;
// an announcement has none.
type Photo struct {
	ID       uint32
	Total    uint32 // bytes of the whole photo; 0: this frame does not say
	Place    uint32 // of the part: its offset in bytes, or its number
	Numbered bool   // Place is a number
	At, Len  int
}

// Message is one decoded frame. It keeps no reference to the frame. Its slices
// are reused by the next Decode into the same Message, so a caller that keeps
// a Message copies it.
type Message struct {
	Kind     Kind
	Type     byte // protocol number
	Extended bool // 0x7979 header: two length bytes
	CRCOK    bool
	Has      Fields
	Serial   uint16

	IMEI       IMEI  // login: the device that speaks from now on
	UTCOffset  int32 // seconds east of UTC (login)
	DeviceTime int64 // Unix seconds, UTC
	FixTime    int64 // Unix seconds, UTC

	Valid     bool    // positioned
	Latitude  float64 // degrees, north positive
	Longitude float64 // degrees, east positive
	Altitude  float64 // metres
	SpeedKMH  float64
	Course    float64 // degrees, 0..360
	Accuracy  float64 // metres

	Cells      []Cell
	WiFi       []AccessPoint
	Alarms     []Alarm
	Attributes []Attribute

	// AlarmCode is the raw alarm byte or word when HasAlarmCode: the same code
	// means other things on other models, so it is kept beside the names.
	AlarmCode    uint16
	HasAlarmCode bool

	// ServerFlag is what a command reply carries of the command it answers
	// (HasServerFlag). Firmwares that do not echo it send zeros.
	ServerFlag uint32

	// Photo is a part of a photo, or its announcement (KindPhoto, HasPhoto).
	Photo Photo

	// Error says what could not be decoded, empty when all could. What was
	// decoded before the damage is kept. It is text for operators.
	Error string

	scratch *cursor // of the decoder, so that it allocates once per Message
	seen    uint64  // a bit for each key in Attributes; keys may share one
	echo    int     // where the serial to be answered stands, 0: at the end
}

// attribute returns the place of an attribute, emptied: a later field of a
// frame outranks an earlier one.
func (m *Message) attribute(key string, t ValueType) *Attribute {
	n := len(m.Attributes)
	if bit := uint64(1) << ((int(key[0])*5 + len(key)) & 63); m.seen&bit == 0 {
		m.seen |= bit
	} else {
		for i := range m.Attributes {
			if m.Attributes[i].Key == key {
				n = i
				break
			}
		}
	}
	if n == cap(m.Attributes) {
		m.Attributes = slices.Grow(m.Attributes, 1)
	}
	if n == len(m.Attributes) {
		m.Attributes = m.Attributes[:n+1]
	}
	a := &m.Attributes[n]
	*a = Attribute{Key: key, Type: t}
	return a
}

func (m *Message) setInt(key string, v int64) { m.attribute(key, Int).Int = v }

func (m *Message) setBool(key string, v bool) { m.attribute(key, Bool).Int = bit(v) }

// bit is 1 for true, without a branch.
func bit(v bool) (n int64) {
	if v {
		n = 1
	}
	return n
}

func (m *Message) addAlarm(a Alarm) {
	if a != "" {
		m.Alarms = append(m.Alarms, a)
	}
}

// Alarm is a Traccar alarm name ("sos", "powerCut", ...): a constant of this
// package.
type Alarm string

// Session is what a connection knows when it decodes a frame; the record of
// the frame carries the same, so that a replay gives the same rows.
type Session struct {
	IMEI      IMEI
	UTCOffset int32  // seconds east of UTC, from the login or the operator
	Model     string // the operator's model attribute, "" for none
}
