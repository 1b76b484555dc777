package protocol

import (
	"encoding/binary"
	"fmt"
	"time"
)

// AppendAnswer appends what a server answers to a frame that was decoded into
// m: nothing, one frame or more. The forms are the layouts'; now is used by
// time requests only. Nothing is answered to a login without an IMEI.
func AppendAnswer(dst []byte, m *Message, frame []byte, now time.Time) []byte {
	if len(frame) < 4 {
		return dst // no type to answer
	}
	length := int(frame[2])
	if m.Extended {
		length = length<<8 | int(frame[3])
	}
	switch find(m.Extended, m.Type, length, anyModel).answer {
	case answerSame:
		serial := serialOf(frame)
		if at := m.echo; at > 0 && at+2 <= len(frame) {
			serial = binary.BigEndian.Uint16(frame[at:])
		}
		return AppendFrame(dst, m.Type, nil, serial)
	case answerExtended:
		return AppendExtended(dst, m.Type, nil, serialOf(frame))
	case answerTime:
		t := now.UTC()
		content := [6]byte{byte(t.Year() - 2000), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second())}
		return AppendFrame(dst, typeTime, content[:], 0)
	case answerAddress:
		return AppendExtended(dst, typeAddress, emptyAddress, 0)
	case answerWiFi:
		const timeLen = 6
		timeAt := 4
		if m.Extended {
			timeAt++
		}
		if len(frame) < timeAt+timeLen {
			return dst
		}
		dst = append(dst, headerBasic, headerBasic, 0, m.Type)
		dst = append(dst, frame[timeAt:timeAt+timeLen]...)
		return append(dst, tail...)
	case answerPhoto:
		return appendPhotoRequest(dst, m.Photo.ID, 0, m.Photo.Total)
	case answerPhotoNext:
		return appendNextPart(dst, &m.Photo)
	case answerNone:
	}
	return dst
}

// emptyAddress is a length, a server flag and the address "unknown" in the form
// the GK310 takes.
//
//nolint:gochecknoglobals // read-only
var emptyAddress = []byte("\x0b\x00\x00\x00\x00NA&&NA&&0##")

// photoPart is how much of a photo is asked for at a time.
const photoPart = 1024

// appendPhotoRequest asks for a part of a photo: id, offset, size (PROTOCOL.md
// section 13).
func appendPhotoRequest(dst []byte, id, offset, left uint32) []byte {
	var request [10]byte
	binary.BigEndian.PutUint32(request[:], id)
	binary.BigEndian.PutUint32(request[4:], offset)
	binary.BigEndian.PutUint16(request[8:], uint16(min(left, photoPart)))
	return AppendFrame(dst, typePhotoData, request[:], 0)
}

// appendNextPart asks for what comes behind a part. Who does not know how large
// the photo is, because another server heard its announcement, asks until a
// part comes that is not full.
func appendNextPart(dst []byte, p *Photo) []byte {
	next := p.Place + uint32(p.Len)
	switch {
	case p.Total > next:
		return appendPhotoRequest(dst, p.ID, next, p.Total-next)
	case p.Total == 0 && p.Len == photoPart:
		return appendPhotoRequest(dst, p.ID, next, photoPart)
	}
	return dst
}

// serialOf returns the serial to echo: the two bytes before checksum and tail,
// in a frame too short to have one as well, because that is what devices that
// send such frames were answered with.
func serialOf(frame []byte) uint16 {
	if len(frame) < trailer {
		return 0
	}
	return binary.BigEndian.Uint16(frame[len(frame)-trailer:])
}

// AppendFrame appends a 78 78 frame. The content has at most 250 bytes.
func AppendFrame(dst []byte, typ byte, content []byte, serial uint16) []byte {
	start := len(dst)
	dst = append(dst, headerBasic, headerBasic, byte(len(content)+5), typ)
	return seal(append(dst, content...), start, serial)
}

// AppendExtended appends a 79 79 frame. The content has at most 65530 bytes.
func AppendExtended(dst []byte, typ byte, content []byte, serial uint16) []byte {
	start := len(dst)
	dst = append(dst, headerExtended, headerExtended)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(content)+5))
	return seal(append(append(dst, typ), content...), start, serial)
}

func seal(dst []byte, start int, serial uint16) []byte {
	dst = binary.BigEndian.AppendUint16(dst, serial)
	dst = binary.BigEndian.AppendUint16(dst, CRC(dst[start+2:]))
	return append(dst, tail...)
}

// AppendCommand appends a command to a device (0x80): the server flag comes
// back in its reply. language adds the word for English, which some firmwares
// want. The text has at most 245 bytes, 243 with the language; a longer one is
// ErrTooLong, because its length byte would lie.
func AppendCommand(dst []byte, serverFlag uint32, command string, language bool) ([]byte, error) {
	const flag, most = 4, 255 - 5 - 1
	content := make([]byte, 0, most+1)
	size := flag + len(command)
	total := size
	if language {
		total += 2
	}
	if total > most {
		return dst, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(command), most-flag-(total-size))
	}
	content = append(content, byte(size))
	content = binary.BigEndian.AppendUint32(content, serverFlag)
	content = append(content, command...)
	if language {
		content = append(content, 0, 2)
	}
	return AppendFrame(dst, typeCommand, content, 0), nil
}

// EachFrame calls fn for each frame of answers that lie one behind the other.
func EachFrame(answers []byte, fn func(frame []byte)) {
	for len(answers) > 0 {
		size, state := measure(answers)
		if state != whole {
			// The access point answer has no length.
			size = 12
		}
		size = min(size, len(answers))
		fn(answers[:size])
		answers = answers[size:]
	}
}
