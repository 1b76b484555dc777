// Package storage defines the record of one exchange with a device and the
// contract of durability that the packages below it keep.
//
// A record is written before its input is released to the kernel and before
// its answer is sent. It is durable once Sync of the log returned nil for its
// position, and only then may the answer leave. The order is the product.
package storage

import "gt06/protocol"

// Flags say what a record is besides an answered frame. It is an alias, so that
// the fields of a Record here and in package server have one type.
type Flags = uint8

const (
	// Junk means that Input is bytes between frames that belong to no frame. Counted,
	// kept in the log, never a row.
	Junk Flags = 1 << iota
	// Carry means that the record repeats answer bytes that an older record already
	// holds and the device has not taken yet. Input is empty.
	Carry
	// Partial means that Input is half a frame that had to be taken from the kernel before
	// its rest came. The record of the frame holds these bytes again, so this
	// one is never a row: it says where the input ends.
	Partial
)

// Record is one exchange: bytes a device sent (one frame, or junk, or nothing)
// and the bytes it is answered with (may be empty). server.Record has the same
// fields, so that the program converts one into the other without copying.
type Record struct {
	Conn       uint64 // connection: generation<<40 | counter
	InputEnd   uint64 // offset behind Input in the stream from the device
	AnswerEnd  uint64 // offset behind Answer in the stream to the device
	ReceivedAt int64  // Unix microseconds
	Flags      Flags
	Device     protocol.IMEI // 0 before the login
	UTCOffset  int32         // seconds east of UTC, as it was when the frame came
	Model      string        // operator's model as it was; of bytes a device did not ask for: who did. At most 64 bytes
	Input      []byte
	Answer     []byte
}

// Position is a place in the log: segment sequence number << 32 | byte offset
// in the segment. Positions of later records are greater. The zero Position is
// before the first record.
type Position uint64

// Segment returns the sequence number of the segment.
func (p Position) Segment() uint32 { return uint32(p >> 32) }

// Offset returns the byte offset in the segment.
func (p Position) Offset() uint32 { return uint32(p) }

// At makes a Position.
func At(segment, offset uint32) Position { return Position(segment)<<32 | Position(offset) }

// Reader yields the records of a log; spool.Reader is one.
type Reader interface {
	// Next fills rec with the record at the reader's place and returns where it
	// ends; io.EOF at limit. What rec points to holds until the next call.
	Next(limit Position, rec *Record) (Position, error)
	Close() error
}
