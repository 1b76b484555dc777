package server

import (
	"time"

	"gt06/protocol"
)

// Flags say what a record is besides an answered frame. The values are those
// of storage.Flags; an alias, so that the fields of both records have one type.
type Flags = uint8

const (
	// Junk marks input that belongs to no frame.
	Junk Flags = 1 << iota
	// Carry marks answer bytes an older record holds already and the device
	// has not taken yet.
	Carry
	// Partial marks half a frame that was released before its rest came. The
	// record of the frame holds these bytes again.
	Partial
)

// Record is one exchange: bytes a device sent and the bytes it is answered
// with. It has the fields of storage.Record in the same order, so that the
// program hands one over as the other without copying; this package does not
// know who stores it.
type Record struct {
	Conn       uint64 // connection: generation<<40 | counter
	InputEnd   uint64 // offset behind Input in the stream from the device
	AnswerEnd  uint64 // offset behind Answer in the stream to the device
	ReceivedAt int64  // Unix microseconds
	Flags      Flags
	Device     protocol.IMEI // 0 before the login
	UTCOffset  int32         // seconds east of UTC
	Model      string        // the operator's model attribute; without input: who asked for the bytes
	Input      []byte
	Answer     []byte
}

// Appender is where the batch becomes durable. Each loop has one of its own;
// a position is opaque but grows from batch to batch.
type Appender interface {
	// Append writes all records with one write(2) and returns the position
	// behind them. An error means none of them was written.
	Append(recs []*Record) (pos uint64, err error)
	// Sync returns nil once everything before pos is durable, and an error
	// when that failed for good or did not happen within the time given. The
	// answers of the batch may leave after nil only.
	Sync(pos uint64, within time.Duration) error
	// Room returns nil while there is room for more, else why not. It is
	// called before each batch and must be cheap.
	Room() error
	// End returns the position behind the last record of all loops.
	End() uint64
}

// Directory is what the operator has said of devices.
type Directory interface {
	// Device returns the settings of a device and whether it is known. Of one
	// that is not, Refuse may be set, too.
	Device(imei protocol.IMEI) (DeviceSettings, bool)
	// Len returns how many devices are known.
	Len() int
}

// DeviceSettings are the operator's attributes of one device.
type DeviceSettings struct {
	Model     string
	UTCOffset *int32 // seconds east of UTC; nil: the device's own
	Refuse    CloseReason
}
