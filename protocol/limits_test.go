package protocol_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/vectortest"
)

// What is decided by one byte more or less.
func TestAnswersAtTheirLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ frame, answer string }{
		"nothing to answer":                   {"787801", ""},
		"a type and nothing else":             {"78780113", hex.EncodeToString(protocol.AppendFrame(nil, 0x13, nil, 0))},
		"access points without a whole time":  {"787800692411251011", ""},
		"access points and a time":            {"78780069241125101112", "78780069241125101112" + "0d0a"},
		"a part of a photo, the next one":     {hex.EncodeToString(protocol.AppendExtended(nil, 0x36, append(unhex(t, "00000007"+"00000400"+"0400"), make([]byte, 1024)...), 9)), hex.EncodeToString(protocol.AppendFrame(nil, 0x36, unhex(t, "00000007"+"00000800"+"0400"), 0))},
		"a part of a photo that is not full":  {hex.EncodeToString(protocol.AppendExtended(nil, 0x36, append(unhex(t, "00000007"+"00000400"+"03ff"), make([]byte, 1023)...), 9)), ""},
		"items that end where the frame does": {hex.EncodeToString(protocol.AppendExtended(nil, 0x70, unhex(t, "00090001"+"08"), 0x1234)), hex.EncodeToString(protocol.AppendFrame(nil, 0x70, nil, 0x1234))},
		"items that run to the tail":          {hex.EncodeToString(protocol.AppendExtended(nil, 0x70, unhex(t, "00290004"), 0x1234)), hex.EncodeToString(protocol.AppendFrame(nil, 0x70, nil, 0x0d0a))}, // the tail, as others do
		"items that run into the serial":      {hex.EncodeToString(protocol.AppendExtended(nil, 0x70, unhex(t, "00180001"+"08"), 0x1234)), ""},
	} {
		frame := unhex(t, c.frame)
		var m protocol.Message
		new(protocol.Decoder).Decode(&m, frame, protocol.Session{})
		got := hex.EncodeToString(protocol.AppendAnswer(nil, &m, frame, time.Time{}))
		if name == "items that run into the serial" {
			// The item takes a byte of the serial; what stands behind it is echoed.
			c.answer = hex.EncodeToString(protocol.AppendFrame(nil, 0x70, nil, uint16(frame[len(frame)-5])<<8|uint16(frame[len(frame)-4])))
		}
		if got != c.answer {
			t.Errorf("%s: %s, want %s", name, got, c.answer)
		}
	}
}

// A photo whose size is known is asked for to its end.
func TestNextPartOfAPhoto(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		total, place uint32
		n            int
		want         string // offset and size of what is asked for
	}{
		"in the middle":        {3000, 1024, 1024, "00000800" + "03b8"},
		"the last one is full": {2048, 1024, 1024, ""},
		"one byte is missing":  {2049, 1024, 1024, "00000800" + "0001"},
		"size unknown":         {0, 1024, 1024, "00000800" + "0400"},
		"and the last part":    {0, 1024, 1023, ""},
	} {
		m := protocol.Message{Type: 0x36, Extended: true, Photo: protocol.Photo{ID: 7, Total: c.total, Place: c.place, Len: c.n}}
		got := hex.EncodeToString(protocol.AppendAnswer(nil, &m, unhex(t, "7979000036"), time.Time{}))
		if c.want == "" && got == "" {
			continue
		}
		if want := hex.EncodeToString(protocol.AppendFrame(nil, 0x36, unhex(t, "00000007"+c.want), 0)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestCommandsAtTheirLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size     int
		language bool
		says     string
	}{{245, false, ""}, {246, false, "246 bytes, at most 245"}, {243, true, ""}, {244, true, "244 bytes, at most 243"}} {
		b, err := protocol.AppendCommand(nil, 1<<24|2<<16|3<<8|4, strings.Repeat("x", c.size), c.language)
		switch {
		case c.says == "":
			flag, text, ok := protocol.ParseCommand(b)
			if err != nil || !ok || flag != 0x01020304 || len(text) != c.size || len(b) != int(b[2])+5 {
				t.Errorf("%d bytes: %v, read back %v, %d bytes", c.size, err, ok, len(text))
			}
		case err == nil || !strings.Contains(err.Error(), c.says):
			t.Errorf("%d bytes: %v, want %q", c.size, err, c.says)
		}
	}
	for seconds, ok := range map[int]bool{4: false, 5: true, 18000: true, 18001: false} {
		if _, err := protocol.CommandText("interval", []string{fmt.Sprint(seconds)}, protocol.CommandOptions{}); (err == nil) != ok {
			t.Errorf("an interval of %d s: %v", seconds, err)
		}
	}
	whole, err := protocol.AppendCommand(nil, 7, "", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, text, ok := protocol.ParseCommand(whole); !ok || text != "" {
		t.Errorf("an empty command is read as %q, %v", text, ok)
	}
	for n := range whole {
		if _, _, ok := protocol.ParseCommand(whole[:n]); ok {
			t.Errorf("the first %d bytes are a command", n)
		}
	}
	for name, bad := range map[string][]byte{
		"a byte short":              whole[:len(whole)-1],
		"another type":              protocol.AppendFrame(nil, 0x81, unhex(t, "0400000007"), 0),
		"another header":            protocol.AppendExtended(nil, 0x80, unhex(t, "0400000007"), 0),
		"a text longer than itself": protocol.AppendFrame(nil, 0x80, unhex(t, "0500000007"), 0),
		"a length below the flag":   protocol.AppendFrame(nil, 0x80, unhex(t, "0300000007"), 0),
	} {
		if _, _, ok := protocol.ParseCommand(bad); ok {
			t.Errorf("%s is read", name)
		}
	}
}

// What a frame that is too short for its fields says.
func TestTruncatedFramesSayWhatIsMissing(t *testing.T) {
	t.Parallel()
	whole := unhex(t, location)
	for content, says := range map[int]string{
		29: "", 28: "", 27: "", 26: "", // upload is there or not, or a stray byte or two
		25: "content is too short: fields run into the checksum",
		20: "content is too short: fields run into the checksum",
		17: "content is too short: fields run into the checksum",
		11: "content is too short: fields run into the checksum",
		2:  "content is too short: fields run into the checksum; impossible date 0f0c00019b94",
		0:  "content is too short: fields run into the checksum; impossible date 000135830d0a",
	} {
		frame := protocol.AppendFrame(nil, 0x22, whole[4:4+content], 1)
		var m protocol.Message
		new(protocol.Decoder).Decode(&m, frame, protocol.Session{})
		if m.Error != says {
			t.Errorf("%d bytes: %q, want %q", content, m.Error, says)
		}
	}
	var m protocol.Message
	battery := protocol.AppendFrame(nil, 0x40, make([]byte, 59+5), 1) // as far as five bytes of the barcode
	if new(protocol.Decoder).Decode(&m, battery, protocol.Session{}); m.Error != "barcode: needs 16 bytes, 5 are left" {
		t.Errorf("battery data: %q", m.Error)
	}
	for frame, says := range map[string]string{
		"":               "frame: too short for a type",
		"787801":         "frame: too short for a type",
		"79790001":       "frame: too short for a type",
		"78780113":       "terminal information: needs 1 bytes, 0 are left",
		"787801130d0a":   "content is too short: fields run into the checksum",
		"78780512aabbcc": "time: needs 6 bytes, 0 are left",
	} {
		new(protocol.Decoder).Decode(&m, unhex(t, frame), protocol.Session{})
		if m.Error != says {
			t.Errorf("%s: %q, want %q", frame, m.Error, says)
		}
	}
}

// The annotated dump, byte by byte.
func TestExplain(t *testing.T) {
	t.Parallel()
	for frame, want := range map[string]string{
		"78780a134004040001000fdcee0d0a": `0+2 header
2+1 length 10
3+1 type 0x13 heartbeat
4+1 terminal information ignition false, charge false, cut false, alarm bits 0
5+1 battery level 66 %
6+1 signal 4
7+1 alarm 0x00 
8+1 not decoded 01
9+2 serial 15
11+2 checksum right
13+2 tail
`,
		"78780069241125101112000000000d0a": `0+2 header
2+1 length 0
3+1 type 0x69 access points
4+6 time 2024-11-25T10:11:12Z
10+4 cells, counted 0 cells, mcc 0 mnc 0
14+2 tail
`,
		"78780a134004040001000fdcef0d0a0102": `0+2 header
2+1 length 10
3+1 type 0x13 heartbeat
4+1 terminal information ignition false, charge false, cut false, alarm bits 0
5+1 battery level 66 %
6+1 signal 4
7+1 alarm 0x00 
8+3 ignition, mode, re-upload true, 0, true
11+2 serial 56559
13+2 checksum wrong, should be ` + fmt.Sprintf("%04x", protocol.CRC(unhex(t, "0a134004040001000fdcef"))) + `
15+2 tail
`,
		"7878":       "0+2 rubbish 7878\n",
		"7979000514": "0+2 header\n2+2 length 5\n4+1 type 0x14 unknown\n",
	} {
		var d protocol.Decoder
		var b strings.Builder
		for _, r := range d.Explain(unhex(t, frame), protocol.Session{}) {
			fmt.Fprintf(&b, "%d+%d %s", r.Offset, r.Len, r.Name)
			if r.Value != "" {
				b.WriteString(" " + r.Value)
			}
			b.WriteString("\n")
		}
		if b.String() != want {
			t.Errorf("%s:\n%swant:\n%s", frame, b.String(), want)
		}
	}
}

// The dump of every printed and built frame is what it was: go test -run Dump
// -update writes testdata/dump.txt again, whose change is to be read.
func TestDump(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	var d protocol.Decoder
	dump := func(name, frame string) {
		fmt.Fprintf(&b, "%s\n", name)
		for _, r := range d.Explain(unhex(t, frame), protocol.Session{UTCOffset: 3600}) {
			fmt.Fprintf(&b, "  %3d %2d  %s: %s\n", r.Offset, r.Len, r.Name, strings.TrimSpace(r.Value+" "+r.Unit))
		}
	}
	for _, p := range printed {
		dump(p.Name, p.Hex)
	}
	vectortest.Built(t, func(line []byte) {
		var v struct{ Note, Hex string }
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		dump(v.Note, v.Hex)
	})
	const file = "testdata/dump.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, lines := strings.Split(b.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(lines)) {
		if i >= len(got) || i >= len(lines) || got[i] != lines[i] {
			t.Fatalf("line %d: %q, want %q", i+1, got[i:min(i+1, len(got))], lines[i:min(i+1, len(lines))])
		}
	}
}

func TestIMEIsAtTheirLimits(t *testing.T) {
	t.Parallel()
	for text, valid := range map[string]bool{"000000000000001": true, "999999999999999": true, "000000000000000": false} {
		id, err := protocol.ParseIMEI(text)
		if err != nil || id.Valid() != valid {
			t.Errorf("%s: %v, valid %v", text, err, id.Valid())
		}
	}
	for text, ok := range map[string]bool{"490154203237518": true, "356938035643809": true, "000000000000000": true, "356938035643808": false, "365938035643809": false} {
		if id, _ := protocol.ParseIMEI(text); id.LuhnOK() != ok {
			t.Errorf("%s: check digit %v", text, id.LuhnOK())
		}
	}
}

func TestCommandsThatCutAnEngine(t *testing.T) {
	t.Parallel()
	for text, cuts := range map[string]bool{
		"RELAY,1#": true, "relay,1": true, " Relay,1# ": true, "RELAY#": true, "RELAY,0#": false, "DYD#": true, "dyd,000000#": true, "STOP#": true,
		"STOPENGINE,1234#": true, "cut#": true, "HFYD#": false, "STATUS#": false, "": false,
	} {
		if got := protocol.CutsEngine(text); got != cuts {
			t.Errorf("%q: %v", text, got)
		}
	}
	for text, verb := range map[string]string{"Relay,1#": "RELAY", "status": "STATUS", "": "", "1": ""} {
		if got := protocol.Verb(text); got != verb {
			t.Errorf("%q: %q, want %q", text, got, verb)
		}
	}
}

func TestTypeAndRest(t *testing.T) {
	t.Parallel()
	whole := unhex(t, location)
	for name, c := range map[string]struct {
		frame  []byte
		typ    byte
		behind string
	}{
		"a frame":            {whole, whole[3], ""},
		"two":                {append(slices.Clip(whole), whole...), whole[3], string(whole)},
		"a frame and a byte": {append(slices.Clip(whole), 'x'), whole[3], "x"},
		"an extended one":    {protocol.AppendExtended(nil, 0x94, []byte("abc"), 1), 0x94, ""},
		"half of one":        {whole[:9], whole[3], ""},
		"a header":           {whole[:3], 0, ""},
		"an extended header": {[]byte{0x79, 0x79, 0, 9}, 0, ""},
		"nothing":            {nil, 0, ""},
	} {
		if got := protocol.TypeOf(c.frame); got != c.typ {
			t.Errorf("%s: type %#x, want %#x", name, got, c.typ)
		}
		if got := protocol.Behind(c.frame); string(got) != c.behind {
			t.Errorf("%s: %x behind, want %x", name, got, c.behind)
		}
	}
}
