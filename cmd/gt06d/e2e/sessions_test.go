package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/protocol/vectortest"
)

// dialogue is a connection of the vectors: what is written, read by read, and
// what the most used server answered to each frame it cut.
type dialogue struct {
	ID     string     `json:"id"`
	Name   string     `json:"name"`
	Chunks []string   `json:"chunks"`
	Frames [][]string `json:"frames"` // of framing.jsonl
	Result []struct {
		Frames []struct {
			Frame     string   `json:"frame"`
			Responses []string `json:"responses"`
		} `json:"frames"`
	} `json:"result"`
}

// Every session and every framing vector over a socket of its own: each frame
// that the framer cuts out of the stream is answered, once and in order, and
// what the vectors' server answered is answered the same. That one closes or
// stays silent where bytes are lost; here the connection lives, which the answer
// to a last frame shows.
func TestDialoguesThroughTheSocket(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	var list []dialogue
	for _, file := range []string{"sessions.jsonl", "framing.jsonl"} {
		vectortest.Lines(t, file, func(line []byte) {
			var v dialogue
			if err := json.Unmarshal(line, &v); err != nil {
				t.Fatal(err)
			}
			list = append(list, v)
		})
	}
	answers := make([]int, len(list))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range list {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i] = list[i].hold(t, d, 1000+i)
		})
	}
	wg.Wait()
	total := 0
	for _, n := range answers {
		total += n
	}
	t.Logf("%d dialogues, %d answers", len(list), total)
	if len(list) < 100 || total < 2*len(list) {
		t.Errorf("only %d dialogues, %d answers", len(list), total)
	}
}

// hold writes the dialogue as device n and compares the answers.
func (v *dialogue) hold(t *testing.T, d *daemon, n int) (answers int) {
	t.Helper()
	chunks := v.as(t, n)
	last := device.Build(device.Heartbeat, n, 0xfefe, time.Now()).Bytes
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close() //nolint:errcheck // a test's own
	_ = c.SetDeadline(time.Now().Add(patience))
	for _, chunk := range append(chunks, last) {
		if _, err := c.Write(chunk); err != nil {
			t.Errorf("%s %s: %v", v.ID, v.Name, err)
			return 0
		}
		pause(3 * time.Millisecond)
	}
	want := v.answers(chunks, last)
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(got, want[len(want)-1]) {
		k, err := c.Read(buf)
		got = append(got, buf[:k]...)
		if err != nil {
			t.Errorf("%s %s: %v after %x", v.ID, v.Name, err, got)
			return 0
		}
	}
	var frames [][]byte
	protocol.EachFrame(got, func(b []byte) { frames = append(frames, b) })
	if len(frames) != len(want) {
		t.Errorf("%s %s: %d answers, want %d: %x", v.ID, v.Name, len(frames), len(want), got)
		return 0
	}
	for i, b := range frames {
		if timed := len(b) > 3 && b[3] == 0x8a; !timed && !bytes.Equal(b, want[i]) {
			t.Errorf("%s %s: answer %d is %x, want %x", v.ID, v.Name, i, b, want[i])
		}
	}
	// What the vectors' server answered comes in the same order.
	text := hex.EncodeToString(got)
	at := 0
	for _, r := range v.Result {
		for _, f := range r.Frames {
			b, _ := hex.DecodeString(f.Frame)
			if c := new(protocol.Framer).Next(b, true); c.Skip > 0 || c.Len != len(b) {
				continue // it was cut out of the middle of another, or with junk
			}
			for _, a := range f.Responses {
				if strings.HasPrefix(a, "78780b8a") {
					continue
				}
				i := strings.Index(text[at:], a)
				if i < 0 {
					t.Errorf("%s %s: %s is not answered with %s", v.ID, v.Name, f.Frame, a)
					continue
				}
				at += i + len(a)
			}
		}
	}
	return len(frames)
}

// as returns the chunks with the identity of device n; what has no login gets
// one before it.
func (v *dialogue) as(t *testing.T, n int) (chunks [][]byte) {
	t.Helper()
	var stream []byte
	for _, c := range v.Chunks {
		b, err := hex.DecodeString(c)
		if err != nil {
			t.Fatal(err)
		}
		stream = append(stream, b...)
		chunks = append(chunks, stream[len(stream)-len(b):len(stream):len(stream)])
	}
	own := device.IMEI(n).AppendBCD(nil)
	logins := 0
	for at := 0; at < len(stream); at++ {
		i := bytes.Index(stream[at:], []byte{0x03, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78})
		if i < 0 {
			break
		}
		at += i
		begin, head := at-4, 3 // 78 78 length 01
		if begin >= 1 && stream[begin] == 0x79 {
			begin, head = at-5, 4
		}
		if begin < 0 || stream[at-1] != 0x01 {
			continue
		}
		size := int(stream[begin+2]) + 5
		if head == 4 {
			size = int(binary.BigEndian.Uint16(stream[begin+2:])) + 6
		}
		copy(stream[at:], own)
		f := stream[begin : begin+size]
		binary.BigEndian.PutUint16(f[size-4:], protocol.CRC(f[2:size-4]))
		logins++
	}
	// The chunks were cut from arrays that grew.
	at := 0
	for i, c := range chunks {
		chunks[i] = stream[at : at+len(c)]
		at += len(c)
	}
	if logins == 0 && (len(stream) < 4 || stream[0] != 0x78 || stream[3] != 0x01) {
		chunks = append([][]byte{device.Build(device.Login, n, 0, time.Now()).Bytes}, chunks...)
	}
	return chunks
}

// answers is what the library makes of the stream, up to the answer to the last
// frame.
func (v *dialogue) answers(chunks [][]byte, last []byte) (want [][]byte) {
	var buf []byte
	var framer protocol.Framer
	var m protocol.Message
	var dec protocol.Decoder
	known, total := false, map[uint32]uint32{}
	drain := func(patient bool) {
		for len(buf) > 0 {
			cut := framer.Next(buf, patient)
			if cut.Len > 0 {
				frame := buf[cut.Skip : cut.Skip+cut.Len]
				dec.Decode(&m, frame, protocol.Session{})
				known = known || m.Has&protocol.HasIMEI != 0
				if m.Kind == protocol.KindPhoto { // the announcement says how large it is
					total[m.Photo.ID] = max(total[m.Photo.ID], m.Photo.Total)
					m.Photo.Total = total[m.Photo.ID]
				}
				if known {
					protocol.EachFrame(protocol.AppendAnswer(nil, &m, frame, time.Now()), func(b []byte) { want = append(want, b) })
				}
			}
			buf = buf[cut.Skip+cut.Len:]
			if cut.Len == 0 {
				return
			}
		}
	}
	for _, c := range append(chunks, last) {
		buf = append(buf, c...)
		drain(true)
	}
	drain(false)
	return want
}
