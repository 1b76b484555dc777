package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"gt06/protocol"
	"gt06/storage"
)

// These are part of the format.
const (
	segmentMagic  = "GT06SP"
	headerSize    = 32
	recordMagic   = 0x36305447 // "GT06" read little-endian
	recordHead    = 12         // magic, crc, size
	recordFixed   = 52         // conn to input size
	maxModel      = 64
	maxRecordSize = 4 << 20 // a record is one frame and its answer; far below
)

var le = binary.LittleEndian //nolint:gochecknoglobals // a name

//nolint:gochecknoglobals // read-only table
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors that callers test for.
var (
	// ErrVersion: a segment was written by another version of the format.
	ErrVersion = errors.New("gt06/spool: unknown version of the format")
	// ErrNotWritable: the directory cannot be used.
	ErrNotWritable = errors.New("gt06/spool: directory is not writable")
	// ErrFull: there is no room for more; what is there is kept.
	ErrFull = errors.New("gt06/spool: no room")
	// ErrBroken: nothing can be made durable any more.
	ErrBroken = errors.New("gt06/spool: nothing can be made durable")
	// ErrTimeout: not durable within the time given.
	ErrTimeout = errors.New("gt06/spool: not durable in time")

	errNoSegment = errors.New("gt06/spool: not a segment")
)

// CorruptionError says where the log is damaged. It unwraps to the cause.
type CorruptionError struct {
	Segment uint32
	Offset  uint32
	Skipped int64 // bytes passed over
	Err     error
}

// Error implements error.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("gt06/spool: segment %d is damaged at byte %d, %d bytes skipped: %v", e.Segment, e.Offset, e.Skipped, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Err }

// segmentHeader begins a segment.
type segmentHeader struct {
	generation uint64
	number     uint32
	cut        uint32 // how much of segment cutOf is valid; 0: nothing is cut
	cutOf      uint32
}

func (h segmentHeader) bytes() []byte {
	b := []byte(segmentMagic)
	b = le.AppendUint16(b, version)
	b = le.AppendUint64(b, h.generation)
	b = le.AppendUint32(b, h.number)
	b = le.AppendUint32(b, h.cut)
	b = le.AppendUint32(b, h.cutOf)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseHeader(b []byte) (h segmentHeader, err error) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(segmentMagic)) {
		return h, errNoSegment
	}
	if v := le.Uint16(b[6:]); v != version {
		return h, fmt.Errorf("%w: %d, this program knows %d", ErrVersion, v, version)
	}
	if crc32.Checksum(b[:headerSize-4], castagnoli) != le.Uint32(b[headerSize-4:]) {
		return h, fmt.Errorf("%w: header checksum is wrong", errNoSegment)
	}
	return segmentHeader{generation: le.Uint64(b[8:]), number: le.Uint32(b[16:]), cut: le.Uint32(b[20:]), cutOf: le.Uint32(b[24:])}, nil
}

// appendRecord encodes r. Sizes are bounded by what a batch can hold.
func appendRecord(b []byte, r *storage.Record) []byte {
	start := len(b)
	model := r.Model[:min(len(r.Model), maxModel)]
	b = le.AppendUint32(b, recordMagic)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(recordFixed+len(model)+len(r.Input)+len(r.Answer)))
	b = le.AppendUint64(b, r.Conn)
	b = le.AppendUint64(b, r.InputEnd)
	b = le.AppendUint64(b, r.AnswerEnd)
	b = le.AppendUint64(b, uint64(r.ReceivedAt))
	b = le.AppendUint64(b, uint64(r.Device))
	b = le.AppendUint32(b, uint32(r.UTCOffset))
	b = append(b, r.Flags, byte(len(model)), 0, 0)
	b = le.AppendUint32(b, uint32(len(r.Input)))
	b = append(b, model...)
	b = append(b, r.Input...)
	b = append(b, r.Answer...)
	le.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli))
	return b
}

// Damage, as a reader meets it.
var (
	errMagic    = errors.New("no record begins here")
	errSize     = errors.New("the size is impossible")
	errTorn     = errors.New("the record is cut short")
	errChecksum = errors.New("the checksum is wrong")
)

// recordSize returns the size of the record at the head of b, header included.
func recordSize(b []byte) (int, error) {
	if len(b) < recordHead {
		return 0, errTorn
	}
	if le.Uint32(b) != recordMagic {
		return 0, errMagic
	}
	n := le.Uint32(b[8:])
	if n < recordFixed || n > maxRecordSize {
		return 0, errSize
	}
	return recordHead + int(n), nil
}

// parseRecord decodes the record at the head of b. Its slices point into b;
// models is a cache of the strings.
func parseRecord(b []byte, r *storage.Record, models map[string]string) (size int, err error) {
	size, err = recordSize(b)
	if err != nil {
		return 0, err
	}
	if len(b) < size {
		return 0, errTorn
	}
	b = b[:size]
	if crc32.Checksum(b[8:], castagnoli) != le.Uint32(b[4:]) {
		return 0, errChecksum
	}
	f := b[recordHead:]
	model, input := int(f[45]), int(le.Uint32(f[48:]))
	body := f[recordFixed:]
	if model+input > len(body) || input > math.MaxInt32 {
		return 0, errSize
	}
	*r = storage.Record{
		Conn: le.Uint64(f), InputEnd: le.Uint64(f[8:]), AnswerEnd: le.Uint64(f[16:]),
		ReceivedAt: int64(le.Uint64(f[24:])),
		Device:     protocol.IMEI(le.Uint64(f[32:])),
		UTCOffset:  int32(le.Uint32(f[40:])),
		Flags:      f[44],
		Input:      body[model : model+input : model+input],
		Answer:     body[model+input:],
	}
	if model > 0 {
		name, known := models[string(body[:model])]
		if !known {
			name = string(body[:model])
			models[name] = name
		}
		r.Model = name
	}
	return size, nil
}
