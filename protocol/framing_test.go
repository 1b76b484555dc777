package protocol_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"gt06/protocol"
	"gt06/protocol/vectortest"
)

// frames cuts a stream that arrives in chunks; at its end nothing more comes.
func frames(chunks [][]byte) (cut []string) {
	var buf []byte
	var f protocol.Framer
	drain := func(patient bool) {
		for len(buf) > 0 {
			c := f.Next(buf, patient)
			if c.Len > 0 {
				cut = append(cut, hex.EncodeToString(buf[c.Skip:c.Skip+c.Len]))
			}
			buf = buf[c.Skip+c.Len:]
			if c.Len == 0 {
				return
			}
		}
	}
	for _, chunk := range chunks {
		buf = append(buf, chunk...)
		drain(true)
	}
	drain(false)
	return cut
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFramingVectors asks that every frame Traccar cuts and that proves itself
// (length and checksum right) is cut here too, and counts the streams that are
// cut alike.
func TestFramingVectors(t *testing.T) {
	t.Parallel()
	all, equal := 0, 0
	vectortest.Lines(t, "framing.jsonl", func(line []byte) {
		var v struct {
			ID     string     `json:"id"`
			Chunks []string   `json:"chunks"`
			Frames [][]string `json:"frames"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		all++
		chunks := make([][]byte, 0, len(v.Chunks))
		for _, c := range v.Chunks {
			chunks = append(chunks, unhex(t, c))
		}
		got, want := frames(chunks), slices.Concat(v.Frames...)
		if slices.Equal(got, want) {
			equal++
			return
		}
		onPurpose(t, v.ID, got, want)
	})
	t.Logf("%d of %d streams are cut as Traccar cuts them", equal, all)
}

// onPurpose names the reason of each difference to Traccar's cuts, and fails on
// one that has none: what it cuts and ours does not is no whole frame, and what
// only ours cuts is one.
func onPurpose(t *testing.T, id string, got, want []string) {
	t.Helper()
	reasons := map[string]int{}
	for _, w := range want {
		if !slices.Contains(got, w) {
			reasons[wrongCut(unhex(t, w))]++
		}
	}
	for _, g := range got {
		if slices.Contains(want, g) {
			continue
		}
		if b := unhex(t, g); declared(b) == len(b) {
			reasons["a whole frame that Traccar loses"]++
		} else {
			reasons["a frame whose length lies, without the junk around it"]++
			if !strings.HasSuffix(g, "0d0a") || b[0] != b[1] {
				t.Errorf("%s: cut %s, which is no frame", id, g)
			}
		}
	}
	delete(reasons, "")
	t.Logf("%s: %v", id, reasons)
	if reasons["lost"] > 0 {
		t.Errorf("%s: got %s, want %s", id, got, want)
	}
}

// wrongCut says why a cut of Traccar's is not one of ours (PROTOCOL.md section
// 14, items 2 to 4).
func wrongCut(b []byte) string {
	switch size := declared(b); {
	case size == 0:
		return "it begins with junk"
	case size > len(b):
		return "it is cut at a CR LF inside"
	case size < len(b):
		return "it has junk or other frames behind its length"
	}
	return "lost"
}

// declared returns the size a frame says it has, 0 when it is none.
func declared(b []byte) int {
	switch {
	case len(b) >= 4 && b[0] == 0x78 && b[1] == 0x78:
		return int(b[2]) + 5
	case len(b) >= 5 && b[0] == 0x79 && b[1] == 0x79:
		return int(b[2])<<8 + int(b[3]) + 6
	}
	return 0
}

// Times are read in the zone of the login before them.
func TestSessionsAreDecodedInTheirZone(t *testing.T) {
	t.Parallel()
	compared := 0
	vectortest.Lines(t, "sessions.jsonl", func(line []byte) {
		var v struct {
			ID     string  `json:"id"`
			Zone   *string `json:"device_timezone"`
			Result []struct {
				Frames []json.RawMessage `json:"frames"`
			} `json:"result"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		if v.Zone != nil {
			return // the operator's: devices.utc_offset_s, not the frame's
		}
		var s protocol.Session
		for _, r := range v.Result {
			for _, raw := range r.Frames {
				var f struct {
					Frame     string   `json:"frame"`
					Responses []string `json:"responses"`
				}
				var w vectortest.Vector
				if err := errors.Join(json.Unmarshal(raw, &f), json.Unmarshal(raw, &w.Expected)); err != nil {
					t.Fatal(err)
				}
				frame := unhex(t, f.Frame)
				if c := new(protocol.Framer).Next(frame, true); c.Skip > 0 || c.Len != len(frame) || declared(frame) != len(frame) {
					return // cut out of the middle: what follows is read in its light
				}
				w.TimeDependent, w.Response = true, nil // TestDialoguesThroughTheSocket compares the answers
				var m protocol.Message
				new(protocol.Decoder).Decode(&m, frame, s)
				if m.Has&protocol.HasIMEI != 0 {
					s = protocol.Session{IMEI: m.IMEI, UTCOffset: m.UTCOffset}
				}
				if len(w.Expected.Error) > 0 {
					continue
				}
				var got vectortest.Decoded
				if err := json.Unmarshal(protocol.AppendJSON(nil, &m, s, nil), &got); err != nil {
					t.Fatal(err)
				}
				if diff := vectortest.Differences(&w, &got); len(diff) > 0 {
					t.Errorf("%s %s: %s", v.ID, f.Frame, strings.Join(diff, "; "))
				}
				compared++
			}
		}
	})
	if compared < 80 {
		t.Errorf("only %d frames", compared)
	}
	t.Logf("%d frames", compared)
}

func TestSessionVectors(t *testing.T) {
	t.Parallel()
	all, equal := 0, 0
	vectortest.Lines(t, "sessions.jsonl", func(line []byte) {
		var v struct {
			ID     string   `json:"id"`
			Name   string   `json:"name"`
			Chunks []string `json:"chunks"`
			Result []struct {
				Frames []struct {
					Frame string `json:"frame"`
				} `json:"frames"`
			} `json:"result"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		all++
		var chunks [][]byte
		var want []string
		for _, c := range v.Chunks {
			chunks = append(chunks, unhex(t, c))
		}
		for _, r := range v.Result {
			for _, f := range r.Frames {
				want = append(want, f.Frame)
			}
		}
		got := frames(chunks)
		if slices.Equal(got, want) {
			equal++
			return
		}
		onPurpose(t, v.ID+" "+v.Name, got, want)
	})
	t.Logf("%d of %d sessions are cut as Traccar cuts them", equal, all)
}

const location = "787822220f0c1d023305c9027ac8180c46586000140001cc00287d001f71000001000820860d0a"

func TestFramerAtEverySplit(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{
		"plain":               {1, 2, 3, 4},
		"headers inside":      {0x78, 0x78, 0x05, 0x01, 0x79, 0x79, 0, 5},
		"tail inside":         {1, '\r', '\n', 2, '\r', '\n'},
		"a whole frame":       unhex(t, location),
		"header at the end":   {1, 2, 0x78, 0x78},
		"ends with half tail": {1, 2, '\r'},
	} {
		for _, frame := range [][]byte{protocol.AppendFrame(nil, 0x9b, content, 0x7878), protocol.AppendExtended(nil, 0x9b, content, 0x0d0a)} {
			stream := slices.Concat(frame, unhex(t, location), frame)
			want := []string{hex.EncodeToString(frame), location, hex.EncodeToString(frame)}
			for at := range stream {
				if got := frames([][]byte{stream[:at], stream[at:]}); !slices.Equal(got, want) {
					t.Fatalf("%s, split at %d: got %v, want %v", name, at, got, want)
				}
			}
			bytewise := make([][]byte, 0, len(stream))
			for i := range stream {
				bytewise = append(bytewise, stream[i:i+1])
			}
			if got := frames(bytewise); !slices.Equal(got, want) {
				t.Fatalf("%s, byte by byte: got %v", name, got)
			}
		}
	}
}

func TestFramerResynchronises(t *testing.T) {
	t.Parallel()
	for name, junk := range map[string]string{
		"nothing": "", "one header byte": "78", "the header trap": "787878", "stray CR LF": "0d0a", "CR LF twice": "0d0a0d0a",
		"HTTP": hex.EncodeToString([]byte("GET / HTTP/1.1\r\nHost: gt06\r\n\r\n")), "TLS hello": "160301020001000100fc0303",
		"length 0": "787800", "length 0, long": "79790000", "length 255": "7878ff", "length 65535": "7979ffff", "extended trap": "797979",
		"half a frame": location[:40], "a frame cut short": location[:len(location)-2],
	} {
		stream := unhex(t, junk+location+location)
		for at := range stream {
			got := frames([][]byte{stream[:at], stream[at:]})
			n := 0
			for _, f := range got {
				if f == location {
					n++
				}
			}
			if n != 2 {
				t.Fatalf("%s, split at %d: %d of 2 frames survive: %v", name, at, n, got)
			}
		}
	}
}

// What is cut from the head of a stream, byte for byte.
func TestCuts(t *testing.T) {
	t.Parallel()
	const (
		date  = "241125101112"
		beat  = "78780a134004040001000fdcee0d0a"
		ap    = "a0b10d0ae4f53d" // with a tail inside
		cells = "0201cc00" + "287d1f713e" + "287d1f723f"
	)
	long := hex.EncodeToString(protocol.AppendExtended(nil, 0x9b, []byte{1}, 1)) // 12 bytes
	for name, c := range map[string]struct {
		stream  string
		patient bool
		want    protocol.Cut
	}{
		"nothing":                       {"", true, protocol.Cut{}},
		"a whole frame":                 {beat + beat, true, protocol.Cut{Len: 15}},
		"the shortest":                  {"787801" + "13" + "0d0a", true, protocol.Cut{Len: 6}},
		"the shortest, long":            {"7979" + "0001" + "13" + "0d0a", true, protocol.Cut{Len: 7}},
		"no frame can be so short":      {"787800" + "0d0a" + beat, true, protocol.Cut{Skip: 5, Len: 15}},
		"nor so short, long":            {"79790000" + "0d0a" + beat, true, protocol.Cut{Skip: 6, Len: 15}},
		"half a header":                 {"000078", true, protocol.Cut{Skip: 2}},
		"junk":                          {"000000", true, protocol.Cut{Skip: 3}},
		"half a frame, waited for":      {beat[:20], true, protocol.Cut{}},
		"half a frame, given up":        {beat[:20], false, protocol.Cut{}},
		"behind one byte of junk":       {"78" + beat, true, protocol.Cut{Skip: 1, Len: 15}},
		"behind two":                    {"7979" + beat, true, protocol.Cut{Skip: 2, Len: 15}},
		"behind three, waited for":      {"7878ff" + beat, true, protocol.Cut{}},
		"behind three, given up":        {"7878ff" + beat, false, protocol.Cut{Skip: 3, Len: 15}},
		"inside what another claims":    {"78787f" + beat[4:] + strings.Repeat("00", 100), true, protocol.Cut{}},
		"a short length, healed":        {"787808" + beat[6:], true, protocol.Cut{Len: 15}},
		"a short length, no tail yet":   {"787803" + beat[6:26], true, protocol.Cut{}},
		"a length that lies, long":      {"79790001" + long[8:], true, protocol.Cut{Len: 12}},
		"a long length, given up":       {"787820" + beat[6:], false, protocol.Cut{Len: 15}},
		"a long length, waited for":     {"787820" + beat[6:], true, protocol.Cut{}},
		"a lie before a frame":          {"78780313" + "00000000000000" + beat, true, protocol.Cut{Skip: 11, Len: 15}},
		"a tail far away":               {"78780313" + strings.Repeat("00", 508), true, protocol.Cut{Skip: 512}},
		"not quite so far":              {"78780313" + strings.Repeat("00", 507), true, protocol.Cut{}},
		"counted, nothing":              {"78780069" + date + "00" + "01cc00" + "0d0a", true, protocol.Cut{Len: 16}},
		"counted":                       {"78780269" + date + ap + ap + cells + "0d0a" + beat, true, protocol.Cut{Len: 4 + 6 + 14 + 14 + 2}},
		"counted, the other type":       {"78780217" + date + ap + ap + cells + "0d0a", true, protocol.Cut{Len: 40}},
		"counted, a byte is missing":    {"78780269" + date + ap + ap + cells + "0d", true, protocol.Cut{}},
		"counted, half of it":           {"78780269" + date + ap, true, protocol.Cut{}},
		"counted, half of it, for ever": {"78780269" + date + ap, false, protocol.Cut{Len: 14}},
		"counted, but it is not":        {"78780169" + date + ap + "0001cc00" + "0000", true, protocol.Cut{Len: 14}},
		"counted, in another type":      {"78780268" + date + ap + ap + cells + "0d0a", true, protocol.Cut{Len: 14}},
	} {
		if got := (protocol.Framer{}).Next(unhex(t, c.stream), c.patient); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
