package protocol

import "bytes"

const (
	// headerBasic and headerExtended begin a frame with one or two length bytes
	// (PROTOCOL.md section 1).
	headerBasic    = 0x78
	headerExtended = 0x79
	// minBasic is the shortest frame that is cut: header, length, type and
	// tail. Devices send such frames without serial and checksum too
	// (PROTOCOL.md section 14, the zero-length forms).
	minBasic    = 6
	minExtended = 7
	// MaxFrame is the longest frame: 65535 bytes counted by the length field,
	// and header, length and tail.
	MaxFrame = 65535 + 2 + 2 + 2
	// maxHealed is how far the end of a frame with a lying length is searched:
	// the frames of that kind seen in the field are below it.
	maxHealed = 512
)

// Framer cuts a byte stream into whole frames and resynchronises after
// rubbish. It keeps no state: each call begins at the first byte that was not
// taken yet.
type Framer struct{}

// Cut says what stands at the head of the input: Skip bytes that belong to no
// frame, then a frame of Len bytes. Len 0: no whole frame yet; the Skip bytes
// can be taken, the rest must wait for more.
type Cut struct{ Skip, Len int }

// Next looks at the head of b. The declared length is waited for first: 78 78,
// 79 79 and 0D 0A inside a frame mean nothing. Only when no tail stands where
// the length says is it a lie or the header was junk. When not patient, the
// bytes have waited long for their rest: a whole frame with a right checksum
// behind an unfinished header is believed instead of it.
func (Framer) Next(b []byte, patient bool) Cut {
	at := 0
	for {
		n := header(b[at:])
		if n < 0 {
			return Cut{Skip: len(b)}
		}
		at += n
		size, state := measure(b[at:])
		switch state {
		case whole:
			// A false header may claim as much as has come by now, tail and all.
			if b[at+2] == headerBasic || b[at+2] == headerExtended {
				if c := inside(b, at, size, true); c.Len > 0 && proven(b[at:]) == 0 {
					return c
				}
			}
			return Cut{Skip: at, Len: size}
		case unfinished:
			if c := inside(b, at, size, patient); c.Len > 0 {
				return c
			}
			if !patient && bytes.HasSuffix(b, tail) {
				if n := healed(b[at:]); n > 0 {
					return Cut{Skip: at, Len: n}
				}
			}
			return Cut{Skip: at}
		case wrong:
			if _, state := counted(b[at:]); patient && state == unfinished {
				return Cut{Skip: at}
			}
			if n := healed(b[at:]); n > 0 {
				return Cut{Skip: at, Len: n}
			}
			if patient && len(b)-at < maxHealed && nextTail(b[at:]) == 0 {
				return Cut{Skip: at} // its tail may be on the way
			}
		}
		at++
	}
}

// header returns where the next header may begin, or -1. Half a header at the
// end counts.
func header(b []byte) int {
	for at := range b {
		if b[at] != headerBasic && b[at] != headerExtended {
			continue
		}
		if at+1 == len(b) || b[at+1] == b[at] {
			return at
		}
	}
	return -1
}

// Behind returns the bytes behind a frame that is whole by its length: none in
// what a Framer cut, but frames come from elsewhere too.
func Behind(frame []byte) []byte {
	if size, state := measure(frame); state == whole {
		return frame[size:]
	}
	return nil
}

type frameState uint8

const (
	whole      frameState = iota // all of it is here and it ends with a tail
	unfinished                   // more must come
	wrong                        // no tail where the length says
)

// measure takes the length field at its word.
func measure(b []byte) (size int, state frameState) {
	switch {
	case len(b) < 3:
		return 0, unfinished
	case b[0] == headerBasic:
		size = int(b[2]) + 5
	case len(b) < 4:
		return 0, unfinished
	default:
		size = (int(b[2])<<8 | int(b[3])) + 6
	}
	if size < minBasic || b[0] == headerExtended && size < minExtended {
		return 0, short(b)
	}
	if len(b) < size {
		return size, unfinished
	}
	if b[size-2] != '\r' || b[size-1] != '\n' {
		return size, wrong
	}
	return size, whole
}

// TypeOf returns the message type of a whole frame, 0 of less.
func TypeOf(frame []byte) byte {
	at := 3
	if len(frame) > 0 && frame[0] == headerExtended {
		at = 4
	}
	if len(frame) <= at {
		return 0
	}
	return frame[at]
}

// short decides on a length that no frame can have.
func short(b []byte) frameState {
	if len(b) < minBasic {
		return unfinished
	}
	return wrong
}

//nolint:gochecknoglobals // read-only
var tail = []byte("\r\n")

// healed returns the size of a frame whose length field lies, or 0: it ends
// with the next tail, unless a frame that proves itself begins before that.
func healed(b []byte) int {
	if size, state := counted(b); state == whole {
		return size
	}
	size := nextTail(b)
	for at := 1; at+minBasic <= size; at++ {
		if proven(b[at:]) > 0 {
			return 0
		}
	}
	return size
}

// nextTail returns the size of what ends with the next tail that can end a
// frame, or 0.
func nextTail(b []byte) int {
	least := minBasic
	if b[0] == headerExtended {
		least = minExtended
	}
	if len(b) < least {
		return 0
	}
	n := bytes.Index(b[least-2:min(len(b), maxHealed)], tail)
	if n < 0 {
		return 0
	}
	return least + n
}

// counted measures the forms that put the number of access points where the
// length belongs (types 0x17 and 0x69, PROTOCOL.md section 13).
func counted(b []byte) (size int, state frameState) {
	const time, accessPoint, cell = 6, 7, 5
	if len(b) < 4 || b[0] != headerBasic || b[3] != typeWiFi && b[3] != typeWiFi2 {
		return 0, wrong
	}
	at := 4 + time + accessPoint*int(b[2])
	if at >= len(b) {
		return 0, unfinished
	}
	size = at + 1 + 3 + cell*int(b[at]) + len(tail)
	switch {
	case size > len(b):
		return 0, unfinished
	case !bytes.HasSuffix(b[:size], tail):
		return 0, wrong
	}
	return size, whole
}

// proven returns the size of the whole frame with a right checksum at the head
// of b, or 0.
func proven(b []byte) int {
	if len(b) < 10 || b[0] != b[1] || b[0] != headerBasic && b[0] != headerExtended {
		return 0
	}
	size, state := measure(b)
	if state != whole || size < 10 {
		return 0
	}
	if CRC(b[2:size-4]) != uint16(b[size-4])<<8|uint16(b[size-3]) {
		return 0
	}
	return size
}

// inside looks for a frame behind an unfinished header. One byte on is always
// tried: junk that ends in 0x78 makes a false header 78 78 78. Further in it
// is tried when the rest does not come.
func inside(b []byte, at, size int, patient bool) Cut {
	last := at + 2
	if !patient {
		last = len(b)
	}
	for i := at + 1; i <= last && i+10 <= len(b); i++ {
		if n := proven(b[i:]); n > 0 && (!patient || size == 0 || i+n <= at+size) {
			return Cut{Skip: i, Len: n}
		}
	}
	return Cut{}
}
