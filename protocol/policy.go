package protocol

import (
	"encoding/binary"
	"time"
)

// Policy says whose habit the answers follow. The forms are the same; it says
// whether a kind is answered at all.
type Policy uint8

// The policies.
const (
	// AnswerTraccar answers what the most used server answers: nearly all.
	// Devices accept it.
	AnswerTraccar Policy = iota
	// AnswerVendor answers what the documents ask for (PROTOCOL.md section 2):
	// logins, heartbeats, requests, and alarms whose language byte is not zero.
	AnswerVendor
	// AnswerNone is silence. A device drops its link after a login or heartbeat
	// that is not answered.
	AnswerNone
)

// ParsePolicy reads "traccar", "vendor" or "none".
func ParsePolicy(s string) (p Policy, ok bool) {
	switch s {
	case "traccar":
		return AnswerTraccar, true
	case "vendor":
		return AnswerVendor, true
	case "none":
		return AnswerNone, true
	}
	return 0, false
}

// AppendAnswerBy is AppendAnswer under a policy.
func AppendAnswerBy(p Policy, dst []byte, m *Message, frame []byte, now time.Time) []byte {
	switch p {
	case AnswerNone:
		return dst
	case AnswerVendor:
		return appendVendor(dst, m, frame, now)
	case AnswerTraccar:
	}
	return AppendAnswer(dst, m, frame, now)
}

func appendVendor(dst []byte, m *Message, frame []byte, now time.Time) []byte {
	start := len(dst)
	switch m.Kind {
	case KindLogin, KindHeartbeat, KindStatus, KindAddressRequest, KindPhoto:
		return AppendAnswer(dst, m, frame, now)
	case KindTimeRequest:
		// The documents echo the serial, where others send zero.
		dst = AppendAnswer(dst, m, frame, now)
		if at := len(dst) - trailer; at > start {
			binary.BigEndian.PutUint16(dst[at:], m.Serial)
			binary.BigEndian.PutUint16(dst[at+2:], CRC(dst[start+2:at+2]))
		}
		return dst
	case KindAlarm:
		if language := len(frame) - trailer - 1; language > 3 && frame[language] != 0 {
			return AppendAnswer(dst, m, frame, now)
		}
	default:
	}
	return dst
}
