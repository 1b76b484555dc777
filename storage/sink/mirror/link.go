package mirror

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"time"

	"gt06/protocol"
	"gt06/storage"
)

// link is a device's connection to the target.
type link struct {
	imei     protocol.IMEI
	turn     uint64 // of its last batch; guarded by Mirror.mu
	conn     net.Conn
	stream   uint64 // the device's connection that it follows
	login    []byte
	greeting []byte // the answer to it
	rest     []byte // read, and no whole frame yet
	recent   []uint16
	refused  time.Time // left alone until then
	pause    time.Duration
}

// errSilence means that no frame came in time.
var errSilence = errors.New("no answer in time")

// remember keeps the serials of the last frames.
func (l *link) remember(serial uint16) {
	const most = 16
	l.recent = append(l.recent, serial)
	if len(l.recent) > most {
		l.recent = slices.Delete(l.recent, 0, len(l.recent)-most)
	}
}

func (l *link) known(serial uint16) bool { return slices.Contains(l.recent, serial) }

// deadline ends reading and writing with the time or the context. The returned
// function must be called.
func (l *link) deadline(ctx context.Context, wait time.Duration) (stop func() bool) {
	_ = l.conn.SetDeadline(time.Now().Add(wait)) // a closed connection says so when it is used
	conn := l.conn
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

func (l *link) write(ctx context.Context, b []byte, wait time.Duration) error {
	defer l.deadline(ctx, wait)()
	_, err := l.conn.Write(b)
	return err
}

// read returns the next frame of the target. Like is what it may be: of the
// forms that cannot be cut. Without a wait it looks at what has come.
func (l *link) read(ctx context.Context, like []byte, wait time.Duration) ([]byte, error) {
	const glance, most = time.Millisecond, 4 << 10
	defer l.deadline(ctx, max(wait, glance))()
	b := make([]byte, 512)
	for {
		if n := len(like); n > 0 && bytes.HasPrefix(l.rest, like) {
			l.rest = l.rest[n:]
			return like, nil
		}
		cut := protocol.Framer{}.Next(l.rest, true)
		l.rest = l.rest[cut.Skip:]
		if cut.Len > 0 {
			frame := slices.Clone(l.rest[:cut.Len])
			l.rest = l.rest[cut.Len:]
			return frame, nil
		}
		if len(l.rest) > most {
			l.rest = nil // no frame a server sends is so long
		}
		n, err := l.conn.Read(b)
		l.rest = append(l.rest, b[:n]...)
		if n == 0 && err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errSilence
			}
			return nil, err
		}
	}
}

// loginOf makes the login of a device whose own was not seen: IMEI, and the time
// zone that its frames were decoded with.
func loginOf(rec *storage.Record) []byte {
	const typeLogin, anyType, west = 0x01, 0x3608, 8
	minutes, sign := int(rec.UTCOffset)/60, uint16(0)
	if minutes < 0 {
		minutes, sign = -minutes, west
	}
	zone := uint16(minutes/60*100+minutes%60)<<4 | sign
	content := rec.Device.AppendBCD(nil)
	content = binary.BigEndian.AppendUint16(content, anyType)
	content = binary.BigEndian.AppendUint16(content, zone)
	return protocol.AppendFrame(nil, typeLogin, content, 1)
}

// tail is what is behind the content of a frame: serial, checksum, end.
const tail = 2 + 2 + 2

// serialOf returns the serial of a frame, 0: it is too short to have one.
func serialOf(frame []byte) uint16 {
	if len(frame) < tail+4 {
		return 0
	}
	return binary.BigEndian.Uint16(frame[len(frame)-tail:])
}

// typeOf returns the type of a frame.
func typeOf(frame []byte) byte {
	at := 3
	if len(frame) > 0 && frame[0] == 0x79 {
		at = 4
	}
	if len(frame) <= at {
		return 0
	}
	return frame[at]
}

// answers says whether a frame is the answer that ours is.
func answers(got, ours []byte) bool {
	return typeOf(got) == typeOf(ours) && (serialOf(got) == serialOf(ours) || timely(ours))
}

// alike says whether two answers say the same.
func alike(got, ours []byte) bool {
	return bytes.Equal(got, ours) || timely(ours) && typeOf(got) == typeOf(ours)
}

// timely says whether an answer is of a moment: it differs from server to server.
func timely(answer []byte) bool {
	const typeTime = 0x8a
	return typeOf(answer) == typeTime
}
