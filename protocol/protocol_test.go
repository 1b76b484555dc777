package protocol_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/vectortest"
)

// printed are the frames of the documents (PROTOCOL.md section 12): what they
// are, and whether their checksum is right as printed.
var printed = load("documents.jsonl")

type printedFrame struct {
	Name, Hex, Type, Answer string
	OK                      bool `json:"crc_ok"`
}

func load(name string) (list []printedFrame) {
	b, err := os.ReadFile("../testdata/frames/" + name)
	if err != nil {
		panic(err)
	}
	for line := range bytes.Lines(b) {
		var p printedFrame
		if err := json.Unmarshal(line, &p); err != nil {
			panic(err)
		}
		list = append(list, p)
	}
	return list
}

func TestPrintedFrames(t *testing.T) {
	t.Parallel()
	var m protocol.Message
	var d protocol.Decoder
	now := time.Date(2026, 11, 24, 10, 36, 0, 0, time.UTC)
	for _, p := range printed {
		frame := unhex(t, p.Hex)
		d.Decode(&m, frame, protocol.Session{})
		if m.Kind.String() != p.Type || m.CRCOK != p.OK {
			t.Errorf("%s: %v with checksum %v, want %v with %v (%s)", p.Name, m.Kind, m.CRCOK, p.Type, p.OK, m.Error)
		}
		answer := hex.EncodeToString(protocol.AppendAnswer(nil, &m, frame, now))
		if p.Answer != "" && p.Name != "time request" && answer != p.Answer {
			t.Errorf("%s: answer %s, want %s", p.Name, answer, p.Answer)
		}
		if p.Name == "time request" && answer[:24] != "78780b8a1a0b180a24000000" {
			t.Errorf("%s: answer %s", p.Name, answer)
		}
	}
}

func TestCRC(t *testing.T) {
	t.Parallel()
	if got := protocol.CRC([]byte("123456789")); got != 0x906e {
		t.Errorf("check value %04x, want 906e", got)
	}
	// Whatever the alignment, the sliced and the simple sum agree.
	b := bytes.Repeat([]byte{0x78, 0x01, 0xfe, 0x0d}, 20)
	for n := range b {
		slow := uint16(0xffff)
		for _, v := range b[:n] {
			slow ^= uint16(v)
			for range 8 {
				slow = slow>>1 ^ 0x8408&-(slow&1)
			}
		}
		if got := protocol.CRC(b[:n]); got != ^slow {
			t.Fatalf("%d bytes: %04x, want %04x", n, got, ^slow)
		}
	}
}

func TestIMEI(t *testing.T) {
	t.Parallel()
	id, err := protocol.ParseIMEI("356789012345678")
	if err != nil || id.String() != "356789012345678" || !id.Valid() {
		t.Errorf("got %v, %v, valid %v", id, err, id.Valid())
	}
	for _, bad := range []string{"", "12345678901234", "1234567890123456", "35678901234567a", "-35678901234567"} {
		if _, err := protocol.ParseIMEI(bad); err == nil {
			t.Errorf("%q is taken for an IMEI", bad)
		}
	}
	for _, bad := range []protocol.IMEI{0, 0x35678901234567a, 0xf56789012345678, 0x356789f12345678} {
		if bad.Valid() {
			t.Errorf("%v is valid", bad)
		}
	}
	if good, _ := protocol.ParseIMEI("490154203237518"); !good.LuhnOK() {
		t.Error("a right check digit is refused")
	}
	if bad, _ := protocol.ParseIMEI("490154203237517"); bad.LuhnOK() {
		t.Error("a wrong check digit is taken")
	}
}

func TestZoneIsAppliedToTimes(t *testing.T) {
	t.Parallel()
	var m protocol.Message
	var d protocol.Decoder
	frame := unhex(t, location)
	d.Decode(&m, frame, protocol.Session{})
	utc := m.FixTime
	d.Decode(&m, frame, protocol.Session{UTCOffset: 19800})
	if m.FixTime != utc-19800 || m.DeviceTime != m.FixTime {
		t.Errorf("fix time %d, want %d", m.FixTime, utc-19800)
	}
}

func TestImpossibleDateKeepsTheRest(t *testing.T) {
	t.Parallel()
	for name, date := range map[string][]byte{"month 13": {15, 13, 1, 0, 0, 0}, "day 0": {15, 1, 0, 0, 0, 0}, "30 February": {16, 2, 30, 0, 0, 0}, "hour 24": {15, 1, 1, 24, 0, 0}, "minute 60": {15, 1, 1, 0, 60, 0}, "year 100": {100, 1, 1, 0, 0, 0}} {
		frame := unhex(t, location)
		copy(frame[4:], date)
		var m protocol.Message
		new(protocol.Decoder).Decode(&m, frame, protocol.Session{})
		if m.Has&(protocol.HasFixTime|protocol.HasDeviceTime) != 0 || !strings.Contains(m.Error, "date") || m.Has&protocol.HasFix == 0 || len(m.Cells) != 1 {
			t.Errorf("%s: has %b, error %q", name, m.Has, m.Error)
		}
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	got, err := protocol.AppendCommand(nil, 0, "PARAM#", false)
	if want := "787810800a00000000504152414d230000abe90d0a"; err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got %x, %v, want %s", got, err, want)
	}
	if _, err := protocol.AppendCommand(nil, 0, strings.Repeat("x", 245), false); err != nil {
		t.Errorf("the longest command: %v", err)
	}
	if _, err := protocol.AppendCommand(nil, 0, strings.Repeat("x", 246), false); err == nil {
		t.Error("a command whose length byte overflows is taken")
	}
}

func TestExplainNamesEveryByte(t *testing.T) {
	t.Parallel()
	var d protocol.Decoder
	for _, p := range printed {
		frame := unhex(t, p.Hex)
		at := 0
		for _, r := range d.Explain(frame, protocol.Session{}) {
			if r.Offset != at || r.Len <= 0 || r.Name == "" {
				t.Errorf("%s: %+v begins at %d, want %d", p.Name, r, r.Offset, at)
			}
			at = r.Offset + r.Len
		}
		if at != len(frame) {
			t.Errorf("%s: explained to %d of %d bytes", p.Name, at, len(frame))
		}
	}
}

func TestNoAllocationPerFrame(t *testing.T) {
	var m protocol.Message
	var d protocol.Decoder
	answer := make([]byte, 0, 64)
	for _, p := range printed {
		switch p.Type {
		case "location", "heartbeat", "alarm", "lbs", "wifi", "login":
		default:
			continue
		}
		frame := unhex(t, p.Hex)
		if n := testing.AllocsPerRun(100, func() {
			new(protocol.Framer).Next(frame, true)
			d.Decode(&m, frame, protocol.Session{})
			answer = protocol.AppendAnswer(answer[:0], &m, frame, time.Time{})
		}); n > 0 {
			t.Errorf("%s: %v allocations", p.Name, n)
		}
	}
}

// seal makes a frame whole again that a fuzzer has changed, so that more than
// its damage is looked at.
func seal(frame []byte) {
	if n := len(frame); n >= 12 && n < 0xff && n%2 == 0 {
		frame[0], frame[1], frame[2] = 0x78, 0x78, byte(n-5)
		binary.BigEndian.PutUint16(frame[n-4:], protocol.CRC(frame[2:n-4]))
		copy(frame[n-2:], "\r\n")
	}
}

func FuzzDecode(f *testing.F) {
	for _, p := range printed {
		b, _ := hex.DecodeString(p.Hex)
		f.Add(b, "")
		f.Add(b, "NT20")
	}
	f.Fuzz(func(t *testing.T, frame []byte, model string) {
		var m protocol.Message
		var d protocol.Decoder
		s := protocol.Session{Model: model}
		seal(frame)
		d.Decode(&m, frame, s)
		answers := protocol.AppendAnswer(nil, &m, frame, time.Unix(0, 0))
		total := 0
		protocol.EachFrame(answers, func(b []byte) { total += len(b) })
		if total != len(answers) {
			t.Fatalf("answers of %d bytes fall into frames of %d", len(answers), total)
		}
		protocol.AppendJSON(nil, &m, s, answers)
		if model == "" {
			sameFrame(t, &m, frame, s)
		}
		at := 0
		for _, r := range d.Explain(frame, s) {
			if r.Offset < at || r.Offset+r.Len > len(frame) {
				t.Fatalf("%+v behind %d of %d", r, at, len(frame))
			}
			at = r.Offset
		}
	})
}

func FuzzFramer(f *testing.F) {
	for _, p := range printed {
		b, _ := hex.DecodeString(p.Hex)
		f.Add(b, 3)
		f.Add(append([]byte("\r\n\x78"), append(b, b...)...), 7)
	}
	counted, _ := hex.DecodeString("78780269241125101112a0b10d0ae4f53da0b10d0ae4f53d0201cc00287d1f713e287d1f723f0d0a")
	f.Add(append(counted, counted...), 11)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		// Every byte is taken once, in order, and a call never goes back.
		var framer protocol.Framer
		for b := stream; len(b) > 0; {
			c := framer.Next(b, false)
			if c.Skip < 0 || c.Len < 0 || c.Skip+c.Len > len(b) {
				t.Fatalf("cut %+v of %d bytes", c, len(b))
			}
			if c.Skip+c.Len == 0 {
				break
			}
			b = b[c.Skip+c.Len:]
		}
		// What is proven is cut however the stream arrives.
		if step < 1 {
			return
		}
		var chunks [][]byte
		for i := 0; i < len(stream); i += step {
			chunks = append(chunks, stream[i:min(i+step, len(stream))])
		}
		if got, want := frames(chunks), frames([][]byte{stream}); !slices.Equal(got, want) {
			t.Fatalf("in steps of %d: %v\nat once: %v", step, got, want)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, p := range printed[5:6] {
		frame := unhex(b, p.Hex)
		b.Run(fmt.Sprintf("0x%02x", frame[3]), func(b *testing.B) {
			var m protocol.Message
			var d protocol.Decoder
			var f protocol.Framer
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				f.Next(frame, true)
				d.Decode(&m, frame, protocol.Session{})
			}
		})
	}
}

func ExampleDecoder_Decode() {
	frame, _ := hex.DecodeString("78780a134004040001000fdcee0d0a")
	var m protocol.Message
	var d protocol.Decoder
	d.Decode(&m, frame, protocol.Session{})
	fmt.Println(string(protocol.AppendJSON(nil, &m, protocol.Session{}, protocol.AppendAnswer(nil, &m, frame, time.Time{}))))
	// Output:
	// {"type":"heartbeat","protocol":19,"serial":15,"crc_ok":true,"attributes":{"status":64,"ignition":false,"charge":false,"blocked":false,"batteryLevel":66,"rssi":4},"reply":["78780513000f008f0d0a"]}
}

// mixed is all vectors in turn: the frames of real devices, and one of every
// kind and dialect as often as of the common ones.
func mixed(b *testing.B, each func(frame []byte)) {
	b.Helper()
	for _, file := range []string{"captures.jsonl", "generated.jsonl"} {
		b.Run(file, func(b *testing.B) {
			var list [][]byte
			size := 0
			vectortest.Lines(b, file, func(line []byte) {
				var v vectortest.Vector
				if err := json.Unmarshal(line, &v); err != nil {
					b.Fatal(err)
				}
				list = append(list, unhex(b, v.Hex))
				size += len(v.Hex) / 2
			})
			n := 0
			b.ReportAllocs()
			b.SetBytes(int64(size / len(list)))
			for b.Loop() {
				each(list[n])
				if n++; n == len(list) {
					n = 0
				}
			}
		})
	}
}

func BenchmarkMixed(b *testing.B) {
	var m protocol.Message
	var d protocol.Decoder
	var f protocol.Framer
	mixed(b, func(frame []byte) {
		f.Next(frame, true)
		d.Decode(&m, frame, protocol.Session{})
	})
}

// BenchmarkMixedReference is the checksum of the standard library over the same
// bytes.
func BenchmarkMixedReference(b *testing.B) {
	table := crc32.MakeTable(crc32.Castagnoli)
	mixed(b, func(frame []byte) { crc32.Checksum(frame, table) })
}

// BenchmarkReference is the checksum of the standard library over the same
// bytes.
func BenchmarkReference(b *testing.B) {
	frame := unhex(b, printed[5].Hex)
	table := crc32.MakeTable(crc32.Castagnoli)
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		crc32.Checksum(frame, table)
	}
}
