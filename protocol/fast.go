package protocol

import "encoding/binary"

// The four kinds that make up nearly all traffic, in their plain form, written
// by hand: the table decodes them as well, and FuzzFastEqualsTable asks that
// both say the same. Whatever is not plain (a model, another length, an
// impossible date or place) is left to the table.
const (
	fastLocation12  = 0x12<<8 | 0x1f // GPS block, cell
	fastLocation22  = 0x22<<8 | 0x22 // and ignition, event, re-upload
	fastHeartbeat13 = 0x13<<8 | 0x0a
	fastAlarm26     = 0x26<<8 | 0x25 // GPS block, cell with its length, status
)

// fast decodes a plain frame, or reports that it is none; what is in m then
// means nothing.
func fast(m *Message, frame []byte, s *Session) bool {
	const shortest = 15
	if s.Model != "" || len(frame) < shortest || frame[0] != headerBasic || len(frame) != int(frame[2])+5 {
		return false
	}
	form := int(frame[3])<<8 | int(frame[2])
	b := frame[4 : len(frame)-trailer]
	switch form {
	case fastLocation12, fastLocation22:
		if !fastGPS(m, frame, b, s) {
			return false
		}
		m.Kind = KindLocation
		m.fastCell(b[18:])
		if form == fastLocation22 {
			m.fastUpload(b[26:])
		}
	case fastAlarm26:
		const plain = 9
		if b[18] == 0 || b[18] > plain || !fastGPS(m, frame, b, s) {
			return false
		}
		m.Kind = KindAlarm
		m.fastCell(b[19:])
		m.report(b[27:31], anyModel)
	case fastHeartbeat13:
		m.begin(frame)
		m.Kind = KindHeartbeat
		m.report(b, anyModel)
	default:
		return false
	}
	return true
}

// begin resets m and takes what is around the content.
func (m *Message) begin(frame []byte) {
	m.reset()
	end := len(frame) - trailer
	m.Type = frame[3]
	m.Serial = binary.BigEndian.Uint16(frame[end:])
	m.Has = HasSerial | HasCRC
	m.CRCOK = CRC(frame[2:end+2]) == binary.BigEndian.Uint16(frame[end+2:])
}

// fastGPS takes the block of 18 bytes, and the country behind it only when its
// network has one byte.
func fastGPS(m *Message, frame, b []byte, s *Session) bool {
	cell := b[18:]
	if frame[3] == fastAlarm26>>8 {
		cell = b[19:]
	}
	if cell[0]&0x80 != 0 {
		return false
	}
	m.begin(frame)
	return m.gps(b, s.UTCOffset)
}

// gps takes a plain block. It reports false, and has done nothing, when the
// block is not plain.
func (m *Message) gps(b []byte, offset int32) bool {
	t, ok := civil(int(b[0]), int(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5]))
	north, east := binary.BigEndian.Uint32(b[7:]), binary.BigEndian.Uint32(b[11:])
	const most = 60 * 30000
	if !ok || north > 90*most || east > 180*most {
		return false
	}
	t -= int64(offset)
	m.DeviceTime, m.FixTime = t, t
	m.Latitude, m.Longitude = float64(north)/60/30000, float64(east)/60/30000
	m.SpeedKMH = float64(b[15])
	w := binary.BigEndian.Uint16(b[16:])
	m.Course, m.Valid = float64(w&0x3ff), w&(1<<12) != 0
	if w&(1<<10) == 0 {
		m.Latitude = -m.Latitude
	}
	if w&(1<<11) != 0 {
		m.Longitude = -m.Longitude
	}
	m.Has |= HasDeviceTime | HasFixTime | HasFix
	m.setInt("sat", int64(b[6]&0xf))
	if w&(1<<14) != 0 {
		m.setBool("ignition", w&(1<<15) != 0)
	}
	return true
}

func (m *Message) fastCell(b []byte) {
	m.Cells = append(m.Cells, Cell{
		MCC: binary.BigEndian.Uint16(b), MNC: uint16(b[2]), LAC: uint32(binary.BigEndian.Uint16(b[3:])), CID: uint64(b[5])<<16 | uint64(b[6])<<8 | uint64(b[7]),
	})
}

func (m *Message) fastUpload(b []byte) {
	m.setBool("ignition", b[0] > 0)
	m.setInt("event", int64(b[1]))
	m.setBool("archive", b[2] > 0)
}
