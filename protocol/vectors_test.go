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

func runVectors(t *testing.T, file string) {
	t.Helper()
	var all, good, refused int
	vectortest.Lines(t, file, func(line []byte) {
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
			// Traccar gives up and closes. Ours answers and says what is wrong.
			refused++
			return
		}
		if strings.Contains(got.Error, "date") {
			// Traccar rolls impossible dates over; ours gives no time.
			refused++
			if got.FixTime != nil {
				t.Errorf("%s: a fix time from an impossible date", v.ID)
			}
			return
		}
		if diff := vectortest.Differences(&v, &got); len(diff) > 0 {
			t.Errorf("%s %s %s %s\n\t%s\n\terror %q", v.ID, v.Header, v.Type, v.Hex, strings.Join(diff, "\n\t"), got.Error)
			return
		}
		good++
	})
	t.Logf("%s: %d of %d equal, %d on purpose different", file, good, all, refused)
}

func TestCaptures(t *testing.T)  { runVectors(t, "captures.jsonl") }
func TestGenerated(t *testing.T) { runVectors(t, "generated.jsonl") }
