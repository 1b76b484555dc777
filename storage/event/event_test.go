package event_test

import (
	"encoding/hex"
	"testing"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
)

// One Message is used for all records: rows must not point into it.
func TestRowsKeepNothingOfTheMessage(t *testing.T) {
	t.Parallel()
	var rows event.Rows
	rows.Reset()
	var m protocol.Message
	var d protocol.Decoder
	content := []byte{26, 11, 24, 10, 0, 0, 0xc9, 2, 0x7a, 0xc8, 0x18, 0x0c, 0x46, 0x58, 0x60, 0, 0x14, 0, 1, 0xcc, 0, 0x28, 0, 0x7d, 0, 0, 0, 0, 0, 0, 0x1f, 0x71, 1, 2, 0}
	for _, altitude := range []byte{100, 200} {
		b := protocol.AppendFrame(nil, 0x31, append(append([]byte{}, content...), 0, altitude), 1)
		rec := storage.Record{Device: 0x490154203237518, ReceivedAt: 1_795_600_000_000_000, Input: b}
		d.Decode(&m, b, protocol.Session{})
		if m.Has&protocol.HasAltitude == 0 || m.Error != "" {
			t.Fatalf("%s: %+v", hex.EncodeToString(b), m.Error)
		}
		event.Build(&rows, &rec, 1, &m)
	}
	if len(rows.Positions) != 2 || *rows.Positions[0].Altitude != 100 || *rows.Positions[1].Altitude != 200 {
		t.Errorf("altitudes %v and %v", *rows.Positions[0].Altitude, *rows.Positions[1].Altitude)
	}
}
