package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
)

// A camera's photo is pulled part by part, over a kill of the server, and
// becomes one file that a row names.
func TestPhoto(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	d.drained()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	photo := bytes.Repeat([]byte("\xff\xd8a picture of a road\r\n\x78\x78"), 150)
	const id = 0x20e3acd3
	read := func(size int) []byte {
		t.Helper()
		b := make([]byte, size)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := c.Write(device.Build(device.Login, 1, 0, time.Now()).Bytes); err != nil {
		t.Fatal(err)
	}
	read(10)
	announce := []byte{26, 11, 24, 10, 0, 0, 5, 3, 0x10, 0x7d, 6, 8, 0x48, 0x23, 0xcb, 1, 0, 1}
	announce = binary.BigEndian.AppendUint32(announce, uint32(len(photo)))
	announce = binary.BigEndian.AppendUint32(announce, id)
	if _, err := c.Write(protocol.AppendFrame(nil, 0x35, announce, 1)); err != nil {
		t.Fatal(err)
	}
	parts := 0
	for got := 0; got < len(photo); parts++ {
		if parts == 2 {
			d.kill()
			d.start()
		}
		request := read(20)
		offset, size := int(binary.BigEndian.Uint32(request[8:])), int(binary.BigEndian.Uint16(request[12:]))
		if request[3] != 0x36 || binary.BigEndian.Uint32(request[4:]) != id || offset != got || size == 0 {
			t.Fatalf("request %x, want %d bytes on", request, got)
		}
		part := photo[offset:min(offset+size, len(photo))]
		content := binary.BigEndian.AppendUint32(nil, id)
		content = binary.BigEndian.AppendUint32(content, uint32(offset))
		content = binary.BigEndian.AppendUint16(content, uint16(len(part)))
		if _, err := c.Write(protocol.AppendExtended(nil, 0x36, append(content, part...), uint16(2+parts))); err != nil {
			t.Fatal(err)
		}
		got += len(part)
	}
	pause(100 * time.Millisecond)
	d.drained()
	sum := sha256.Sum256(photo)
	name := hex.EncodeToString(sum[:]) + ".jpg"
	b, err := os.ReadFile(filepath.Join(d.dir, "photos", name))
	if err != nil || !bytes.Equal(b, photo) {
		t.Errorf("%d of %d bytes, %v", len(b), len(photo), err)
	}
	var n int
	if err := openRows(t, d).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM device_events WHERE kind = 'photo' AND attributes LIKE ?", "%"+name+"%").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows name the photo, %v", n, err)
	}
	// From the log alone, into the same file.
	if err := os.RemoveAll(filepath.Join(d.dir, "photos")); err != nil {
		t.Fatal(err)
	}
	d.replay("replay", "--from", "2020-01-01", "--to", "2100-01-01")
	if b, err := os.ReadFile(filepath.Join(d.dir, "photos", name)); err != nil || !bytes.Equal(b, photo) {
		t.Errorf("after a replay: %d bytes, %v", len(b), err)
	}
	if strings.Contains(d.out.String(), `"level":"error"`) {
		t.Error("errors were logged")
	}
}
