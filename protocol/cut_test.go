package protocol_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/vectortest"
)

// TestEveryFrameCutEverywhere takes every frame there is and leaves away the
// end, byte by byte: of the frame, and of its content with what follows it set
// right again. What is decoded does not depend on the frame before, every
// answer consists of whole frames, and the dump names each byte once.
func TestEveryFrameCutEverywhere(t *testing.T) {
	t.Parallel()
	var frames [][]byte
	models := map[int]string{}
	add := func(line []byte) {
		var v struct{ Hex, Model, Group string }
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(v.Group, "mutated") {
			return // damaged already
		}
		models[len(frames)] = v.Model
		frames = append(frames, unhex(t, v.Hex))
	}
	for _, p := range printed {
		frames = append(frames, unhex(t, p.Hex))
	}
	vectortest.Built(t, add)
	for _, file := range []string{"captures.jsonl", "generated.jsonl"} {
		fromFile(t, file)(add)
	}
	c := cutting{t: t}
	for n, frame := range frames {
		begin, build := 4, protocol.AppendFrame
		if len(frame) > 0 && frame[0] == 0x79 {
			begin, build = 5, protocol.AppendExtended
		}
		s := protocol.Session{Model: models[n], UTCOffset: 3600}
		for end := len(frame) - 1; end >= begin; end-- {
			c.decode(frame[:end], s)
			if end <= len(frame)-6 {
				c.decode(build(nil, frame[begin-1], frame[begin:end], 7), s)
			}
		}
	}
}

// cutting holds what was used for the frames before.
type cutting struct {
	t        *testing.T
	d, other protocol.Decoder
	used     protocol.Message
}

func (c *cutting) decode(frame []byte, s protocol.Session) {
	c.t.Helper()
	var fresh protocol.Message
	c.other.Decode(&fresh, frame, s)
	c.d.Decode(&c.used, frame, s)
	answers := protocol.AppendAnswer(nil, &c.used, frame, time.Unix(0, 0))
	a, b := protocol.AppendJSON(nil, &c.used, s, answers), protocol.AppendJSON(nil, &fresh, s, answers)
	if !bytes.Equal(a, b) {
		c.t.Fatalf("%x: decoded behind other frames\n%s\nalone\n%s", frame, a, b)
	}
	whole := 0
	protocol.EachFrame(answers, func(b []byte) { whole += len(b) })
	if whole != len(answers) {
		c.t.Fatalf("%x: the answer %x is not whole frames", frame, answers)
	}
	at := 0
	for _, r := range c.d.Explain(frame, s) {
		if r.Offset != at || r.Len <= 0 || r.Name == "" {
			c.t.Fatalf("%x: %+v begins at %d, want %d", frame, r, r.Offset, at)
		}
		at += r.Len
	}
	if at != len(frame) {
		c.t.Fatalf("%x: named to %d of %d bytes", frame, at, len(frame))
	}
}
