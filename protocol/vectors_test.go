package protocol_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/vectortest"
)

// decode goes the way of `gt06ctl decode --json`.
func decode(t *testing.T, v *vectortest.Vector) vectortest.Decoded {
	t.Helper()
	frame, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	var m protocol.Message
	var d protocol.Decoder
	s := protocol.Session{Model: v.Model}
	d.Decode(&m, frame, s)
	answers := protocol.AppendAnswer(nil, &m, frame, time.Unix(0, 0))
	var got vectortest.Decoded
	if err := json.Unmarshal(protocol.AppendJSON(nil, &m, s, answers), &got); err != nil {
		t.Fatalf("%s: %v", v.ID, err)
	}
	return got
}

func fromFile(t *testing.T, file string) func(each func(line []byte)) {
	t.Helper()
	return func(each func(line []byte)) { vectortest.Lines(t, file, each) }
}

func runVectors(t *testing.T, vectors func(each func(line []byte))) {
	t.Helper()
	var all, good, refused, undated int
	vectors(func(line []byte) {
		var v vectortest.Vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if v.Type == "" {
			frame, _ := hex.DecodeString(v.Hex)
			v.Header = v.Hex[:4]
			at := 3
			if v.Header != "7878" {
				at = 4
			}
			v.Type = fmt.Sprintf("%#02x", frame[at])
		}
		all++
		got := decode(t, &v)
		if len(v.Expected.Error) > 0 && !bytes.Equal(v.Expected.Error, []byte("null")) {
			// Traccar gives up and closes. Ours says what is wrong, and answers as
			// the kind is answered.
			refused++
			if got.Error == "" {
				t.Errorf("%s %s: Traccar gives up (%s), and nothing is wrong here", v.ID, v.Hex, v.Expected.Error)
			}
			if answered, of := len(got.Reply) > 0, kindIsAnswered(&v); answered != of {
				t.Errorf("%s %s: answered %v, its kind %v", v.ID, v.Hex, answered, of)
			}
			return
		}
		if strings.Contains(got.Error, "date") {
			// Traccar rolls impossible dates over; ours gives no time, and the rest.
			undated++
			if got.FixTime != nil || got.DeviceTime != nil && v.Model == "" { // some models send their own time beside the fix's
				t.Errorf("%s: a time from an impossible date", v.ID)
			}
			if p := v.Expected.Position; p != nil {
				p.FixTime, p.DeviceTime = nil, got.DeviceTime
			}
		}
		if diff := vectortest.Differences(&v, &got); len(diff) > 0 {
			t.Errorf("%s %s %s %s\n\t%s\n\terror %q", v.ID, v.Header, v.Type, v.Hex, strings.Join(diff, "\n\t"), got.Error)
			return
		}
		good++
	})
	t.Logf("%d of %d equal, %d of these but for an impossible date; %d are damaged", good, all, undated, refused)
	if good+refused != all || refused > all/8 {
		t.Errorf("%d of %d equal, %d damaged", good, all, refused)
	}
}

// kindIsAnswered says whether a whole frame of the same type is answered.
func kindIsAnswered(v *vectortest.Vector) bool {
	b, _ := hex.DecodeString(v.Hex)
	if v.Header == "7878" {
		b = protocol.AppendFrame(nil, b[3], b[4:max(4, len(b)-6)], 1)
	} else {
		b = protocol.AppendExtended(nil, b[4], b[5:max(5, len(b)-6)], 1)
	}
	var m protocol.Message
	new(protocol.Decoder).Decode(&m, b, protocol.Session{})
	return len(protocol.AppendAnswer(nil, &m, b, time.Unix(0, 0))) > 0
}

func TestCaptures(t *testing.T)  { runVectors(t, fromFile(t, "captures.jsonl")) }
func TestGenerated(t *testing.T) { runVectors(t, fromFile(t, "generated.jsonl")) }
func TestBuilt(t *testing.T) {
	runVectors(t, func(each func(line []byte)) { vectortest.Built(t, each) })
}
